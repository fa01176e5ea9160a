"""The rules of one variant, made into its recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from annserve.domain.filter import And, Filter, canonical
from annserve.domain.ids import id_problem
from annserve.domain.query import Mode
from annserve.placements.expression import CompiledExpression, Returns
from annserve.placements.file import FallbackEntry, PolicyEntry, Rules, WeightEntry
from annserve.placements.reading import Reading
from annserve.placements.recipe import (
    Cap,
    Fallback,
    FallbackKind,
    HistoryExclusion,
    Number,
    OnUnavailable,
    Pin,
    PolicyRow,
    Recipe,
    Rotation,
    WeightRule,
)
from annserve.placements.variables import CLOCK, CONTEXT_PREFIX, USER_CONTEXT
from annserve.placements.yaml_text import Path


class RecipeCompiler:
    """Compiles what one variant does."""

    def __init__(self, reading: Reading, rules: Rules, own_keys: Collection[str], prefix: Path) -> None:
        """Compile ``rules``.

        Args:
            reading: The file.
            rules: What the variant does, the keys that it shares with the file included.
            own_keys: Those that it has for itself.
            prefix: Where these are.
        """
        self._reading = reading
        self._rules = rules
        self._own_keys = own_keys
        self._prefix = prefix
        self._expressions: list[CompiledExpression] = []

    def recipe(self, name: str, version: str, experiment: str, variant: str) -> Recipe:
        """Return what these rules are; whether anything is wrong with them, the file's reading knows."""
        rules = self._rules
        self._check()
        policy = tuple(self._policy())
        weights = (*self._weights("boosts", rules.boosts), *self._weights("demotions", rules.demotions))
        pins = tuple(self._pins())
        filter_ = self._filter()
        names = frozenset().union(*(expression.names for expression in self._expressions))
        return Recipe(
            name=name,
            version=version,
            experiment=experiment,
            variant=variant,
            limit=rules.limit,
            candidates=rules.candidates,
            policy=policy,
            filter=filter_,
            exclude_seen=rules.exclude.seen,
            history_exclusions=tuple(
                HistoryExclusion(event=entry.event, last=entry.last) for entry in rules.exclude.history
            ),
            weights=weights,
            diversity=float(rules.diversity),
            caps=tuple(self._caps()),
            pins=pins,
            rotation=None
            if rules.rotation is None
            else Rotation(penalty=float(rules.rotation.penalty), half_life_seconds=rules.rotation.half_life),
            exploration_share=float(rules.exploration),
            popularity_weight=rules.popularity_weight,
            max_staleness_seconds=rules.max_staleness,
            on_unavailable=OnUnavailable(rules.on_unavailable),
            fallbacks=tuple(self._fallbacks()),
            strict=rules.strict,
            context_names=frozenset(
                name.removeprefix(CONTEXT_PREFIX) for name in names if name.startswith(CONTEXT_PREFIX)
            ),
            reads_clock=bool(names & CLOCK),
            reads_similarity=USER_CONTEXT in names,
        )

    def _path(self, key: str, *rest: str | int) -> Path:
        """Return where ``key`` is: in the variant if it has its own."""
        return (*(self._prefix if key in self._own_keys else ()), key, *rest)

    def _check(self) -> None:
        rules, add = self._rules, self._reading.add
        if rules.candidates < rules.limit:
            add(
                self._path("limit"),
                f"must be at most `candidates`, {rules.candidates}, got {rules.limit}",
                at_value=True,
            )
        if rules.rotation is not None and rules.rotation.half_life <= 0:
            add(self._path("rotation", "half_life"), "must be above 0", at_value=True)
        steps = {kind for entry in rules.fallback for kind in entry.model_fields_set}
        if rules.on_unavailable == "fallback" and not steps & {"placement", "items"}:
            add(
                self._path("on_unavailable"),
                "needs a step in `fallback` that does without the catalogue: a placement, or items",
                at_value=True,
            )

    def _policy(self) -> Iterator[PolicyRow]:
        rules, add = self._rules, self._reading.add
        if rules.policy is None:
            if rules.mode is None:
                add((), "say which question to ask: `mode: similar`, `personalize` or `related`, or a `policy`")
                return
            yield self._row(PolicyEntry(mode=rules.mode, user_impact=rules.user_impact), self._path("user_impact"))
            if rules.mode != "related" and "user_impact" in rules.model_fields_set:
                add(self._path("user_impact"), f"is for `mode: related`, and the mode is {rules.mode}")
            return
        if rules.mode is not None:
            add(self._path("mode"), "take either `mode` or `policy`")
        if "user_impact" in rules.model_fields_set:
            add(self._path("user_impact"), "with a `policy`, write it into the rows whose mode is related")
        for place, entry in enumerate(rules.policy):
            path = self._path("policy", place)
            if (entry.mode is None) == (entry.suppress is None):
                add(path, "a row says either `mode` or `suppress`")
                continue
            if entry.when is None and place < len(rules.policy) - 1:
                add(path, "only the last row may be without `when`: the rows after this one are never reached")
            if entry.mode != "related" and "user_impact" in entry.model_fields_set:
                add((*path, "user_impact"), "is for `mode: related`")
            yield self._row(entry, (*path, "user_impact"), (*path, "when"))

    def _row(self, entry: PolicyEntry, impact_path: Path, when_path: Path = ()) -> PolicyRow:
        return PolicyRow(
            when=self._request(when_path, entry.when),
            mode=None if entry.mode is None else Mode(entry.mode),
            user_impact=self._impact(impact_path, entry.user_impact),
            suppressed=entry.suppress or "",
        )

    def _impact(self, path: Path, impact: Any) -> Number:
        if not isinstance(impact, str):
            return float(impact)
        expression = self._reading.request_expression(path, impact, Returns.NUMBER)
        return 0.5 if expression is None else self._kept(expression)

    def _filter(self) -> Filter | None:
        rules = self._rules
        filters = self._reading.where(self._path("where"), rules.where)
        if rules.filter is not None:
            path = self._path("filter")
            expression = self._reading.expression(path, rules.filter)
            filter_ = None if expression is None else self._reading.as_filter(expression)
            if filter_ is not None:
                filters.append(filter_)
            elif expression is not None:
                self._reading.add(
                    path,
                    "must compare item fields with constants only (==, !=, <, <=, >, >=, in, has) and join that by "
                    "&&, ||, !; whatever else it may be is for `demotions`, with weight 0",
                    at_value=True,
                )
        return canonical(And(tuple(filters))) if filters else None

    def _weights(self, key: str, entries: Iterable[WeightEntry]) -> Iterator[WeightRule]:
        for place, entry in enumerate(entries):
            path = self._path(key, place)
            if key == "boosts" and entry.weight < 1:
                self._reading.add((*path, "weight"), "a boost is at least 1: write it under `demotions`", at_value=True)
            if key == "demotions" and entry.weight > 1:
                self._reading.add((*path, "weight"), "a demotion is at most 1: write it under `boosts`", at_value=True)
            expression = self._reading.expression((*path, "when"), entry.when)
            if expression is not None:
                yield self._weight(f"{key}[{place}]", float(entry.weight), self._kept(expression))

    def _weight(self, name: str, weight: float, expression: CompiledExpression) -> WeightRule:
        if expression.is_for_request:
            return WeightRule(name=name, weight=weight, request=expression)
        filter_ = self._reading.as_filter(expression)
        if filter_ is not None:
            return WeightRule(name=name, weight=weight, items=filter_)
        return WeightRule(name=name, weight=weight, mixed=expression, parts=self._reading.parts_of(expression))

    def _caps(self) -> Iterator[Cap]:
        for place, entry in enumerate(self._rules.caps):
            field = self._reading.schema.field(entry.field)
            if field is None:
                self._reading.add(
                    self._path("caps", place, "field"), self._reading.schema.unknown(entry.field), at_value=True
                )
                continue
            yield Cap(name=f"caps[{place}]", field=field, at_most=entry.at_most, window=entry.window or 0)

    def _pins(self) -> Iterator[Pin]:
        always: dict[int, int] = {}
        for place, entry in enumerate(self._rules.pins):
            path = self._path("pins", place)
            self._check_id((*path, "item"), entry.item)
            if entry.when is None and always.setdefault(entry.rank, place) != place:
                self._reading.add((*path, "rank"), f"pins[{always[entry.rank]}] has this rank already", at_value=True)
            yield Pin(
                name=f"pins[{place}]",
                rank=entry.rank,
                item_id=entry.item,
                when=self._request((*path, "when"), entry.when),
            )

    def _fallbacks(self) -> Iterator[Fallback]:
        for place, entry in enumerate(self._rules.fallback):
            path = self._path("fallback", place)
            if len(entry.model_fields_set) != 1 or any(getattr(entry, name) is None for name in entry.model_fields_set):
                self._reading.add(path, "a step has exactly one of recent_items, popular, placement, items")
                continue
            for item_place, item_id in enumerate(entry.items or ()):
                self._check_id((*path, "items", item_place), item_id)
            if entry.placement is not None:
                self._reading.add_call((*path, "placement"), entry.placement)
            yield _fallback(entry)

    def _check_id(self, path: Path, item_id: str) -> None:
        if problem := id_problem(item_id):
            self._reading.add(path, problem, at_value=True)

    def _request(self, path: Path, text: str | None) -> CompiledExpression | None:
        expression = None if text is None else self._reading.request_expression(path, text)
        return None if expression is None else self._kept(expression)

    def _kept(self, expression: CompiledExpression) -> CompiledExpression:
        self._expressions.append(expression)
        return expression


def _fallback(entry: FallbackEntry) -> Fallback:
    if entry.placement is not None:
        return Fallback(kind=FallbackKind.PLACEMENT, placement=entry.placement)
    if entry.items is not None:
        return Fallback(kind=FallbackKind.ITEMS, item_ids=tuple(dict.fromkeys(entry.items)))
    return Fallback(kind=FallbackKind.POPULAR if entry.popular else FallbackKind.RECENT_ITEMS)
