"""What a placement does, said in words: which question when, how each of its rules is decided, what that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from annserve.placements.parts import Compared, OfEach, Part, singles_of
from annserve.placements.placement import CompiledPlacement
from annserve.placements.recipe import Fallback, FallbackKind, OnUnavailable, Recipe, WeightRule

ALL_VARIANTS = ""

_FREE = "nothing"
_BITMAPS = "bitmaps: one look a candidate, nothing is evaluated"
_CALL_US = 4
"""What evaluating an expression takes, about."""
_REQUEST = f"about {_CALL_US} us a request"
_COMPARISON = "one comparison a candidate: up to 0.4 us each"
_FALLBACKS = {
    FallbackKind.RECENT_ITEMS: "what suits the user's latest items",
    FallbackKind.POPULAR: "the most popular items that pass the filter",
}
_UNAVAILABLE = {
    OnUnavailable.FAIL: "the call fails as UNAVAILABLE",
    OnUnavailable.SKIP_FILTER: "it answers without the filter, and says so",
    OnUnavailable.FALLBACK: "the fallback chain answers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One thing that a placement does."""

    variant: str = ALL_VARIANTS
    """Whose it is; empty where all variants share it."""
    key: str
    """As in the file."""
    does: str
    costs: str = _FREE


def clauses_of(placement: CompiledPlacement) -> list[Clause]:
    """Return what ``placement`` does, in the order in which it does it."""
    by_variant = {variant: list(_clauses(placement, recipe)) for variant, recipe in placement.recipes.items()}
    shared = set.intersection(*map(set, by_variant.values()))
    first = next(iter(by_variant.values()))
    said = [clause for clause in first if clause in shared]
    for variant, clauses in by_variant.items():
        said += [
            Clause(variant=variant, key=clause.key, does=clause.does, costs=clause.costs)
            for clause in clauses
            if clause not in shared
        ]
    return said


def _clauses(placement: CompiledPlacement, recipe: Recipe) -> Iterator[Clause]:
    yield from _questions(recipe)
    if recipe.filter is not None:
        where, text = (_written(placement, recipe, key) for key in ("where", "filter"))
        tests = [f"{field}: {json.dumps(value, ensure_ascii=False)}" for field, value in where.items()]
        does = f"only items with {', '.join([*tests, *filter(None, [text])])}"
        yield Clause(key="where, filter", does=does, costs=_BITMAPS)
    if recipe.exclude_seen:
        yield Clause(key="exclude.seen", does="leaves out what the user has seen")
    for exclusion in recipe.history_exclusions:
        yield Clause(
            key="exclude.history", does=f"leaves out the last {exclusion.last} items of event {exclusion.event!r}"
        )
    yield Clause(key="candidates", does=f"orders the best {recipe.candidates}, returns {recipe.limit} unless told")
    for rule in recipe.weights:
        yield _weight(rule, placement, recipe)
    if recipe.rotation is not None:
        hours = recipe.rotation.half_life_seconds / 3_600
        yield Clause(
            key="rotation",
            does=f"what was just shown loses {recipe.rotation.penalty:.0%} of its score, half that after {hours:g} h",
            costs="a look at what the user was shown; no answer is kept for equal requests",
        )
    if recipe.diversity:
        yield Clause(
            key="diversity",
            does=f"neighbours unlike each other, {recipe.diversity:g} of 1",
            costs="grows with limit x candidates",
        )
    for cap in recipe.caps:
        among = f"any {cap.window} neighbours" if cap.window else "the answer"
        yield Clause(
            key=cap.name, does=f"at most {cap.at_most} with one {cap.field.name} in {among}", costs="reads a field"
        )
    if recipe.exploration_share:
        yield Clause(
            key="exploration",
            does=f"{recipe.exploration_share:.0%} of the page is for items newer than the snapshot",
            costs="no answer is kept for equal requests",
        )
    for pin in recipe.pins:
        when = "always" if pin.when is None else f"when {pin.when.text}"
        yield Clause(
            key=pin.name,
            does=f"{pin.item_id} at rank {pin.rank}, {when}",
            costs=_FREE if pin.when is None else _REQUEST,
        )
    for place, step in enumerate(recipe.fallbacks):
        yield Clause(key=f"fallback[{place}]", does=f"if too few: {_fallback(step)}")
    yield Clause(key="on_unavailable", does=f"without a catalogue {_UNAVAILABLE[recipe.on_unavailable]}")


def _questions(recipe: Recipe) -> Iterator[Clause]:
    key = "mode" if len(recipe.policy) == 1 and recipe.policy[0].when is None else "policy"
    for place, row in enumerate(recipe.policy):
        when = "otherwise" if place else "always"
        if row.when is not None:
            when = f"when {row.when.text}"
        does = f"nothing, because: {row.suppressed}"
        if row.mode is not None:
            does = row.mode.value
            if does == "related":
                impact = row.user_impact
                does += f", taste {impact:g} of 1" if isinstance(impact, int | float) else f", taste {impact.text}"
        costs = _FREE if row.when is None and isinstance(row.user_impact, int | float) else _REQUEST
        yield Clause(key=key if key == "mode" else f"policy[{place}]", does=f"{when}: {does}", costs=costs)
    if key == "policy" and recipe.policy[-1].when is not None:
        yield Clause(key="policy", does="otherwise: nothing")


def _weight(rule: WeightRule, placement: CompiledPlacement, recipe: Recipe) -> Clause:
    does = f"x {rule.weight:g}" if rule.weight else "taken out"
    text = _condition(rule, placement, recipe)
    if rule.items is not None:
        costs = _BITMAPS
    elif rule.request is not None or rule.parts is None:
        costs = _REQUEST
    else:
        costs = _costs_of(rule.parts, recipe.candidates)
    return Clause(key=rule.name, does=f"{does} when {text}", costs=costs)


def _costs_of(parts: Part, candidates: int) -> str:
    """Return what the dearest kind of the ``parts`` of a mixed condition costs."""
    kinds = {type(single) for single in singles_of(parts)}
    if OfEach in kinds:
        most = f"up to {candidates * _CALL_US / 1_000:.1f} ms where all differ"
        return f"about {_CALL_US} us for candidates with equal values: {most}"
    return _COMPARISON if Compared in kinds else f"{_BITMAPS}; {_REQUEST}"


def _condition(rule: WeightRule, placement: CompiledPlacement, recipe: Recipe) -> str:
    compiled = rule.request or rule.mixed
    if compiled is not None:
        return compiled.text
    # A filter has no text of its own any more.
    key, _, place = rule.name.removesuffix("]").partition("[")
    text: str = _written(placement, recipe, key)[int(place)].when
    return text


def _written(placement: CompiledPlacement, recipe: Recipe, key: str) -> Any:
    """Return what the file says under ``key`` of the variant that ``recipe`` is."""
    experiment = placement.file.experiment
    variant = None if experiment is None else experiment.variants[recipe.variant]
    return getattr(variant if variant is not None and key in variant.model_fields_set else placement.file, key)


def _fallback(step: Fallback) -> str:
    match step.kind:
        case FallbackKind.PLACEMENT:
            return f"the placement {step.placement}"
        case FallbackKind.ITEMS:
            return f"{len(step.item_ids)} items of a list"
        case kind:
            return _FALLBACKS[kind]
