"""What users did becomes interactions, each with the weight of its kind; what is of no use is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import pytest

from annserve.domain.catalog import StoredEntry
from annserve.domain.errors import InputError, TooManyBadRowsError
from annserve.domain.events import Event, EventType
from annserve.training.interactions import Interactions
from annserve.training.outcomes import OutcomeWeights, read_outcomes

WEIGHTS = OutcomeWeights(
    of_types={EventType.CLICK: 1.0, EventType.CONVERSION: 4.0}, of_words={"viewed": 1.0, "bought": 4.0, "read": 0.5}
)
UNTIL_MS = 1_000
T = TypeVar("T")


async def chunks(*given: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    for chunk in given:
        yield chunk


def event(type_: EventType, user_id: Any, *item_ids: Any, at: int) -> Event:
    return Event(event_id=f"{at}", type=type_, user_id=user_id, item_ids=item_ids, time_ms=at)


def entry(user_id: str | None, item_id: str | None, word: str | None, at: int | None) -> StoredEntry:
    return StoredEntry(user_id=user_id, item_id=item_id, event=word, time_ms=at)


def told(interactions: Interactions) -> list[tuple[str, str, float, int]]:
    assert interactions.times is not None
    return [
        (interactions.user_ids[user], interactions.item_ids[item], float(weight), int(time))
        for user, item, weight, time in zip(
            interactions.users, interactions.items, interactions.weights, interactions.times, strict=True
        )
    ]


async def test_an_event_is_an_interaction_for_each_of_its_items() -> None:
    events = [event(EventType.CLICK, "u", "a", at=1), event(EventType.CONVERSION, "사용자", "a", "b", at=2)]

    interactions, others = await read_outcomes(chunks(events[:1], [], events[1:]), None, WEIGHTS, UNTIL_MS)

    assert told(interactions) == [("u", "a", 1.0, 1), ("사용자", "a", 4.0, 2), ("사용자", "b", 4.0, 2)]
    assert others == {}


async def test_entries_of_histories_count_by_what_they_say_was_done() -> None:
    entries = [entry("u", "a", "viewed", 1), entry("u", "b", "disliked", 2), entry("v", "c", "read", 3)]

    interactions, others = await read_outcomes(
        chunks([event(EventType.CLICK, "u", "c", at=9)]), chunks(entries), WEIGHTS, UNTIL_MS
    )

    assert told(interactions) == [("u", "c", 1.0, 9), ("u", "a", 1.0, 1), ("v", "c", 0.5, 3)]
    assert others == {"disliked": 1}


async def test_what_is_dated_later_than_now_is_not_known_yet() -> None:
    entries = [entry("u", "a", "viewed", UNTIL_MS - 1), entry("u", "b", "viewed", UNTIL_MS)]

    interactions, _ = await read_outcomes(chunks(), chunks(entries), WEIGHTS, UNTIL_MS)

    assert told(interactions) == [("u", "a", 1.0, UNTIL_MS - 1)]


async def test_bad_rows_are_left_out_and_counted_with_their_reason() -> None:
    events = [event(EventType.CLICK, 7, "a", at=1), event(EventType.CLICK, "u", "a", ["b"], "", at=2)]
    entries = [entry(None, "a", "viewed", 1), entry("u", "a", "viewed", None), entry("u", "a", "bought", 5)]

    interactions, _ = await read_outcomes(chunks(events), chunks(entries), WEIGHTS, UNTIL_MS, max_bad_share=1.0)

    assert told(interactions) == [("u", "a", 1.0, 2), ("u", "a", 4.0, 5)]
    assert interactions.report.row_count == 7
    assert interactions.report.bad_counts == {
        "no user id": 2,
        "no item id": 1,
        "invalid item id": 1,
        "time not understood": 1,
    }
    assert "histories row 2" in interactions.report.summary()


async def test_too_many_bad_rows_are_refused() -> None:
    events = [event(EventType.CLICK, "", "a", at=1), event(EventType.CLICK, "u", "a", at=2)]

    with pytest.raises(TooManyBadRowsError):
        await read_outcomes(chunks(events), None, WEIGHTS, UNTIL_MS)


async def test_a_store_without_outcomes_is_nothing_to_train_on() -> None:
    with pytest.raises(InputError, match="no rows"):
        await read_outcomes(chunks(), chunks(), WEIGHTS, UNTIL_MS)
