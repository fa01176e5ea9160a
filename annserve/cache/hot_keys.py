"""Which items are asked about most, and how often the cache knew: counted by workers, summed up by their instance."""

from __future__ import annotations

import asyncio
import base64
import heapq
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple, TypeAlias

from annserve.cache.shared import CacheCounts, SharedCache

REPORT_SECONDS: Final = 1.0

_REPORTED: Final = 500
_REQUESTS_REPORTED: Final = 100
"""How many items a worker names each time: the ones asked about most."""
_COUNTED_MAX: Final = 5_000
"""So many different items are counted between two reports; they are not many, and a report is due then."""
_KEPT: Final = 2_000
_HALF_LIFE_SECONDS: Final = 60.0
_REQUEST_BYTES_MAX: Final = 512

Request: TypeAlias = tuple[str, bytes]
"""A method and what it was called with."""


class Asked:
    """A worker's count of what it was asked since its last report. One event loop uses it."""

    def __init__(self, cache: SharedCache | None) -> None:
        """Report through ``cache``; without one there is nothing to report."""
        self._cache = cache
        self._reported = CacheCounts()
        self._dropped = self._questions = 0
        self._asked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._requests: dict[str, Request] = {}
        self._report_at: asyncio.TimerHandle | None = None

    def note(self, item_ids: Sequence[str], is_hit: bool, request: Request | None = None) -> None:
        """Count a question about different items, which the cache answered or not.

        It may be asked again as ``request`` for another snapshot; None for one that says anything of a user.
        """
        self._questions += 1
        if request is not None and item_ids and len(request[1]) <= _REQUEST_BYTES_MAX:
            self._requests[item_ids[0]] = request
        for item_id in item_ids:
            self._asked[item_id] += 1
            if is_hit:
                self._answered[item_id] += 1
        if self._report_at is None:
            self._report_at = asyncio.get_running_loop().call_later(REPORT_SECONDS, self.report)
        elif len(self._asked) >= _COUNTED_MAX:
            self.report()

    def report(self) -> None:
        """Tell the writer, now."""
        if self._report_at is not None:
            self._report_at.cancel()
            self._report_at = None
        if self._cache is None:
            return
        counts, before = asdict(self._cache.counts), asdict(self._reported)
        self._reported = CacheCounts(**counts)
        items = [(item_id, count, self._answered[item_id]) for item_id, count in self._asked.most_common(_REPORTED)]
        requests = [
            (item_id, request[0], base64.b64encode(request[1]).decode())
            for item_id, _, _ in items
            if (request := self._requests.get(item_id)) is not None
        ]
        self._cache.report(
            {
                "requests": requests[:_REQUESTS_REPORTED],
                "questions": self._questions,
                "items": items,
                "counts": {name: count - before[name] for name, count in counts.items()},
                "dropped": self._cache.dropped_count - self._dropped,
            }
        )
        self._dropped = self._cache.dropped_count
        self._questions = 0
        self._asked.clear()
        self._answered.clear()
        self._requests.clear()


class HotItem(NamedTuple):
    """An item, its share of all questions, and the share of those that the cache answered; both 0 to 1."""

    item_id: str
    share: float
    hit_ratio: float


class HotKeys:
    """The items asked about most of late: a Space-Saving summary (Metwally et al., 2005) of all workers' counts.

    Counts are added as such summaries are merged (Agarwal et al., "Mergeable Summaries", 2012): an item that is not
    among those kept may have been asked for as often as the least of them, and begins with that. What is long ago
    counts less: half after a minute. So the share of an item is at most what it says, and less by at most
    1 / `_KEPT`-th of all questions, and what a worker left out of its reports.
    """

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}
        """How often an item was asked about, and how often of those the cache knew."""
        self._requests: dict[str, Request] = {}
        """How it was asked last, of some of those."""
        self._questions = 0.0
        self._least = 0.0
        """How often an item may have been asked about that is not kept."""
        self._faded_at = time.monotonic()

    def add(self, report: dict[str, Any]) -> None:
        """Add what a worker reported."""
        self._fade()
        self._questions += report["questions"]
        for item_id, asked, answered in report["items"]:
            count = self._counts.get(item_id)
            if count is None:
                self._counts[item_id] = [self._least + asked, answered]
            else:
                count[0] += asked
                count[1] += answered
        for item_id, method, encoded in report["requests"]:
            self._requests[item_id] = (method, base64.b64decode(encoded))
        if len(self._counts) > _KEPT:
            kept = heapq.nlargest(_KEPT, self._counts.items(), key=lambda item: item[1][0])
            self._counts = dict(kept)
            self._least = kept[-1][1][0]
            self._requests = {item_id: self._requests[item_id] for item_id in self._counts if item_id in self._requests}

    def top(self, count: int) -> list[HotItem]:
        """Return the hottest items, hottest first, at most ``count``."""
        hottest = heapq.nlargest(count, self._counts.items(), key=lambda item: item[1][0])
        # No question, no items: nothing is divided by 0.
        return [
            HotItem(item_id, min(asked / self._questions, 1.0), answered / asked)
            for item_id, (asked, answered) in hottest
        ]

    def top_requests(self, count: int) -> list[Request]:
        """Return requests about the hottest items, hottest first, at most ``count``."""
        hottest = heapq.nlargest(count, self._requests, key=lambda item_id: self._counts[item_id][0])
        return [self._requests[item_id] for item_id in hottest]

    def _fade(self) -> None:
        now = time.monotonic()
        part = 0.5 ** ((now - self._faded_at) / _HALF_LIFE_SECONDS)
        self._faded_at = now
        self._questions *= part
        self._least *= part
        for count in self._counts.values():
            count[0] *= part
            count[1] *= part
