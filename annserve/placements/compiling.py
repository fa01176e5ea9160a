"""A placement file, made into the recipes of its variants; or all that is wrong with it, and where."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from annserve.domain.catalog import Schema
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.filter import And, Filter, canonical
from annserve.domain.ids import id_problem
from annserve.domain.placements import PlacementText
from annserve.domain.query import Mode
from annserve.placements.assignment import Assignment
from annserve.placements.expression import CompiledExpression, Returns, compile_expression
from annserve.placements.expression_filter import filter_of
from annserve.placements.expression_tree import ExpressionError
from annserve.placements.file import FallbackEntry, PlacementFile, PolicyEntry, Rules, VariantEntry, WeightEntry
from annserve.placements.filters import filters_of
from annserve.placements.findings import Findings
from annserve.placements.problems import Place, Problem
from annserve.placements.recipe import (
    Cap,
    ContextField,
    ExpressionValue,
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
from annserve.placements.variables import CLOCK, CONTEXT_PREFIX, USER_CONTEXT, Variables
from annserve.placements.yaml_text import Located, Path, YamlError, read_yaml

_CEL_TYPES: Final = {"string": "string", "number": "double", "boolean": "bool", "time": "timestamp"}
_SHARES_OFF_MAX: Final = 1e-6
_FOR_REQUEST: Final = "is decided once a request, so it cannot read the candidate's {names}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledPlacement:
    """Implements `recipe.Placement`."""

    name: str
    version: str
    time_zone: str
    context: Mapping[str, ContextField]
    experiment: str
    recipes: Mapping[str, Recipe]
    """By variant; of one without a name where there is no experiment."""
    file: PlacementFile
    assignment: Assignment | None
    calls: Mapping[str, Place]
    """The placements that it falls back to, and where it says so."""

    def recipe(self, unit: str | None, forced_variant: str | None = None) -> Recipe:
        """Return the recipe of the variant that ``unit`` is assigned to; the first one's for None."""
        if forced_variant is not None:
            if forced_variant not in self.recipes or self.assignment is None:
                known = ", ".join(self.recipes) if self.assignment is not None else "none"
                raise InvalidArgumentError.of(
                    "forced_variants", f"there is no variant {forced_variant[:64]!r}; there are {known}"
                )
            return self.recipes[forced_variant]
        if unit is None or self.assignment is None:
            return next(iter(self.recipes.values()))
        return self.recipes[self.assignment.variant_of(unit)]


