"""What users did, made up so that it is known which training foretells it: tastes that change one day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annserve.domain.events import Event, EventType
from annserve.training.bad_rows import ReadReport
from annserve.training.interactions import Interactions

USERS, ITEMS, GROUPS = 120, 160, 4
DRIFT_DAY, LAST_DAY = 60, 100
DAY_MS = 86_400_000
START_MS = 1_767_225_600_000
"""2026-01-01, the first day."""

SETTINGS = {"factors": "16", "half_life_days": "15", "history_half_life_days": "10", "popularity_share": "0"}


@dataclass(frozen=True, slots=True)
class Deed:
    user: str
    item: str
    day: float

    @property
    def time_ms(self) -> int:
        return START_MS + round(self.day * DAY_MS)


def old_taste(item: int) -> int:
    """Until `DRIFT_DAY` items go together by their remainder."""
    return item % GROUPS


def new_taste(item: int) -> int:
    """Then by tens: items that went together no longer do."""
    return item // 10 % GROUPS


def drifting(seed: int = 0) -> list[Deed]:
    """Return what all users did from the first day on, by time: 25 things of the old taste, then 32 of the new."""
    rng = np.random.default_rng(seed)
    deeds = []
    for user in range(USERS):
        for taste, count, first, last in ((old_taste, 25, 0, DRIFT_DAY), (new_taste, 32, DRIFT_DAY, LAST_DAY)):
            liked = rng.permutation([item for item in range(ITEMS) if taste(item) == user % GROUPS])[:count]
            days = rng.uniform(first, last, count)
            deeds += [Deed(f"u{user}", f"i{item}", float(day)) for item, day in zip(liked, days, strict=True)]
    return sorted(deeds, key=lambda deed: deed.day)


def before(deeds: Sequence[Deed], day: float) -> list[Deed]:
    return [deed for deed in deeds if deed.day < day]


def shuffled(deeds: Sequence[Deed], until_day: float = LAST_DAY, seed: int = 0) -> list[Deed]:
    """Return ``deeds`` with the items of those until a day dealt out anew, as a broken export might have them."""
    items = [deed.item for deed in deeds if deed.day < until_day]
    dealt = iter(np.random.default_rng(seed).permutation(items).tolist())
    return [replace(deed, item=next(dealt)) if deed.day < until_day else deed for deed in deeds]


def interactions_of(deeds: Sequence[Deed]) -> Interactions:
    users = {user: number for number, user in enumerate(dict.fromkeys(deed.user for deed in deeds))}
    items = {item: number for number, item in enumerate(dict.fromkeys(deed.item for deed in deeds))}
    return Interactions(
        user_ids=list(users),
        item_ids=list(items),
        users=np.array([users[deed.user] for deed in deeds], np.int32),
        items=np.array([items[deed.item] for deed in deeds], np.int32),
        weights=np.ones(len(deeds), np.float32),
        times=np.array([deed.time_ms for deed in deeds], np.int64),
        report=ReadReport(row_count=len(deeds), bad_counts={}, examples=[]),
    )


def events_of(deeds: Sequence[Deed]) -> list[Event]:
    return [
        Event(
            event_id=f"{deed.user}-{deed.item}-{deed.time_ms}",
            type=EventType.CLICK,
            user_id=deed.user,
            item_ids=(deed.item,),
            time_ms=deed.time_ms,
        )
        for deed in deeds
    ]
