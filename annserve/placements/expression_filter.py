"""A condition over an item's fields as a filter, which bitmaps answer for all items at once; or None if it is none.

CEL's logic is kept, in which what is missing decides nothing: ``item.price != 5`` holds for no item without a price,
and neither does its opposite. So there are two filters of each condition: what it holds for, and what it fails for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from annserve.domain.filter import And, Equals, Field, FieldType, Filter, In, Not, Or, Range, Scalar, canonical
from annserve.placements.expression_tree import Constant, Has, Listed, Name, Node, Operation, milliseconds
from annserve.placements.variables import Variables

TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""What a comparison is with its sides exchanged."""


def filter_of(node: Node, variables: Variables) -> Filter | None:
    """Return the canonical filter that passes exactly the items for which ``node`` holds; None if there is none."""
    sides = sides_of(node, variables)
    return None if sides is None else canonical(sides.holds)


def sides_of(node: Node, variables: Variables) -> Sides | None:
    """Return the filters of the items for which ``node`` holds, and for which it fails; None if there are none."""
    return _Translator(variables).sides(node)


def present(field: Field) -> Filter:
    """Return the filter of items that have a value of the field's type, which is what expressions call there."""
    match field.type:
        case FieldType.STRING:
            return Range(field, minimum="")
        case FieldType.BOOLEAN:
            return In(field, (False, True))
        case FieldType.NUMBER:
            return Or((Range(field, minimum=0.0), Range(field, maximum=0.0)))
        case FieldType.TIME:
            return Or((Range(field, minimum=0), Range(field, maximum=0)))


@dataclass(frozen=True, slots=True)
class Sides:
    """For which items a condition holds, and for which it fails: for those in neither it is undecided."""

    holds: Filter
    fails: Filter


class _Translator:
    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def sides(self, node: Node) -> Sides | None:
        match node:
            case Operation("&&" | "||", operands):
                sides = [self.sides(operand) for operand in operands]
                known = tuple(one for one in sides if one is not None)
                if len(known) < len(sides):
                    return None
                holds, fails = tuple(one.holds for one in known), tuple(one.fails for one in known)
                return Sides(And(holds), Or(fails)) if node.operator == "&&" else Sides(Or(holds), And(fails))
            case Operation("!", (operand,)):
                inner = self.sides(operand)
                return None if inner is None else Sides(inner.fails, inner.holds)
            case Operation("in", (left, right)):
                return self._membership(left, right)
            case Operation(operator, (left, right)) if operator in TURNED:
                return self._comparison(operator, left, right) or self._comparison(TURNED[operator], right, left)
            case Has() if (field := self._field(node)) is not None:
                return Sides(present(field), Not(present(field)))
            case Name() if (field := self._field(node)) is not None and not field.many:
                return _leaf(field, Equals(field, True)) if field.type is FieldType.BOOLEAN else None
            case _:
                return None

    def _comparison(self, operator: str, left: Node, right: Node) -> Sides | None:
        field, value = self._field(left), _scalar(right)
        if field is None or field.many or value is None or isinstance(left, Has):
            return None
        match operator:
            case "==":
                return _leaf(field, Equals(field, value))
            case "!=":
                sides = _leaf(field, Equals(field, value))
                return Sides(sides.fails, sides.holds)
            case _ if field.type is FieldType.BOOLEAN:
                return None
            case "<":
                return _leaf(field, Range(field, maximum=value, maximum_excluded=True))
            case "<=":
                return _leaf(field, Range(field, maximum=value))
            case ">":
                return _leaf(field, Range(field, minimum=value, minimum_excluded=True))
            case _:
                return _leaf(field, Range(field, minimum=value))

    def _membership(self, left: Node, right: Node) -> Sides | None:
        field = self._field(left)
        if field is not None and not field.many and isinstance(right, Listed) and isinstance(left, Name):
            values = tuple(_scalar(element) for element in right.elements)
            known = tuple(value for value in values if value is not None)
            return _leaf(field, In(field, known)) if len(known) == len(values) else None
        field, value = self._field(right), _scalar(left)
        if field is not None and field.many and value is not None and isinstance(right, Name):
            return _leaf(field, Equals(field, value))
        return None

    def _field(self, node: Node) -> Field | None:
        if not isinstance(node, Name | Has):
            return None
        variable = self._variables.get(node.name)
        return None if variable is None else variable.field


def _leaf(field: Field, leaf: Filter) -> Sides:
    return Sides(leaf, And((present(field), Not(leaf))))


def _scalar(node: Node) -> Scalar | None:
    if not isinstance(node, Constant):
        return None
    return milliseconds(node.value) if isinstance(node.value, datetime) else node.value
