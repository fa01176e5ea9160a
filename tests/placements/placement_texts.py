"""What tests of placements share: a schema with a field of each kind, and short ways to compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from annserve.domain.catalog import Schema
from annserve.domain.filter import Field, FieldType
from annserve.domain.placements import PlacementText
from annserve.placements.expression import CompiledExpression, Returns, compile_expression
from annserve.placements.loading import compiled
from annserve.placements.placement import CompiledPlacement
from annserve.placements.problems import Problem
from annserve.placements.recipe import ContextField
from annserve.placements.variables import Variables

FIELDS: Mapping[str, Field] = {
    name: Field(name=name, type=type_, many=many, path=name)
    for name, type_, many in (
        ("price", FieldType.NUMBER, False),
        ("stock", FieldType.NUMBER, False),
        ("status", FieldType.STRING, False),
        ("on_sale", FieldType.BOOLEAN, False),
        ("released", FieldType.TIME, False),
        ("tags", FieldType.STRING, True),
        ("sizes", FieldType.NUMBER, True),
        ("in", FieldType.NUMBER, False),
    )
}
SCHEMA = Schema(FIELDS.values())
VARIABLES = Variables(
    SCHEMA,
    {
        "device": ContextField(type="string"),
        "read_ratio": ContextField(type="double"),
        "at": ContextField(type="timestamp"),
    },
)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def expression(text: str, returns: Returns = Returns.BOOLEAN) -> CompiledExpression:
    return compile_expression(text, VARIABLES, returns)


def text_of(content: str, name: str = "home") -> PlacementText:
    return PlacementText(name=name, origin=f"{name}.yaml", text=content)


def placement(content: str, name: str = "home") -> CompiledPlacement:
    placements, problems = compiled([text_of(content, name)], SCHEMA)
    assert not problems, "\n".join(map(str, problems))
    return placements[name]


def problems_of(content: str, name: str = "home") -> Sequence[Problem]:
    return compiled([text_of(content, name)], SCHEMA)[1]
