"""Recall as callers get it: one in so many of the graph's searches is made again, exactly, out of their way.

What the build measured is recall for the queries it knew, without filters. What is asked of a server differs: other
users, seeds that are asked about more, filters that leave a corner of the space. Only the exact answer tells.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.model import Space
from annserve.search.exact import exact_scores, top_k
from annserve.search.index import SpaceIndex
from annserve.search.recall import recall_of
from annserve.search.restriction import Restriction

BUSY_SHARE: Final = 0.01
"""Of one processor, at most, that exact searches take: at 5 million items of 64 dimensions one takes 56 ms."""

FILTERED_SHARE: Final = 0.01
"""Of the rows, that must be left out for a search to count as filtered: items that are gone are no filter."""

_log = logging.getLogger(__name__)

_JOIN_SECONDS: Final = 1.0


class _Search(NamedTuple):
    space: Space
    query: Vectors
    restriction: Restriction | None
    excluded: Rows | None
    found: Rows


Report = Callable[[Space, bool, int, int], None]
"""Is told the space, whether the search was filtered, and how many of the exact answer were found and missed."""


class RecallSampler:
    """Observes the searches of an instance's spaces by graph, and makes some of them again in a thread of its own."""

    def __init__(
        self,
        spaces: Mapping[Space, SpaceIndex],
        share: float,
        report: Report,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Observe ``spaces`` from now on.

        Args:
            spaces: Their searches are told of here until `close`.
            share: Of searches that are made again, 0 to 1; fewer where that would take more than `BUSY_SHARE`.
            report: Called in the thread.
            begin: Called first in the thread.
        """
        self._spaces = spaces
        self._share = share
        self._report = report
        self._begin = begin
        # One at a time: those that come while another is looked at are as good a sample, later.
        self._waiting: queue.Queue[_Search | None] = queue.Queue(maxsize=1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="annserve-recall", daemon=True)
        self._thread.start()
        for space, index in spaces.items():
            index.observer = _Observer(self, space)

    def close(self) -> None:
        """Observe no more; a search that is being made is not waited for longer than a second."""
        for index in self._spaces.values():
            index.observer = None
        self._ended.set()
        with suppress(queue.Full):  # Whoever takes what is there sees that it has ended.
            self._waiting.put_nowait(None)
        self._thread.join(_JOIN_SECONDS)

    def is_drawn(self) -> bool:
        """Return whether a search is to be made again, by chance."""
        return random.random() < self._share  # noqa: S311 - a sample, no secret

    def take(self, search: _Search) -> None:
        """Make ``search`` again, unless another waits."""
        with suppress(queue.Full):
            self._waiting.put_nowait(search)

    def _run(self) -> None:
        self._begin()
        while (search := self._waiting.get()) is not None and not self._ended.is_set():
            began = time.thread_time()
            try:
                self._judge(search)
            except Exception:  # noqa: BLE001 - the next may be judged, and nobody waits for this one
                _log.exception("a search was not made again")
            del search  # It may be all that keeps a filter's rows in memory.
            # By processor time: what it waited for a processor is no reason for a longer pause.
            self._ended.wait((time.thread_time() - began) * (1 / BUSY_SHARE - 1))

    def _judge(self, search: _Search) -> None:
        points, restriction = self._spaces[search.space].points, search.restriction
        # Not by the index: it would learn from this what its filters are searched for, and keep rows for it.
        scores = exact_scores(points, search.query)
        is_filtered = False
        if restriction is not None:
            refused = np.ones(len(points), np.bool_)
            refused[np.frombuffer(restriction.bitmap.to_array(), np.uint32)] = False
            scores[refused] = -np.inf
            is_filtered = bool(np.count_nonzero(refused) > FILTERED_SHARE * len(points))
        if search.excluded is not None:
            scores[search.excluded] = -np.inf
        rows, _ = top_k(scores, len(search.found))
        recall = recall_of(points, search.query[np.newaxis], rows[np.newaxis], search.found[np.newaxis])
        found_count = round(recall * len(rows))
        self._report(search.space, is_filtered, found_count, len(rows) - found_count)


class _Observer:
    """Implements `search.index.Observer` for one space."""

    def __init__(self, sampler: RecallSampler, space: Space) -> None:
        self._sampler = sampler
        self._space = space
        self.is_drawn = sampler.is_drawn

    def take(self, query: Vectors, restriction: Restriction | None, excluded: Rows | None, found: Rows) -> None:
        self._sampler.take(_Search(self._space, query, restriction, excluded, found))
