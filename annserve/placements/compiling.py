"""A placement file, made into a placement; or all that is wrong with it, and where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from annserve.domain.catalog import Schema
from annserve.domain.placements import PlacementText
from annserve.placements.assignment import Assignment
from annserve.placements.file import ExperimentEntry, PlacementFile, Rules, VariantEntry
from annserve.placements.findings import Findings
from annserve.placements.placement import CompiledPlacement, version_of
from annserve.placements.problems import Problem
from annserve.placements.reading import Reading
from annserve.placements.recipe import ContextField, ExpressionValue, Recipe
from annserve.placements.recipe_compiling import RecipeCompiler
from annserve.placements.yaml_text import YamlError, read_yaml

_CEL_TYPES: Final = {"string": "string", "number": "double", "boolean": "bool", "time": "timestamp"}
_DEFAULTS: Final[Mapping[str, type[ExpressionValue]]] = {"string": str, "number": float, "boolean": bool}
_SHARES_OFF_MAX: Final = 1e-6


def compile_placement(source: PlacementText, schema: Schema) -> tuple[CompiledPlacement | None, Sequence[Problem]]:
    """Return the placement that ``source`` describes, or None and what is wrong with it.

    Args:
        source: Any text whatever.
        schema: The fields that it may name.
    """
    findings = Findings(source.origin, source.text)
    file = _read(source, findings)
    if file is None:
        return None, findings.problems
    placement = _compiled(source, file, schema, findings)
    return (None if findings.problems else placement), findings.problems


def read_placement(source: PlacementText) -> tuple[PlacementFile | None, Sequence[Problem]]:
    """Return what ``source`` says, its expressions unread, or None and what is wrong with it."""
    findings = Findings(source.origin, source.text)
    return _read(source, findings), findings.problems


def _read(source: PlacementText, findings: Findings) -> PlacementFile | None:
    try:
        located = read_yaml(source.text)
    except YamlError as error:
        findings.add_yaml(error)
        return None
    findings.locate(located)
    if not isinstance(located.value, dict):
        findings.add((), "must be a mapping of keys, such as `mode: personalize`")
        return None
    try:
        return PlacementFile.model_validate(located.value)
    except ValidationError as error:
        findings.add_validation(error)
        return None


def _compiled(source: PlacementText, file: PlacementFile, schema: Schema, findings: Findings) -> CompiledPlacement:
    context = dict(_context_of(file, findings))
    _check_time_zone(file, findings)
    reading = Reading(schema, context, findings)
    version = version_of(source.text)
    experiment = file.experiment
    recipes: dict[str, Recipe] = {}
    if experiment is None:
        recipes[""] = RecipeCompiler(reading, file, (), ()).recipe(source.name, version, "", "")
    else:
        for name, variant in experiment.variants.items():
            compiler = RecipeCompiler(
                reading, _merged(file, variant), variant.model_fields_set, ("experiment", "variants", name)
            )
            recipes[name] = compiler.recipe(source.name, version, experiment.name, name)
    return CompiledPlacement(
        name=source.name,
        version=version,
        time_zone=file.time_zone,
        context=context,
        experiment="" if experiment is None else experiment.name,
        recipes=recipes,
        file=file,
        assignment=None if experiment is None else _assignment(experiment, findings),
        calls=reading.calls,
    )


def _context_of(file: PlacementFile, findings: Findings) -> Iterator[tuple[str, ContextField]]:
    for name, entry in file.context.items():
        default = entry.default
        if isinstance(default, int) and not isinstance(default, bool):
            default = float(default)
        expected = _DEFAULTS.get(entry.type)
        if default is not None and type(default) is not expected:
            what = "is not for times" if expected is None else f"must be a {entry.type}"
            findings.add(("context", name, "default"), what, at_value=True)
        yield name, ContextField(type=_CEL_TYPES[entry.type], default=default)


def _check_time_zone(file: PlacementFile, findings: Findings) -> None:
    try:
        ZoneInfo(file.time_zone)
    except (KeyError, ValueError, OSError):
        problem = f"{file.time_zone!r} is no time zone such as Asia/Seoul or UTC"
        findings.add(("time_zone",), problem, at_value=True)


def _assignment(experiment: ExperimentEntry, findings: Findings) -> Assignment | None:
    shares = {name: variant.share for name, variant in experiment.variants.items()}
    total = math.fsum(shares.values())
    if abs(total - 1) > _SHARES_OFF_MAX:
        findings.add(("experiment", "variants"), f"the shares must add up to 1, and they are {total:g}")
        return None
    return Assignment(experiment.name, shares)


def _merged(file: PlacementFile, variant: VariantEntry) -> Rules:
    """Return what ``variant`` does: its own keys in the place of the file's."""
    own = {name: getattr(variant, name) for name in variant.model_fields_set if name != "share"}
    kept = {name: getattr(file, name) for name in file.model_fields_set if name in Rules.model_fields}
    if own.keys() & {"mode", "policy"}:  # Another question, whichever way it is put.
        for name in ("mode", "policy", "user_impact"):
            kept.pop(name, None)
    return Rules.model_construct(_fields_set={*kept, *own}, **{**kept, **own})
