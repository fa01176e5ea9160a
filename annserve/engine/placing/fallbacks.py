"""Who fills a page that is short: the steps of a recipe's fallback chain, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, FoldInUnavailableError
from annserve.domain.query import CatalogUse, Mode, Options, Query, Source, WeightedItem
from annserve.engine.fresh_state import FreshState
from annserve.engine.placing.candidates import join_above, ordered_below
from annserve.engine.placing.circumstances import Circumstances
from annserve.engine.placing.method import Method
from annserve.engine.placing.page import Page
from annserve.engine.placing.rules import ruled
from annserve.engine.ranking import Exclusions, Ranker, Ranking
from annserve.placements.recipe import Fallback, FallbackKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Fills pages by the steps of one recipe for one request, other placements aside."""

    method: Method
    query: Query
    """The request."""
    options: Options
    """Those of the request and the recipe, joined."""
    circumstances: Circumstances
    ranker: Ranker
    fresh: FreshState
    needs_no_filter: bool
    """Whether only what needs no filter of the recipe may be asked: the catalogue does not answer."""

    async def fill(self, page: Page, step: Fallback, number: int, deadline: Deadline) -> None:
        """Have ``step``, which is the chain's ``number``, add what it can; what it cannot know it leaves out."""
        try:
            if step.kind is FallbackKind.ITEMS:
                await self._listed(page, step.item_ids, number, deadline)
            elif not self.needs_no_filter:
                await self._ranked(page, step, number, deadline)
        except (CatalogUnavailableError, FoldInUnavailableError):
            return

    async def _ranked(self, page: Page, step: Fallback, number: int, deadline: Deadline) -> None:
        recipe, explain = self.method.recipe, self.options.explain
        recent_items: Sequence[WeightedItem] = ()
        if step.kind is FallbackKind.RECENT_ITEMS:
            recent_items = await self._recent_items(deadline)
            if not recent_items:
                return
        options = self.options if self.method.orders_anew else replace(self.options, k=page.missing_count)
        ranking = await self._rank(options, recent_items, page, deadline)
        if step.kind is FallbackKind.RECENT_ITEMS and ranking.source is not Source.FOLD_IN:
            return
        if not self.method.orders_anew:
            page.add(ranking.rows.tolist(), ranking.scores.tolist(), ranking.source, number)
            return
        join_above(ranking, page)
        staleness = self.options.max_staleness_seconds
        reader, use = self.ranker.candidates, CatalogUse()
        rules = await ruled(self.method, ranking, self.circumstances, reader, staleness, deadline, use)
        found = ordered_below(page, ranking, recipe, rules, explain=explain)
        page.add(found.rows, found.scores, found.sources, number, found.effects)

    async def _listed(self, page: Page, item_ids: Sequence[str], number: int, deadline: Deadline) -> None:
        """Add listed items in their order, as far as the filter passes them."""
        wanted = self.options.candidate_item_ids
        listed = item_ids if wanted is None else [item_id for item_id in item_ids if item_id in set(wanted)]
        options = replace(self.options, k=max(len(listed), 1), candidate_item_ids=tuple(listed))
        if self.needs_no_filter:
            options = replace(options, filter=self.query.options.filter)
        ranking = await self._rank(options, (), page, deadline)
        score_of = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
        rows = [row for row in dict.fromkeys(ranking.items.rows(listed).tolist()) if row in score_of]
        page.add(rows, [score_of[row] for row in rows], Source.EDITORIAL, number)

    async def _rank(
        self, options: Options, recent_items: Sequence[WeightedItem], page: Page, deadline: Deadline
    ) -> Ranking:
        question = Query(
            mode=Mode.PERSONALIZE,
            recent_items=tuple(recent_items),
            options=replace(options, exclude_seen=False, strict=False),
        )
        return await self.ranker.rank(question, deadline.leaving_half(), Exclusions(rows=page.taken_rows))

    async def _recent_items(self, deadline: Deadline) -> Sequence[WeightedItem]:
        if self.query.recent_items or self.query.user_id is None:
            return self.query.recent_items
        rows = await self.ranker.recent_rows(self.query.user_id, deadline)
        return [WeightedItem(item_id=item_id) for item_id in self.fresh.items.ids(self.fresh.items.present(rows))]