def version_of(text: str) -> str:
    """Return what names this content: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def compile_placement(source: PlacementText, schema: Schema) -> tuple[CompiledPlacement | None, Sequence[Problem]]:
    """Return the placement that ``source`` describes, or None and what is wrong with it.

    Args:
        source: Any text whatever.
        schema: The fields that it may name.
    """
    findings = Findings(source.origin, source.text)
    located, file = _read(source, findings)
    if located is None or file is None:
        return None, findings.problems
    placement = _Compiler(source, located, file, schema, findings).placement()
    return (None if findings.problems else placement), findings.problems


def _read(source: PlacementText, findings: Findings) -> tuple[Located | None, PlacementFile | None]:
    try:
        located = read_yaml(source.text)
    except YamlError as error:
        findings.add_yaml(error)
        return None, None
    findings.locate(located)
    if not isinstance(located.value, dict):
        findings.add((), "must be a mapping of keys, such as `mode: personalize`")
        return located, None
    try:
        return located, PlacementFile.model_validate(located.value)
    except ValidationError as error:
        findings.add_validation(error)
        return located, None


class _Compiler:
    """Compiles one file."""

    def __init__(
        self, source: PlacementText, located: Located, file: PlacementFile, schema: Schema, findings: Findings
    ) -> None:
        self._name = source.name
        self._version = version_of(source.text)
        self._located = located
        self._file = file
        self._schema = schema
        self._findings = findings
        self._context = dict(self._context_fields())
        self._variables = Variables(schema, self._context)
        self._calls: dict[str, Place] = {}
        self._compiled: dict[tuple[str, Returns], CompiledExpression] = {}

    def placement(self) -> CompiledPlacement:
        file, experiment = self._file, self._file.experiment
        self._check_time_zone()
        if experiment is None:
            recipes = {"": self._recipe(file, "", None)}
            assignment = None
        else:
            recipes = {
                name: self._recipe(_merged(file, variant), name, variant)
                for name, variant in experiment.variants.items()
            }
            assignment = self._assignment(experiment.name, experiment.variants)
        return CompiledPlacement(
            name=self._name,
            version=self._version,
            time_zone=file.time_zone,
            context=self._context,
            experiment="" if experiment is None else experiment.name,
            recipes=recipes,
            file=file,
            assignment=assignment,
            calls=self._calls,
        )

    def _context_fields(self) -> Iterator[tuple[str, ContextField]]:
        for name, entry in self._file.context.items():
            default = entry.default
            if isinstance(default, int) and not isinstance(default, bool):
                default = float(default)
            expected: Mapping[str, type[ExpressionValue]] = {"string": str, "number": float, "boolean": bool}
            if default is not None and (entry.type not in expected or type(default) is not expected[entry.type]):
                what = f"must be a {entry.type}" if entry.type in expected else "is not for times"
                self._findings.add(("context", name, "default"), what, at_value=True)
                default = None
            yield name, ContextField(type=_CEL_TYPES[entry.type], default=default)

    def _check_time_zone(self) -> None:
        try:
            ZoneInfo(self._file.time_zone)
        except (KeyError, ValueError, OSError):
            self._findings.add(
                ("time_zone",), f"{self._file.time_zone!r} is no time zone such as Asia/Seoul or UTC", at_value=True
            )

    def _assignment(self, name: str, variants: Mapping[str, VariantEntry]) -> Assignment | None:
        total = math.fsum(variant.share for variant in variants.values())
        if abs(total - 1) > _SHARES_OFF_MAX:
            self._findings.add(("experiment", "variants"), f"the shares must add up to 1, and they are {total:g}")
            return None
        return Assignment(name, {variant: entry.share for variant, entry in variants.items()})

    def _recipe(self, rules: Rules, variant: str, overrides: VariantEntry | None) -> Recipe:
        return _RecipeCompiler(self, rules, variant, overrides).recipe()

    # What follows is what the recipe of each variant needs.

    def expression(self, path: Path, text: str, returns: Returns = Returns.BOOLEAN) -> CompiledExpression | None:
        """Return the expression at ``path``; None when something is wrong with it, which is noted."""
        known = self._compiled.get((text, returns))
        if known is None:
            try:
                known = self._compiled[text, returns] = compile_expression(text, self._variables, returns)
            except ExpressionError as error:
                self._findings.add_expression(path, text, error)
                return None
        return known

    def request_expression(
        self, path: Path, text: str, returns: Returns = Returns.BOOLEAN
    ) -> CompiledExpression | None:
        """Return the expression at ``path``, which must read nothing of candidates."""
        expression = self.expression(path, text, returns)
        if expression is not None and not expression.is_for_request:
            names = sorted(name for name in expression.names if not self._is_for_request(name))
            self._findings.add(path, _FOR_REQUEST.format(names=", ".join(names)), at_value=True)
            return None
        return expression

    def as_filter(self, expression: CompiledExpression) -> Filter | None:
        """Return ``expression`` as a filter, None if it is none."""
        return filter_of(expression.node, self._variables)

    def add(self, path: Path, text: str, *, at_value: bool = False) -> None:
        """Note what is wrong."""
        self._findings.add(path, text, at_value=at_value)

    def add_call(self, path: Path, placement: str) -> None:
        """Note that ``placement`` is called at ``path``."""
        self._calls.setdefault(placement, self._findings.place(path))

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def experiment(self) -> str:
        return "" if self._file.experiment is None else self._file.experiment.name

    @property
    def schema(self) -> Schema:
        return self._schema

    def where(self, path: Path, where: Mapping[str, Any]) -> list[Filter]:
        """Return the filters of ``where``."""
        return list(filters_of(where, self._schema, path, self._findings))

    def fields_of(self, expression: CompiledExpression) -> Iterator[Any]:
        """Return the item fields that ``expression`` reads, by name."""
        for name in sorted(expression.names):
            variable = self._variables.get(name)
            if variable is not None and variable.field is not None:
                yield variable.field

    def _is_for_request(self, name: str) -> bool:
        variable = self._variables.get(name)
        return variable is not None and variable.scope.value == "request"


class _RecipeCompiler:
    """Compiles what one variant does."""

    def __init__(self, owner: _Compiler, rules: Rules, variant: str, overrides: VariantEntry | None) -> None:
        self._owner = owner
        self._rules = rules
        self._variant = variant
        self._own = frozenset() if overrides is None else frozenset(overrides.model_fields_set)
        self._expressions: list[CompiledExpression] = []

    def recipe(self) -> Recipe:
        rules = self._rules
        self._check()
        policy = tuple(self._policy())
        weights = (*self._weights("boosts", rules.boosts), *self._weights("demotions", rules.demotions))
        pins = tuple(self._pins())
        filter_ = self._filter()
        names = frozenset().union(*(expression.names for expression in self._expressions))
        return Recipe(
            name=self._owner.name,
            version=self._owner.version,
            experiment=self._owner.experiment,
            variant=self._variant,
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
        prefix: Path = ("experiment", "variants", self._variant) if key in self._own else ()
        return (*prefix, key, *rest)

    def _check(self) -> None:
        rules, add = self._rules, self._owner.add
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
        rules, add = self._rules, self._owner.add
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
        expression = self._owner.request_expression(path, impact, Returns.NUMBER)
        return 0.5 if expression is None else self._kept(expression)

    def _filter(self) -> Filter | None:
        rules = self._rules
        filters = self._owner.where(self._path("where"), rules.where)
        if rules.filter is not None:
            path = self._path("filter")
            expression = self._owner.expression(path, rules.filter)
            filter_ = None if expression is None else self._owner.as_filter(expression)
            if filter_ is not None:
                filters.append(filter_)
            elif expression is not None:
                self._owner.add(
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
                self._owner.add((*path, "weight"), "a boost is at least 1: write it under `demotions`", at_value=True)
            if key == "demotions" and entry.weight > 1:
                self._owner.add((*path, "weight"), "a demotion is at most 1: write it under `boosts`", at_value=True)
            expression = self._owner.expression((*path, "when"), entry.when)
            if expression is not None:
                yield self._weight(f"{key}[{place}]", float(entry.weight), self._kept(expression))

    def _weight(self, name: str, weight: float, expression: CompiledExpression) -> WeightRule:
        if expression.is_for_request:
            return WeightRule(name=name, weight=weight, request=expression)
        filter_ = self._owner.as_filter(expression)
        if filter_ is not None:
            return WeightRule(name=name, weight=weight, items=filter_)
        return WeightRule(
            name=name, weight=weight, mixed=expression, mixed_fields=tuple(self._owner.fields_of(expression))
        )

    def _caps(self) -> Iterator[Cap]:
        for place, entry in enumerate(self._rules.caps):
            field = self._owner.schema.field(entry.field)
            if field is None:
                self._owner.add(
                    self._path("caps", place, "field"), self._owner.schema.unknown(entry.field), at_value=True
                )
                continue
            yield Cap(name=f"caps[{place}]", field=field, at_most=entry.at_most, window=entry.window or 0)

    def _pins(self) -> Iterator[Pin]:
        always: dict[int, int] = {}
        for place, entry in enumerate(self._rules.pins):
            path = self._path("pins", place)
            self._check_id((*path, "item"), entry.item)
            if entry.when is None and always.setdefault(entry.rank, place) != place:
                self._owner.add((*path, "rank"), f"pins[{always[entry.rank]}] has this rank already", at_value=True)
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
                self._owner.add(path, "a step has exactly one of recent_items, popular, placement, items")
                continue
            for item_place, item_id in enumerate(entry.items or ()):
                self._check_id((*path, "items", item_place), item_id)
            if entry.placement is not None:
                self._owner.add_call((*path, "placement"), entry.placement)
            yield _fallback(entry)

    def _check_id(self, path: Path, item_id: str) -> None:
        if problem := id_problem(item_id):
            self._owner.add(path, problem, at_value=True)

    def _request(self, path: Path, text: str | None) -> CompiledExpression | None:
        expression = None if text is None else self._owner.request_expression(path, text)
        return None if expression is None else self._kept(expression)

    def _kept(self, expression: CompiledExpression) -> CompiledExpression:
        self._expressions.append(expression)
        return expression


def _merged(file: PlacementFile, variant: VariantEntry) -> Rules:
    """Return what ``variant`` does: its own keys in the place of the file's."""
    own = {name: getattr(variant, name) for name in variant.model_fields_set if name != "share"}
    kept = {name: getattr(file, name) for name in file.model_fields_set if name in Rules.model_fields}
    if own.keys() & {"mode", "policy"}:  # Another question, whichever way it is put.
        for name in ("mode", "policy", "user_impact"):
            kept.pop(name, None)
    return Rules.model_construct(_fields_set={*kept, *own}, **{**kept, **own})


def _fallback(entry: FallbackEntry) -> Fallback:
    if entry.placement is not None:
        return Fallback(kind=FallbackKind.PLACEMENT, placement=entry.placement)
    if entry.items is not None:
        return Fallback(kind=FallbackKind.ITEMS, item_ids=tuple(dict.fromkeys(entry.items)))
    return Fallback(kind=FallbackKind.POPULAR if entry.popular else FallbackKind.RECENT_ITEMS)
