"""Following a recipe: what it asks, the order its rules make, and the chain that fills what is short."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from annserve.domain.arrays import Rows, Scores
from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError, FoldInUnavailableError
from annserve.domain.events import ShownReader
from annserve.domain.query import Degradation, Mode, Query, Source
from annserve.engine.fresh_state import FreshState
from annserve.engine.knowledge import NO_ROWS
from annserve.engine.placing.candidates import Ordered, join_below, ordered
from annserve.engine.placing.circumstances import Circumstances, request_values, vector_values
from annserve.engine.placing.fallbacks import Chain
from annserve.engine.placing.kept_pages import KeptPages
from annserve.engine.placing.kept_rankings import KeptRankings
from annserve.engine.placing.occasion import Occasion, Occasions
from annserve.engine.placing.page import Page
from annserve.engine.placing.question import question_of
from annserve.engine.placing.rotation import RULE, SHOWN_MAX, rotated
from annserve.engine.placing.rules import Ruled, ruled
from annserve.engine.placing.shown import Shown
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.ranking import NO_EXCLUSIONS, Exclusions, Ranker, Ranking
from annserve.engine.stopwatch import Stopwatch
from annserve.placements.recipe import FallbackKind, OnUnavailable, Pin

_FRESH_MAX = 1_000
"""How many of the items that came last exploration chooses from."""

NOTHING_HOLDS = "no row of the policy holds"


def now_utc() -> datetime:
    """Return what time it is."""
    return datetime.now(UTC)


class Placer:
    """Shows what recipes say, by the questions that ``ranker`` answers. One event loop uses it."""

    def __init__(
        self,
        ranker: Ranker,
        rankings: KeptRankings,
        fresh: FreshState,
        occasions: Occasions,
        shown_reader: ShownReader | None,
        wait_seconds: float,
        now: Callable[[], datetime] = now_utc,
    ) -> None:
        """Ask ``ranker``, first by way of ``rankings``, and ``shown_reader`` for at most ``wait_seconds``."""
        self._ranker = ranker
        self._rankings = rankings
        self._pages = KeptPages()
        self._fresh = fresh
        self._occasions = occasions
        self._shown_reader = shown_reader
        self._wait_seconds = wait_seconds
        self._now = now
        self._random = random.Random()  # noqa: S311 - which places are explored is no secret

    async def show(
        self, occasion: Occasion, deadline: Deadline, taken_rows: Rows = NO_ROWS, *, follows_chain: bool = True
    ) -> Shown:
        """Return what is shown, none of ``taken_rows``; with less than is asked for the chain goes on, if told to.

        Raises:
            Exception: as `domain.ports.Recommender.recommend`.
        """
        stopwatch, recipe, explain = Stopwatch(), occasion.recipe, occasion.options.explain
        vectors = await self._vectors(occasion, deadline) if occasion.method.reads_vectors or explain else None
        circumstances = self._circumstances(occasion, vectors)
        row = circumstances.policy_row(recipe)
        stopwatch.lap("policy")
        shown = Shown(
            occasion=occasion,
            mode=None if row is None else row.mode,
            suppressed_reason=NOTHING_HOLDS if row is None else row.suppressed,
            similarity=circumstances.similarity,
            vectors=vectors,
            page=Page(occasion.size, taken_rows),
            stages=list(stopwatch.laps),
        )
        if row is None or row.mode is None:
            return shown
        user_impact = circumstances.share(row.user_impact) if row.mode is Mode.RELATED else 0.5
        question = question_of(occasion.query, row.mode, user_impact, occasion.options)
        await self._fill(shown, question, circumstances, taken_rows, deadline, follows_chain=follows_chain)
        if follows_chain and recipe.fallbacks and shown.page.missing_count:
            await self._follow_chain(shown, circumstances, deadline)
        return shown

    async def _fill(
        self,
        shown: Shown,
        question: Query,
        circumstances: Circumstances,
        taken_rows: Rows,
        deadline: Deadline,
        *,
        follows_chain: bool,
    ) -> None:
        """Fill the page by what ``question`` finds, under the recipe's rules."""
        occasion, recipe, k = shown.occasion, shown.occasion.recipe, shown.occasion.size
        items = self._fresh.items
        pins = [
            (pin, row)
            for pin in recipe.pins
            if (row := items.row(pin.item_id)) is not None and circumstances.hold(pin.when)
        ]
        exclusions = NO_EXCLUSIONS
        if recipe.history_exclusions or taken_rows.size:
            exclusions = Exclusions(of_history=recipe.history_exclusions, rows=taken_rows)
        ranking = await self._ranked(shown, question, exclusions, deadline, has_chain=follows_chain)
        if ranking is None:
            known = items.rows((*question.item_ids, *question.options.exclude_item_ids))
            shown.page = Page(k, np.concatenate([known, taken_rows]))
            return
        shown.ranking = ranking
        shown.degradations += ranking.degradations
        shown.stages += ranking.stage_us
        shown.counts["search"] = len(ranking.rows)
        shown.page = page = Page(k, ranking.eligibility.excluded)
        if ranking.source is Source.POPULAR and recipe.fallbacks and follows_chain:
            return  # Nothing asked has a vector: the chain says who answers then.
        if not occasion.method.orders_anew:
            page.add(ranking.rows.tolist(), ranking.scores.tolist(), ranking.source)
            return
        await self._add_sought(ranking, question, pins, exclusions, deadline, recipe.exploration_share)
        key = self._pages.key_of(ranking, occasion, circumstances, self._ranker.candidates)
        found = None if key is None else self._pages.get(key)
        if found is None:
            found = await self._ordered(shown, ranking, circumstances, pins, deadline, key)
        page.add(found.rows, found.scores, found.sources, effects=found.effects)
        shown.taken_by_rules = found.taken_by_rules
        shown.counts |= {"rules": len(ranking.rows), "arrange": len(found.rows)}

    async def _ordered(
        self,
        shown: Shown,
        ranking: Ranking,
        circumstances: Circumstances,
        pins: Sequence[tuple[Pin, int]],
        deadline: Deadline,
        key: Hashable | None,
    ) -> Ordered:
        """Return ``ranking`` as the rules order it, to be kept under ``key``, if any."""
        occasion, recipe, stopwatch = shown.occasion, shown.occasion.recipe, Stopwatch()
        rules = await self._ruled(shown, ranking, circumstances, deadline)
        stopwatch.lap("rules")
        seed = self._random.getrandbits(32) if recipe.exploration_share else 0
        found = ordered(ranking, recipe, rules, occasion.size, pins, seed, explain=occasion.options.explain)
        stopwatch.lap("arrange")
        shown.stages += stopwatch.laps
        if key is None or rules.is_skipped:
            return found
        # What changed meanwhile may have been counted, or not.
        if key == self._pages.key_of(ranking, occasion, circumstances, self._ranker.candidates):
            self._pages.keep(key, ranking, occasion.method, found)
        return found

    async def _ranked(
        self, shown: Shown, question: Query, exclusions: Exclusions, deadline: Deadline, *, has_chain: bool
    ) -> Ranking | None:
        """Return what ``question`` finds; None where the recipe goes to its chain because the catalogue is down."""
        reaction = shown.occasion.recipe.on_unavailable
        # Who has something else to do than to fail needs the time to do it, and so does whoever's chain this is.
        is_all = reaction is OnUnavailable.FAIL and has_chain
        try:
            return await self._rankings.rank(question, deadline if is_all else deadline.leaving_half(), exclusions)
        except CatalogUnavailableError:
            if reaction is OnUnavailable.FAIL or (reaction is OnUnavailable.FALLBACK and not has_chain):
                raise
        shown.degradations.append(Degradation.FILTER_SKIPPED)
        if reaction is OnUnavailable.FALLBACK:
            return None
        # What the caller asks for is not ours to skip.
        options = replace(question.options, filter=shown.occasion.query.options.filter)
        return await self._ranker.rank(replace(question, options=options), deadline, exclusions)

    async def _add_sought(
        self,
        ranking: Ranking,
        question: Query,
        pins: Sequence[tuple[Pin, int]],
        exclusions: Exclusions,
        deadline: Deadline,
        exploration_share: float,
    ) -> None:
        """Add what pins and exploration may show, where no search has found it."""
        sought = [row for _, row in pins]
        if exploration_share:
            sought += self._fresh.items.fresh_rows[-_FRESH_MAX:].tolist()
        if not sought:
            return
        rows = np.setdiff1d(np.array(sought, np.int64), ranking.rows)
        if not rows.size:
            return
        item_ids, wanted = self._fresh.items.ids(rows), question.options.candidate_item_ids
        if wanted is not None:
            item_ids = [item_id for item_id in item_ids if item_id in set(wanted)]
        options = replace(question.options, k=len(rows), candidate_item_ids=tuple(item_ids))
        try:
            further = await self._ranker.rank(replace(question, options=options), deadline.leaving_half(), exclusions)
        except CatalogUnavailableError:
            return  # Whether they pass the filter cannot be told.
        join_below(ranking, further)

    async def _ruled(self, shown: Shown, ranking: Ranking, circumstances: Circumstances, deadline: Deadline) -> Ruled:
        occasion, recipe = shown.occasion, shown.occasion.recipe
        # First, so that nothing is waited for between reading fields and looking at them.
        rotation = await self._rotation(shown, ranking, deadline) if recipe.rotation is not None else None
        staleness, reader = occasion.options.max_staleness_seconds, self._ranker.candidates
        rules = await ruled(occasion.method, ranking, circumstances, reader, staleness, deadline, shown.use)
        if rules.is_skipped:
            shown.degradations.append(Degradation.RULES_SKIPPED)
        if rotation is not None:
            rules.weights[RULE] = rotation
        return rules

    async def _rotation(self, shown: Shown, ranking: Ranking, deadline: Deadline) -> Scores | None:
        user_id, rotation = shown.occasion.query.user_id, shown.occasion.recipe.rotation
        if rotation is None or user_id is None or self._shown_reader is None:
            return None
        soon = Deadline(min(deadline.at, time.monotonic() + self._wait_seconds))
        try:
            items = await self._shown_reader.shown(user_id, SHOWN_MAX, soon)
        except (CatalogUnavailableError, DeadlineExceededError):
            shown.degradations.append(Degradation.HISTORY_UNAVAILABLE)
            return None
        return rotated(ranking.rows, ranking.items, items, rotation)

    async def _follow_chain(self, shown: Shown, circumstances: Circumstances, deadline: Deadline) -> None:
        stopwatch, occasion, page = Stopwatch(), shown.occasion, shown.page
        chain = Chain(
            method=occasion.method,
            query=occasion.query,
            options=occasion.options,
            circumstances=circumstances,
            ranker=self._ranker,
            fresh=self._fresh,
            needs_no_filter=shown.ranking is None,
        )
        if occasion.options.exclude_seen:
            page.exclude(await self._seen_rows(occasion.query, deadline))
        before = len(page.rows)
        for number, step in enumerate(occasion.recipe.fallbacks, 1):
            if not page.missing_count:
                break
            if step.kind is FallbackKind.PLACEMENT:
                await self._add_other(shown, step.placement, number, deadline)
            else:
                await chain.fill(page, step, number, deadline)
        stopwatch.lap("fallback")
        shown.stages += stopwatch.laps
        shown.counts["fallback"] = len(page.rows) - before

    async def _seen_rows(self, query: Query, deadline: Deadline) -> Rows:
        """Return what the user has seen: a question that knows no user has not left it out."""
        recent_rows = self._fresh.items.rows(recent.item_id for recent in query.recent_items)
        if query.user_id is None:
            return recent_rows
        return np.concatenate([recent_rows, await self._ranker.seen_rows(query.user_id, deadline)])

    async def _add_other(self, shown: Shown, name: str, number: int, deadline: Deadline) -> None:
        """Have another placement add what it shows, its own fallbacks aside."""
        page = shown.page
        other = self._occasions.of_other(shown.occasion, name, page.missing_count)
        try:
            found = await self.show(other, deadline, page.taken_rows, follows_chain=False)
        except CatalogUnavailableError:
            return
        page.add(found.page.rows, found.page.scores, found.page.sources, number, found.page.effects)

    def _circumstances(self, occasion: Occasion, vectors: QueryVectors | None) -> Circumstances:
        values = request_values(occasion.placement, occasion.recipe, occasion.placed.context, self._now())
        if vectors is not None:
            values |= vector_values(vectors)
        return Circumstances(values=values)

    async def _vectors(self, occasion: Occasion, deadline: Deadline) -> QueryVectors | None:
        query = occasion.query
        options = replace(occasion.options, strict=False)
        try:
            return await self._ranker.vectors(replace(query, mode=Mode.RELATED, options=options), deadline)
        except FoldInUnavailableError:
            if occasion.method.reads_vectors:
                raise
            return None
