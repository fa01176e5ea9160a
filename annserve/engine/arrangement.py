"""The order in which a placement shows its candidates: weights, diversity, caps, pins, exploration.

Places are filled from the first on, and what is placed stays. A pinned place goes to its item; one of exploration to
the best fresh candidate; any other to the best of all. Best is by maximal marginal relevance, and only among those whom
the caps allow at that place, so diversity looks at what is shown and at nothing that a cap took out.

- A pin is exact, and stronger than caps: they count it, also from above, and hold for all the others. Only pins by
  themselves can exceed one. Where the places above a pin cannot all be filled, the lowest pins let go of theirs until
  they can, and are candidates like any other. A weight of 0 takes out a pinned item too.
- Caps choose greedily: an answer may be shorter than another choice of its upper rows would have made it.
- A rule that is off costs nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.filter import Scalar
from annserve.domain.query import RuleEffect
from annserve.engine.order.account import Account
from annserve.engine.order.crowding import Crowding
from annserve.engine.order.page import Page
from annserve.engine.order.reserved import exploration_places, pinned_places
from annserve.engine.order.variety import Variety
from annserve.engine.order.weights import Flags, weighted_scores
from annserve.placements.recipe import Pin, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Whom to order: parallel arrays, none of which is modified."""

    rows: Rows
    """Shape ``(n,)``, without repeats."""
    scores: Scores
    """Shape ``(n,)``, exact and finite. Equal ones stay in the order given."""
    vectors: Callable[[Rows], Vectors]
    """Returns the bare item vectors, each of length 1, of candidates at given positions, in a new array; only asked for
    diversity."""
    weights: Mapping[str, Scores]
    """By rule, in order of application: a factor of at least 0 each, 1 where the rule does not hold."""
    values: Mapping[str, Sequence[tuple[Scalar, ...]]]
    """By name of a cap: the values of its field, empty where it is missing."""
    is_fresh: Flags
    """Who came since the snapshot; only read with exploration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """Who is shown, in order. Shown rows count from 0."""

    positions: Rows
    """Shape ``(m,)``: where the candidates have them, without repeats."""
    scores: Scores
    """Shape ``(m,)``, after weights. They need not descend: later rules move rows, not scores."""
    effects: Sequence[Sequence[RuleEffect]]
    """What each shown row owes to rules, in order of application; empty unless asked for."""
    taken_by_rules: int
    """How many candidates weights of 0 took out, and caps where they made the answer short."""
    explored: frozenset[int]
    """The shown rows that exploration placed."""
    pinned: frozenset[int]
    """The shown rows that a pin placed."""


def arrange(
    candidates: Candidates, recipe: Recipe, k: int, pins: Sequence[tuple[Pin, int]], seed: int, *, explain: bool = False
) -> Arranged:
    """Return the ``k`` candidates to show, fewer where rules leave fewer.

    Args:
        candidates: Any number, 0 too.
        recipe: Its diversity, caps and exploration share are followed; weights and pins are those given.
        k: At least 0.
        pins: Those that apply, with the position of each one's candidate.
        seed: Decides which places exploration takes, and nothing else.
        explain: Whether to account for effects, which costs about as much again.
    """
    scores, is_kept = weighted_scores(candidates.scores, candidates.weights)
    order: Rows
    if is_kept.all():
        order = (-scores).argsort(kind="stable")
    else:
        kept = is_kept.nonzero()[0]
        order = kept[(-scores[kept]).argsort(kind="stable")]
    place_count = min(k, len(order))
    account = Account([cap.name for cap in recipe.caps]) if explain else None
    page = _empty_page(candidates, recipe, order, scores, account)
    pinned = pinned_places(pins, order, place_count)
    free = [place for place in range(place_count) if place not in pinned]
    page.fill(place_count, pinned, exploration_places(free, place_count, recipe.exploration_share, seed))
    positions: Rows = order[page.placed]
    return Arranged(
        positions=positions,
        scores=scores[positions],
        effects=_effects(account, page.placed, positions, candidates.weights),
        taken_by_rules=len(scores) - (len(positions) if len(positions) < k else len(order)),
        explored=frozenset(page.explored),
        pinned=frozenset(page.pinned),
    )


def _empty_page(candidates: Candidates, recipe: Recipe, order: Rows, scores: Scores, account: Account | None) -> Page:
    numbered = order.tolist() if recipe.caps else []
    caps = [Crowding(cap, candidates.values[cap.name], numbered) for cap in recipe.caps]
    variety = None
    if recipe.diversity:
        variety = Variety(scores[order], candidates.vectors(order), recipe.diversity)
    return Page(candidates.is_fresh[order], variety, caps, account)


def _effects(
    account: Account | None, placed: Sequence[int], positions: Rows, weights: Mapping[str, Scores]
) -> Sequence[Sequence[RuleEffect]]:
    if account is None:
        return ()
    return [account.effects(*row, weights) for row in zip(placed, positions.tolist(), strict=True)]
