"""A mixed condition, taken apart: what items decide alone, what the request decides alone, and what is left of it.

Two sides of each part are of interest, as in `expression_filter`: where it holds, and where it fails; in neither it is
undecided. ``a && b`` holds where both hold and fails where one fails, ``a || b`` the other way round, ``!a`` holds
where ``a`` fails. So a condition holds where a tree of "all" and "any" says so, over one side of each of its parts:
negation goes down to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from annserve.domain.filter import Field, FieldType, canonical
from annserve.placements.expression import Returns, compile_node
from annserve.placements.expression_filter import TURNED, sides_of
from annserve.placements.expression_tree import Constant, Has, Name, Node, Operation, milliseconds, nodes_of
from annserve.placements.parts import AllOf, AnyOf, Compared, OfEach, OfItems, OfRequest, Part
from annserve.placements.variables import Scope, Variable, Variables

_BY_COST: Final = (OfRequest, OfItems, Compared, AllOf, AnyOf, OfEach)


def parts_of(node: Node, text: str, variables: Variables) -> Part:
    """Return what holds exactly where ``node`` does, a condition that is compiled from ``text``."""
    return _Splitter(text, variables).part(node, wanted=True)


class _Splitter:
    def __init__(self, text: str, variables: Variables) -> None:
        self._text = text
        self._variables = variables

    def part(self, node: Node, *, wanted: bool) -> Part:
        """Return what holds where ``node`` comes to ``wanted``."""
        if self._is_for_request(node):
            expression = compile_node(node, self._text, self._variables, Returns.BOOLEAN)
            return OfRequest(expression=expression, wanted=wanted)
        match node:
            case Operation("&&" | "||", operands):
                parts = [self.part(operand, wanted=wanted) for operand in operands]
                return _joined(AllOf if (node.operator == "&&") is wanted else AnyOf, parts)
            case Operation("!", (operand,)):
                return self.part(operand, wanted=not wanted)
            case Operation("?", (condition, first, second)):
                ways = [
                    _joined(AllOf, [self.part(condition, wanted=decides), self.part(one, wanted=wanted)])
                    for decides, one in ((True, first), (False, second))
                ]
                return _joined(AnyOf, ways)
            case _:
                return self._single(node, wanted=wanted)

    def _single(self, node: Node, *, wanted: bool) -> Part:
        sides = sides_of(node, self._variables)
        if sides is not None:
            return OfItems(filter=canonical(sides.holds if wanted else sides.fails))
        match node:
            case Operation(operator, (left, right)) if operator in TURNED:
                compared = self._compared(operator, left, right, wanted=wanted)
                compared = compared or self._compared(TURNED[operator], right, left, wanted=wanted)
                if compared is not None:
                    return compared
            case _:
                pass
        expression = compile_node(node, self._text, self._variables, Returns.BOOLEAN)
        return OfEach(expression=expression, fields=tuple(self._fields(node)), wanted=wanted)

    def _compared(self, operator: str, left: Node, right: Node, *, wanted: bool) -> Compared | None:
        mine = self._variables.get(left.name) if isinstance(left, Name) else None
        if mine is None or mine.scope is not Scope.CANDIDATE or mine.many or mine.type is FieldType.BOOLEAN:
            return None
        if isinstance(right, Constant):
            value = milliseconds(right.value) if isinstance(right.value, datetime) else right.value
            return Compared(left=mine, operator=operator, constant=value, wanted=wanted)
        other = self._variables.get(right.name) if isinstance(right, Name) else None
        if other is None or other.scope is not Scope.REQUEST:
            return None
        return Compared(left=mine, operator=operator, right=other, wanted=wanted)

    def _is_for_request(self, node: Node) -> bool:
        return all(variable.scope is Scope.REQUEST for variable in self._read(node))

    def _fields(self, node: Node) -> Iterator[Field]:
        named = {one.name: one.field for one in self._read(node) if one.field is not None}
        return (named[name] for name in sorted(named))

    def _read(self, node: Node) -> Iterator[Variable]:
        for part in nodes_of(node):
            variable = self._variables.get(part.name) if isinstance(part, Name | Has) else None
            if variable is not None:
                yield variable


def _joined(kind: type[AllOf | AnyOf], parts: Iterable[Part]) -> Part:
    flat: list[Part] = []
    for part in parts:
        flat += part.parts if isinstance(part, kind) else (part,)
    return kind(parts=tuple(sorted(flat, key=lambda part: _BY_COST.index(type(part)))))
