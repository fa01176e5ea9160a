"""Finding the cheapest graph that keeps the recall promise, and measuring what it can be trusted with."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from annserve.domain.arrays import Rows, Vectors, checked_queries
from annserve.domain.errors import InvalidArgumentError, RecallNotReachedError
from annserve.domain.progress import Progress, no_progress
from annserve.search.bands import TUNED_DEPTH, Bands, measure_bands
from annserve.search.exact import exact_top_k, exact_top_k_batch
from annserve.search.graph import Graph
from annserve.search.points import Points
from annserve.search.recall import recall_of, without_own
from annserve.search.recipe import Recipe, Reduction
from annserve.search.tried import Trial, TriedRecipes


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """What tuning tries, cheapest first."""

    reductions: tuple[Reduction, ...] = (Reduction.INNER_PRODUCT, Reduction.AUGMENTED_L2)
    ms: tuple[int, ...] = (16, 32, 48)
    ef_construction: int = 200
    ef_searches: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
    sample_size: int = 25_000
    """How many points, drawn at random, recipes are compared on."""
    scan_us_max: float = 2000.0
    """What an exact scan may cost when it has to serve because no graph keeps the promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What tuning chose. ``graph`` and ``bands`` are None where exact search serves."""

    graph: Graph | None
    bands: Bands | None
    recall: float
    """recall@10 of all points for queries that took no part in choosing; 1 where exact search serves."""
    target: float
    trials: tuple[Trial, ...]


_FINALISTS = 3
"""How many recipes are built in full before giving up."""
_SCANS = 16
_TIMED_AGAIN = 3
_TIMED_AGAIN_SECONDS = 0.05
"""Trials of all queries that are shorter than this are made so often more, and the fastest counts."""
_SLOW_US = 1_000.0
"""A graph that takes longer at full size gives way to one that is faster, if it meets the target as well."""
_SLOW_SHARE = 0.1
"""Of an exact scan, if that is more: what is ten times as fast is not worth building another for, which at 5 million
items takes 1,400 s of a processor."""
_SLOW_US_MAX = 5_000.0
"""Above this it is, whatever a scan costs."""
_QUICK_US = 100.0
"""Trials quicker than this are not worth giving up, nor worth a choice that hangs on a few microseconds of noise."""
_DEEP = 120
_DEEP_LIST = 1_024
_DEEP_QUERIES_MAX = 128
"""Filters and Related look deeper than ten: a graph that does not find the first 120 with a list of this length leaves
them to exact search, whatever list it is given."""


def tune(
    points: Points,
    queries: Vectors,
    *,
    own_rows: Rows | None = None,
    target: float = 0.98,
    accept_recall: float | None = None,
    settings: TuneSettings | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Tuned:
    """Build the cheapest graph of ``points`` whose recall@10 reaches ``target``.

    Recipes are compared on a sample of the points with one half of the queries; the winner is built in full and
    confirmed with the other half, its search list growing until the target is met.

    Args:
        points: At least one.
        queries: ``(q, dimension)``, at least 2, like those to be served; several hundred are wanted for a recall
            that means something.
        own_rows: ``(q,)``: the row each query was made of, which does not count as found; -1 for none.
        target: The recall to reach, above 0, at most 1.
        accept_recall: A lower recall to put up with when the target cannot be met.
        settings: What to try.
        threads: How many build and search. More than 1 makes the graph differ from run to run.
        seed: Of the sample and the graphs.
        progress: Told of every trial, and of the building of every graph.

    Raises:
        InvalidArgumentError: an argument is outside what is stated above.
        RecallNotReachedError: no recipe met the target, and an exact scan costs more than `scan_us_max`.
    """
    queries = checked_queries(queries, points.dimension, field="queries")
    if queries.ndim != 2 or len(queries) < 2:
        raise InvalidArgumentError.of("queries", f"must have shape (2 or more, {points.dimension})")
    if not 0 < target <= 1:
        raise InvalidArgumentError.of("target", f"must be above 0 and at most 1, got {target}")
    tuning = _Tuning(
        points=points,
        target=target,
        scan_us=_scan_us(points, queries),
        settings=settings or TuneSettings(),
        threads=threads,
        seed=seed,
        progress=progress,
    )
    return tuning.run(_Seeds(queries=queries, own_rows=own_rows), target if accept_recall is None else accept_recall)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seeds:
    """Queries, and the row that does not count for each."""

    queries: Vectors
    own_rows: Rows | None

    def part(self, part: slice) -> _Seeds:
        return _Seeds(queries=self.queries[part], own_rows=None if self.own_rows is None else self.own_rows[part])

    def among(self, rows: Rows, count: int) -> _Seeds:
        """Return the same queries for points of which only ``rows`` are left."""
        if self.own_rows is None:
            return self
        place = np.full(count, -1)
        place[rows] = np.arange(len(rows))
        return _Seeds(queries=self.queries, own_rows=np.where(self.own_rows >= 0, place[self.own_rows], -1))


class _Exam:
    """Queries and their exact answers over some points, to try graphs on."""

    def __init__(self, points: Points, seeds: _Seeds) -> None:
        self._points, self._seeds = points, seeds
        self._asked = min(TUNED_DEPTH + (seeds.own_rows is not None), len(points))
        ranked, _ = exact_top_k_batch(points, seeds.queries, self._asked)
        self._exact = without_own(ranked, seeds.own_rows, TUNED_DEPTH)

    def trial(self, graph: Graph) -> Trial:
        """Return how well and how fast ``graph`` answers."""
        queries = self._seeds.queries
        graph.search(queries[:8], self._asked)
        found, seconds = self._timed(graph)
        recall = 0.0
        if found is not None:
            if seconds < _TIMED_AGAIN_SECONDS:
                # So short a time is easily doubled by a neighbour that takes the caches, and would choose the recipe.
                seconds = min(seconds, *(self._timed(graph)[1] for _ in range(_TIMED_AGAIN)))
            found = without_own(found, self._seeds.own_rows, TUNED_DEPTH)
            recall = recall_of(self._points, queries, self._exact, found)
        return Trial(
            reduction=graph.recipe.reduction,
            m=graph.recipe.m,
            ef_construction=graph.recipe.ef_construction,
            ef_search=graph.recipe.ef_search,
            point_count=len(self._points),
            recall=round(recall, 4),
            query_us=round(seconds / len(queries) * 1e6, 1),
        )

    def _timed(self, graph: Graph) -> tuple[Rows | None, float]:
        """Return the answers of ``graph``, and the processor time that they took."""
        start = time.thread_time()
        found = graph.search(self._seeds.queries, self._asked)
        return found, time.thread_time() - start

    def deep_recall(self, graph: Graph) -> float:
        """Return the recall@120 of ``graph``, given a long list."""
        queries, depth = self._seeds.queries[:_DEEP_QUERIES_MAX], min(_DEEP, len(self._points))
        exact, _ = exact_top_k_batch(self._points, queries, depth)
        found = graph.search(queries, depth, max(min(_DEEP_LIST, len(self._points)), graph.recipe.ef_search))
        return 0.0 if found is None else recall_of(self._points, queries, exact, found)


@dataclass(slots=True, kw_only=True, eq=False)
class _Tuning:
    """One run of `tune`: what it works with, and what it has tried so far."""

    points: Points
    target: float
    settings: TuneSettings
    threads: int
    seed: int
    progress: Progress
    trials: list[Trial] = field(default_factory=list)
    scan_us: float
    """What an exact scan of all the points costs, in microseconds."""
    graphs: dict[tuple[Reduction, int], Graph] = field(default_factory=dict)
    """Graphs of all the points, kept where the sample is all of them."""

    def run(self, seeds: _Seeds, least: float) -> Tuned:
        promising, other = self._compared(seeds.part(slice(0, None, 2)))
        exam = _Exam(self.points, seeds.part(slice(1, None, 2)))
        sound: list[tuple[float, float, Graph]] = []
        for recipe in promising[:_FINALISTS]:
            graph, trial = self._grown(recipe, exam)
            if trial.recall >= self.target:
                sound.append((trial.query_us, trial.recall, graph))
                if trial.query_us <= max(_SLOW_US, min(_SLOW_SHARE * self.scan_us, _SLOW_US_MAX)):
                    break
        if sound:
            _, recall, graph = min(sound, key=itemgetter(0))
            return self._tuned(graph, recall, seeds)
        scan_us = self.scan_us
        if scan_us <= self.settings.scan_us_max:
            return Tuned(graph=None, bands=None, recall=1.0, target=self.target, trials=tuple(self.trials))
        if least < self.target:
            graph, trial = self._grown((promising + other)[0], exam)
            if trial.recall >= least:
                return self._tuned(graph, trial.recall, seeds)
        best = max(trial.recall for trial in self.trials)
        raise RecallNotReachedError(
            f"recall@10 of {self.target} not reached: the best of {len(self.trials)} trials had {best}, and an exact "
            f"scan takes {scan_us:.0f} us, more than {self.settings.scan_us_max:.0f}",
            target=self.target,
            best=best,
            trials=len(self.trials),
            scan_us=round(scan_us),
            scan_us_max=self.settings.scan_us_max,
        )

    def _compared(self, seeds: _Seeds) -> tuple[list[Recipe], list[Recipe]]:
        """Return the recipes that meet the target on a sample, the best ones first, and the others by recall."""
        points, seeds = self._sample(seeds)
        exam = _Exam(points, seeds)
        # Where a scan may serve, a graph slower than it never will; a sample is searched faster than all the points.
        scan_us = max(self.scan_us, _QUICK_US) if self.scan_us <= self.settings.scan_us_max else math.inf
        tried = TriedRecipes(target=self.target, scan_us=scan_us)
        for m in self.settings.ms:
            sparser_us = tried.fastest_us
            for reduction in self.settings.reductions:
                if reduction not in tried.hopeless:
                    graph, trial = self._climbed(self._built(points, reduction, m), exam, slowest_us=tried.slowest_us)
                    # Where a scan is cheap it takes over from a shallow graph at little cost.
                    is_shallow = (
                        trial.recall >= self.target
                        and self.scan_us > self.settings.scan_us_max
                        and exam.deep_recall(graph) < self.target
                    )
                    tried.add(graph.recipe, trial, is_shallow=is_shallow)
            if tried.is_settled(sparser_us):
                break
        return tried.ranked()

    def _sample(self, seeds: _Seeds) -> tuple[Points, _Seeds]:
        count = len(self.points)
        if count <= self.settings.sample_size:
            return self.points, seeds
        rows = np.sort(np.random.default_rng(self.seed).choice(count, self.settings.sample_size, replace=False))
        return self.points.gather(rows), seeds.among(rows, count)

    def _built(self, points: Points, reduction: Reduction, m: int) -> Graph:
        recipe = Recipe(
            reduction=reduction,
            m=m,
            ef_construction=self.settings.ef_construction,
            ef_search=self.settings.ef_searches[0],
        )
        known = self.graphs.get((reduction, m)) if points is self.points else None
        graph = known or Graph.build(points, recipe, threads=self.threads, seed=self.seed, progress=self.progress)
        if points is self.points:
            self.graphs[reduction, m] = graph
        return graph

    def _climbed(
        self, graph: Graph, exam: _Exam, *, start: int = 0, slowest_us: float = math.inf
    ) -> tuple[Graph, Trial]:
        """Return ``graph`` with the shortest list, from ``start``, that meets the target, or with the last tried.

        Lists that make it slower than ``slowest_us`` are not tried.
        """
        for ef_search in self.settings.ef_searches:
            if ef_search >= start:
                graph = graph.with_ef_search(ef_search)
                trial = exam.trial(graph)
                self.trials.append(trial)
                self.progress("try recipes", len(self.trials), None)
                if trial.recall >= self.target or trial.query_us > slowest_us:
                    break
        return graph, trial

    def _grown(self, recipe: Recipe, exam: _Exam) -> tuple[Graph, Trial]:
        """Return the graph of all points by ``recipe``, its list as long as the target needs, and how it did."""
        return self._climbed(
            self._built(self.points, recipe.reduction, recipe.m), exam, start=recipe.ef_search, slowest_us=self.scan_us
        )

    def _tuned(self, graph: Graph, recall: float, seeds: _Seeds) -> Tuned:
        bands = measure_bands(self.points, graph, seeds.queries, own_rows=seeds.own_rows, threads=self.threads)
        return Tuned(graph=graph, bands=bands, recall=recall, target=self.target, trials=tuple(self.trials))


def _scan_us(points: Points, queries: Vectors) -> float:
    """Return the CPU time of the fastest of several scans: a neighbour that takes the caches only ever adds to it."""
    times = []
    for query in queries[:_SCANS]:
        start = time.thread_time()
        exact_top_k(points, query, TUNED_DEPTH)
        times.append(time.thread_time() - start)
    return min(times) * 1e6
