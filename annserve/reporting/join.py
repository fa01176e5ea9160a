"""Outcomes joined to the impressions that led to them, in one pass over events in order of time.

An outcome belongs to the impression that its `impression_id` names; else to the user's latest one with its attribution
token and one of its items. A conversion that names neither belongs to the user's latest impression of one of its items,
and is credited apart: it may well have come about without it.

Memory is that of the impressions of the last ``later_ms``, about 800 bytes each with ten items; older ones are
handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from sys import intern
from typing import NamedTuple

from annserve.domain.events import VALUE_MAX, Event, EventType
from annserve.domain.query import Mode

_LOOKED_THROUGH_MAX = 1_000
"""The latest impressions of one user that an outcome without an impression's id is compared with: robots have more."""
_COSINE_MAX = 1.001
"""Of single precision."""


class Outcome(Enum):
    """What became of an impression. The first that holds."""

    CONVERTED = "converted"
    """There was a conversion within its window that names it, or its answer."""
    LATER = "later"
    """There was one after that, or one of an item it showed that names no answer."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long outcomes are credited to an impression."""

    outcome_ms: int = 30 * 60_000
    """Up to when they count to it."""
    later_ms: int = 7 * 86_400_000
    """Up to when they are credited apart; at least `outcome_ms`."""


class Answerer(NamedTuple):
    """What made an answer: the part of `PlacementUse` that answers share."""

    placement: str
    version: str
    experiment: str
    variant: str
    mode: Mode


@dataclass(slots=True, kw_only=True, eq=False)
class Shown:
    """An impression and what is known of its outcome."""

    time_ms: int
    impression_id: str
    user_id: str
    token: str
    item_ids: tuple[str, ...]
    answerer: Answerer
    user_context_similarity: float | None
    """As the event has it; None where that can be no cosine."""
    context_shown_similarity: float | None
    """Cosine of what was on screen and what was shown; None where it is not known."""
    outcome: Outcome = Outcome.NONE
    is_clicked: bool = False
    value: float = 0.0
    """Of all conversions within its window."""


ContextShown = Callable[[Sequence[Event]], Sequence[float | None]]
"""From impressions to the cosines of their context and what they show."""


class Join:
    """Takes events in order of time; hands on each impression when no outcome can be credited to it any more."""

    def __init__(self, windows: Windows, context_shown: ContextShown) -> None:
        self.unmatched: dict[EventType, int] = {EventType.CLICK: 0, EventType.CONVERSION: 0}
        """Outcomes of no impression that is known."""
        self.repeated_count = 0
        """Impressions whose `impression_id` another one of the window has; only the first counts."""
        self.unusable_values = 0
        """Conversions within their window whose value is no number, or out of all bounds; it counts as 0."""
        self._windows = windows
        self._context_shown = context_shown
        self._open: deque[Shown] = deque()
        self._by_id: dict[str, Shown] = {}
        self._by_user: dict[str, deque[Shown]] = {}
        self._answerers: dict[Answerer, Answerer] = {}

    def add(self, events: Sequence[Event]) -> Iterator[Shown]:
        """Take events, none older than those before, and yield the impressions that are over, oldest first."""
        answerers = [_answerer(event) for event in events]
        impressions = [event for event, answerer in zip(events, answerers, strict=True) if answerer]
        similarities = iter(self._context_shown(impressions))
        for event, answerer in zip(events, answerers, strict=True):
            while self._open and event.time_ms - self._open[0].time_ms > self._windows.later_ms:
                yield self._close()
            if answerer:
                self._show(event, self._answerers.setdefault(answerer, answerer), next(similarities))
            elif event.type in self.unmatched:
                self._credit(event)

    def finish(self) -> Iterator[Shown]:
        """Yield the impressions that are left."""
        while self._open:
            yield self._close()

    def _show(self, event: Event, answerer: Answerer, context_shown: float | None) -> None:
        if event.impression_id and event.impression_id in self._by_id:
            self.repeated_count += 1
            return
        shown = Shown(
            time_ms=event.time_ms,
            impression_id=event.impression_id,
            user_id=event.user_id,
            token=event.attribution_token,
            item_ids=tuple(map(intern, event.item_ids)),  # They recur: one copy of each is kept.
            answerer=answerer,
            user_context_similarity=_cosine(event),
            context_shown_similarity=context_shown,
        )
        self._open.append(shown)
        if shown.impression_id:
            self._by_id[shown.impression_id] = shown
        self._by_user.setdefault(shown.user_id, deque()).append(shown)

    def _close(self) -> Shown:
        shown = self._open.popleft()
        self._by_id.pop(shown.impression_id, None)
        of_user = self._by_user[shown.user_id]
        of_user.popleft()
        if not of_user:
            del self._by_user[shown.user_id]
        return shown

    def _credit(self, event: Event) -> None:
        is_named = bool(event.impression_id or event.attribution_token)
        shown = self._shown_for(event) if is_named or event.type is EventType.CONVERSION else None
        if shown is None:
            self.unmatched[event.type] += 1
            return
        is_in_window = is_named and event.time_ms - shown.time_ms <= self._windows.outcome_ms
        if event.type is EventType.CLICK:
            shown.is_clicked |= is_in_window
        elif is_in_window:
            shown.outcome = Outcome.CONVERTED
            # Older servers kept any, and one infinity would be all that is left of a sum. NaN compares false.
            is_usable = abs(event.value) <= VALUE_MAX
            shown.value += event.value if is_usable else 0.0
            self.unusable_values += not is_usable
        elif shown.outcome is Outcome.NONE:
            shown.outcome = Outcome.LATER

    def _shown_for(self, event: Event) -> Shown | None:
        if event.impression_id:
            return self._by_id.get(event.impression_id)
        items = frozenset(event.item_ids)
        of_user = self._by_user.get(event.user_id, deque())
        for shown in islice(reversed(of_user), _LOOKED_THROUGH_MAX):
            if event.attribution_token in ("", shown.token) and not items.isdisjoint(shown.item_ids):
                return shown
        return None


def _cosine(event: Event) -> float | None:
    # Whoever writes events has computed it: one number out of all bounds would be all that a line is laid through.
    cosine = None if event.placement is None else event.placement.user_context_similarity
    return cosine if cosine is not None and abs(cosine) <= _COSINE_MAX else None


def _answerer(event: Event) -> Answerer | None:
    """Return what made the answer that was shown; None where nothing was, or no placement answered."""
    use = event.placement
    if event.type is not EventType.IMPRESSION or use is None or use.mode is None:
        return None
    return Answerer(use.name, use.version, use.experiment, use.variant, use.mode)
