"""What a process counts, in the names of Prometheus and OpenTelemetry.

The processes of an instance write into files of its folder, which the supervisor adds up when it is asked. A file
belongs to a name, such as a worker's slot, not to a process id: a worker that takes the place of a dead one goes on
counting where that one was killed, so that no counter ever falls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.ports import Basis, Recommender
from annserve.domain.query import Answer, Query, SearchPath, Source

if TYPE_CHECKING:
    from annserve.domain.model import Space

PUBLISH_SECONDS: Final = 0.5

# Few bounds: a series each, for every method and status that occurs.
_CALL_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3)
_WAIT_SECONDS: Final = (0.001, 0.005, 0.02, 0.05, 0.2)

Count: TypeAlias = Callable[[], float]


def share_metrics(folder: Path, name: str) -> None:
    """Keep the metrics that this process makes from now on in ``folder``, under a ``name`` no other process has."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]


class _Histogram(Histogram):
    """Counts several that took as long as each other for what one of them costs."""

    def observe_each(self, amount: float, count: int) -> None:
        """Observe ``amount`` so many times."""
        self._sum.inc(amount * count)
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if amount <= bound:
                bucket.inc(count)
                break


class Metrics:
    """The metrics of one process. Calls that take long and refusals count at once, the rest when it is published."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = self._histogram(
            "rpc_server_call_duration_seconds",
            "Calls, from the moment their handler begins.",
            ("rpc_method", "rpc_response_status_code"),
            _CALL_SECONDS,
        )
        waits = self._histogram(
            "annserve_queue_seconds",
            "Waiting for the event loop, sampled, or a thread.",
            ("queue",),
            _WAIT_SECONDS,
        )
        self.loop_wait = waits.labels("loop").observe
        self.thread_wait = waits.labels("thread").observe
        self._rejected = self._counter("annserve_rejected", "Calls turned away before any work, by reason.", "reason")
        self._degraded = self._counter("annserve_degraded", "Answers that had to do without something.", "reason")
        searches = self._histogram(
            "annserve_search_seconds",
            "Answers made, not kept ones, by search path.",
            ("path",),
            _CALL_SECONDS,
        )
        self._recall = self._counter(
            "annserve_recall_results",
            "Of a sample of searches by graph, what the exact answer has.",
            "space",
            "filtered",
            "outcome",
        )
        self._published: list[Callable[[], None]] = []
        self._graph, self._scan = (
            searches.labels(path.value).observe_each for path in (SearchPath.HNSW, SearchPath.EXACT)
        )
        self.answered_together = self._quick(self._graph)
        """Counts answers by the graph, which were made at once: the seconds that took, and how many."""
        self._fallbacks = self._counter("annserve_fallbacks", "Answers from another source than asked.", "source")
        self._placements = self._counter(
            "annserve_placement_answers", "Answers of placements, kept ones aside.", "placement", "variant", "result"
        )

    def meter(self, method: str) -> Callable[..., None]:
        """Return what takes the status, such as ``OK``, and the seconds of a call of ``method`` that has ended.

        It may be told besides how many they are, which ended together.
        """
        observers: dict[str, Callable[[float, int], None]] = {}

        def observe(code: str, seconds: float, count: int = 1) -> None:
            observer = observers.get(code)
            if observer is None:
                observer = observers[code] = self._calls.labels(method, code).observe_each
            observer(seconds, count)

        return observe

    def quick_meter(self, method: str) -> Callable[..., None]:
        """Return what takes the seconds of a call of ``method`` that was answered in next to no time, and how many.

        They count when it is published: counting them at once takes longer than finding a kept answer.
        """
        return self._quick(self._calls.labels(method, "OK").observe_each)

    def _quick(self, observer: Callable[[float, int], None]) -> Callable[..., None]:
        count, total = 0, 0.0

        def observe(seconds: float, more: int = 1) -> None:
            nonlocal count, total
            if seconds > _CALL_SECONDS[0]:
                observer(seconds, more)
            else:
                count, total = count + more, total + more * seconds

        def publish() -> None:
            nonlocal count, total
            if count:
                observer(total / count, count)
                count, total = 0, 0.0

        self.follow(publish)
        return observe

    def rejected(self, reason: str) -> None:
        """Count a call that was turned away."""
        self._rejected.labels(reason).inc()

    def recalled(self, space: Space, is_filtered: bool, found_count: int, missed_count: int) -> None:
        """Count the rows of an exact answer, by whether the graph had found them."""
        filtered = "yes" if is_filtered else "no"
        for outcome, count in (("found", found_count), ("missed", missed_count)):
            self._recall.labels(space.value, filtered, outcome).inc(count)

    def answered(self, answer: Answer, seconds: float) -> None:
        """Count an answer that the engine made."""
        use = answer.placement
        if use is not None:
            # Both are names that files declare, so there are few.
            self._placements.labels(use.name, use.variant, _result_of(answer)).inc()
        if use is None or use.mode is not None:
            (self._graph if answer.search_path is SearchPath.HNSW else self._scan)(seconds, 1)
            if answer.source is Source.POPULAR:
                self._fallbacks.labels(answer.source.value).inc()
        for degradation in answer.degradations:
            self._degraded.labels(degradation.value).inc()

    def follow_counts(self, name: str, documentation: str, label: str, counts: Mapping[str, Count]) -> None:
        """Publish counts that others keep, each a value of ``label``; they begin at 0 and never fall."""
        counter = self._counter(name, documentation, label)
        for value, count in counts.items():
            self.follow(_increases(counter.labels(value), count))

    def follow_fields(self, name: str, documentation: str, label: str, counted: Any) -> None:
        """Publish the fields of a dataclass of counts; see `follow_counts`."""
        names = [field.name for field in dataclasses.fields(counted)]
        self.follow_counts(name, documentation, label, {name: _reader(counted, name) for name in names})

    def follow_value(self, name: str, documentation: str, value: Count) -> None:
        """Publish a value of now; those of all processes are added up."""
        gauge = Gauge(name, documentation, multiprocess_mode="livesum", registry=self.registry)
        self.follow(lambda: gauge.set(value()))

    def follow(self, publish: Callable[[], None]) -> None:
        """Have ``publish`` called whenever values of now are to be shown."""
        self._published.append(publish)

    def publish(self) -> None:
        """Show what is followed as it is now."""
        for publish in self._published:
            publish()

    async def keep_published(self) -> None:
        """Publish again and again until cancelled, and once more then."""
        try:
            while True:
                self.publish()
                due_at = time.monotonic() + PUBLISH_SECONDS
                await asyncio.sleep(PUBLISH_SECONDS)
                self.loop_wait(max(time.monotonic() - due_at, 0.0))
        finally:
            self.publish()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> _Histogram:
        return _Histogram(name, documentation, labels, buckets=bounds, registry=self.registry)


class MeteredRecommender:
    """Implements `domain.ports.Recommender`: counts what another answers."""

    def __init__(self, recommender: Recommender, metrics: Metrics) -> None:
        self._recommender = recommender
        self._metrics = metrics
        self.basis: Callable[[Query], Basis | None] = recommender.basis
        self.unchanged: Callable[[Sequence[str], float], bool] = recommender.unchanged

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._recommender.snapshot_id

    @property
    def schema(self) -> Schema | None:
        """The declared fields that filters may test."""
        return self._recommender.schema

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises."""
        began = time.perf_counter()
        answer = await self._recommender.recommend(query, deadline)
        self._metrics.answered(answer, time.perf_counter() - began)
        return answer


def _result_of(answer: Answer) -> str:
    """Return how a placement fared."""
    if answer.placement is not None and answer.placement.mode is None:
        return "suppressed"
    if any(answer.fallback_steps):
        return "fallback"
    return "full" if answer.shortfall is None else "short"


def _increases(counter: Counter, count: Count) -> Callable[[], None]:
    published = 0.0

    def publish() -> None:
        nonlocal published
        now = count()
        if now > published:
            counter.inc(now - published)
            published = now

    return publish


def _reader(counted: Any, name: str) -> Count:
    return lambda: float(getattr(counted, name))
