"""A file that is being read: the names it may use, its expressions, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from annserve.domain.catalog import Schema
from annserve.domain.filter import Filter
from annserve.placements.condition_parts import parts_of
from annserve.placements.expression import CompiledExpression, Returns, compile_expression
from annserve.placements.expression_filter import filter_of
from annserve.placements.expression_tree import ExpressionError
from annserve.placements.filters import filters_of
from annserve.placements.findings import Findings
from annserve.placements.parts import Part
from annserve.placements.problems import Place
from annserve.placements.recipe import ContextField
from annserve.placements.variables import Scope, Variables
from annserve.placements.yaml_text import Path

_FOR_REQUEST: Final = "is decided once a request, so it cannot read the candidate's {names}"


class Reading:
    """What the parts of one file are compiled with."""

    def __init__(self, schema: Schema, context: Mapping[str, ContextField], findings: Findings) -> None:
        """Compile with the fields of ``schema`` and the names of ``context``; ``findings`` take what is wrong."""
        self.schema = schema
        self.variables = Variables(schema, context)
        self.findings = findings
        self.calls: dict[str, Place] = {}
        """The placements that the file falls back to, and where it says so."""
        self._compiled: dict[tuple[str, Returns], CompiledExpression] = {}

    def expression(self, path: Path, text: str, returns: Returns = Returns.BOOLEAN) -> CompiledExpression | None:
        """Return the expression at ``path``; None when something is wrong with it, which is noted."""
        known = self._compiled.get((text, returns))
        if known is None:
            try:
                known = self._compiled[text, returns] = compile_expression(text, self.variables, returns)
            except ExpressionError as error:
                self.findings.add_expression(path, text, error)
                return None
        return known

    def request_expression(
        self, path: Path, text: str, returns: Returns = Returns.BOOLEAN
    ) -> CompiledExpression | None:
        """Return the expression at ``path``, which must read nothing of candidates."""
        expression = self.expression(path, text, returns)
        if expression is not None and not expression.is_for_request:
            names = sorted(name for name in expression.names if not self._is_for_request(name))
            self.findings.add(path, _FOR_REQUEST.format(names=", ".join(names)), at_value=True)
            return None
        return expression

    def as_filter(self, expression: CompiledExpression) -> Filter | None:
        """Return ``expression`` as a filter, None if it is none."""
        return filter_of(expression.node, self.variables)

    def add(self, path: Path, text: str, *, at_value: bool = False) -> None:
        """Note what is wrong."""
        self.findings.add(path, text, at_value=at_value)

    def add_call(self, path: Path, placement: str) -> None:
        """Note that ``placement`` is called at ``path``."""
        self.calls.setdefault(placement, self.findings.place(path))

    def where(self, path: Path, where: Mapping[str, Any]) -> list[Filter]:
        """Return the filters of ``where``."""
        return list(filters_of(where, self.schema, path, self.findings))

    def parts_of(self, expression: CompiledExpression) -> Part:
        """Return what ``expression``, a condition, is made of."""
        return parts_of(expression.node, expression.text, self.variables)

    def _is_for_request(self, name: str) -> bool:
        variable = self.variables.get(name)
        return variable is not None and variable.scope is Scope.REQUEST
