"""Expressions, compiled: CEL by Google's own library checks their types once and evaluates them in microseconds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Final

from cel_expr_python import cel

from annserve.domain.filter import FieldType
from annserve.placements.expression_parser import METHODS, parse_expression
from annserve.placements.expression_tree import (
    Call,
    Constant,
    ExpressionError,
    Has,
    Listed,
    Name,
    Node,
    milliseconds,
    nodes_of,
)
from annserve.placements.recipe import ExpressionValue
from annserve.placements.variables import Scope, Variable, Variables

_HAS: Final = "has_"
_ERROR: Final = re.compile(r"<input>:1:(\d+): (.*)")
_OVERLOAD: Final = re.compile(r"found no matching overload for '(.+?)' applied to '\((.*)\)'")
_WORDS: Final = {"double": "number", "bool": "boolean", "int": "time"}


class Returns(Enum):
    """What an expression must give."""

    BOOLEAN = "BOOL"
    NUMBER = "DOUBLE"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledExpression:
    """Implements `recipe.Expression`."""

    text: str
    names: frozenset[str]
    node: Node = field(repr=False)
    is_for_request: bool
    """Whether it reads nothing of candidates."""
    read: tuple[tuple[str, str, Variable], ...] = field(repr=False)
    """What it reads, or only looks whether it is there: name, name to CEL, and how its values become CEL's."""
    tested: tuple[tuple[str, str], ...] = field(repr=False)
    """Names that it looks for, with what CEL calls the outcome."""
    program: Any = field(repr=False)

    def evaluate(self, values: Mapping[str, object]) -> ExpressionValue | None:
        """Return its value; None where a variable that decides it is missing, or its value is no finite one."""
        data: dict[str, object] = {}
        try:
            for name, cel_name, variable in self.read:
                if _is_there(given := values.get(name)):
                    data[cel_name] = variable.cel_value(given)
            for name, cel_name in self.tested:
                data[cel_name] = _is_there(values.get(name))
            value = self.program.eval(data=data).value()
        except (RuntimeError, TypeError, ValueError, OverflowError):
            return None  # A value that CEL cannot hold, such as a text with a lone surrogate.
        if isinstance(value, bool):
            return value
        # What went wrong in CEL is a value of a type of its own.
        return value if isinstance(value, float) and math.isfinite(value) else None


def _is_there(value: object) -> bool:
    # Of a list, an empty one is not: the catalogue does not tell it from none.
    return value is not None and (type(value) not in (tuple, list) or bool(value))


def compile_expression(text: str, variables: Variables, returns: Returns) -> CompiledExpression:
    """Return ``text``, compiled.

    Raises:
        ExpressionError: it cannot be understood, reads what there is not, or gives something else.
    """
    return compile_node(parse_expression(text), text, variables, returns)


def compile_node(node: Node, text: str, variables: Variables, returns: Returns) -> CompiledExpression:
    """Return ``node``, which ``text`` says or has a part that says, compiled; raises as `compile_expression`."""
    read: dict[str, Variable] = {}
    tested: dict[str, str] = {}
    for part in nodes_of(node):
        if isinstance(part, Name | Has):
            variable = variables.get(part.name)
            if variable is None:
                raise ExpressionError(variables.unknown(part.name), part.position)
            read[part.name] = variable
            if isinstance(part, Has):
                tested[part.name] = _HAS + variable.cel_name
        elif isinstance(part, Call) and part.function == "matches":
            _check_pattern(part)
    writer = _Writer({name: one.cel_name for name, one in read.items()}, tested)
    writer.write(node)
    types = {one.cel_name: _cel_type(one) for one in read.values()} | dict.fromkeys(tested.values(), cel.Type.BOOL)
    try:
        program = cel.NewEnv(variables=types).compile(writer.text)
    except RuntimeError as error:
        raise _refusal(str(error), writer) from None
    given = program.return_type().name()
    if given != returns.value:
        kind = "a condition" if returns is Returns.BOOLEAN else "a number"
        raise ExpressionError(f"must be {kind}, is a {_word(given.lower())}", 0)
    return CompiledExpression(
        text=text,
        names=frozenset(read),
        node=node,
        is_for_request=all(one.scope is Scope.REQUEST for one in read.values()),
        read=tuple((name, one.cel_name, one) for name, one in read.items()),
        tested=tuple(tested.items()),
        program=program,
    )


def _check_pattern(call: Call) -> None:
    """Refuse what RE2 would not take: CEL would find out only as it evaluates."""
    pattern = call.operands[1]
    if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
        raise ExpressionError("matches() takes a pattern that is written out", call.position)
    value = _matcher().eval(data={"pattern": pattern.value})
    if not isinstance(value.value(), bool):
        problem = str(value.value()).split(": ", 1)[-1]
        raise ExpressionError(f"{pattern.value[:40]!r} is no pattern of RE2: {problem}", pattern.position)


@cache
def _matcher() -> Any:
    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")


def _cel_type(variable: Variable) -> Any:
    type_ = {
        FieldType.STRING: cel.Type.STRING,
        FieldType.NUMBER: cel.Type.DOUBLE,
        FieldType.BOOLEAN: cel.Type.BOOL,
        # Milliseconds, as everywhere else: nothing but times is an int here, and the first and last moments count too.
        FieldType.TIME: cel.Type.INT,
    }[variable.type]
    return cel.Type.List(type_) if variable.many else type_


class _Writer:
    """Writes a tree as CEL, every operation in parentheses, and remembers where each part came from."""

    def __init__(self, names: Mapping[str, str], tested: Mapping[str, str]) -> None:
        self._names = names
        self._tested = tested
        self._parts: list[str] = []
        self._length = 0
        self._origins: list[tuple[int, int]] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def origin(self, offset: int) -> int:
        """Return which character of the original the one at ``offset`` came from."""
        return next((position for start, position in reversed(self._origins) if start <= offset), 0)

    def write(self, node: Node) -> None:
        match node:
            case Constant(value):
                self._put(_literal(value), node.position)
            case Name(name):
                self._put(self._names[name], node.position)
            case Has(name):
                self._put(self._tested[name], node.position)
            case Listed(elements):
                self._joined("[", elements, ", ", "]", node.position)
            case Call(function, operands) if function in METHODS:
                self.write(operands[0])
                self._joined(f".{function}(", operands[1:], ", ", ")", node.position)
            case Call(_, operands):
                self._joined("double(size(", operands, ", ", "))", node.position)
            case _ if node.operator == "?":
                condition, first, second = node.operands
                self._joined("(", (condition,), "", " ? ", node.position)
                self._joined("", (first, second), " : ", ")", node.position)
            case _ if len(node.operands) == 1:
                self._joined("(!" if node.operator == "!" else "(-", node.operands, "", ")", node.position)
            case _:
                self._joined("(", node.operands, f" {node.operator} ", ")", node.position)

    def _joined(self, before: str, nodes: Iterable[Node], between: str, after: str, position: int) -> None:
        self._put(before, position)
        for place, node in enumerate(nodes):
            if place:
                self._put(between, position)
            self.write(node)
        self._put(after, position)

    def _put(self, part: str, position: int) -> None:
        self._origins.append((self._length, position))
        self._parts.append(part)
        self._length += len(part)


def _literal(value: str | float | bool | datetime) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"({value!r})" if value < 0 else repr(value)
    if isinstance(value, datetime):
        return f"({milliseconds(value)})"
    # JSON's escapes of characters beyond 16 bits are none of CEL's, so they are written as they are.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _refusal(message: str, writer: _Writer) -> ExpressionError:
    found = _ERROR.search(message)
    if found is None:
        return ExpressionError(f"CEL refuses it: {message[:200]}", 0)
    offset, problem = int(found[1]) - 1, found[2].removesuffix("[INVALID_ARGUMENT]").strip()
    if overload := _OVERLOAD.search(problem):
        operator = overload[1].replace("_", "").replace("@", "") or overload[1]
        given = " and ".join(map(_word, overload[2].split(", ")))
        problem = f"{operator} cannot be applied to {given}"
    return ExpressionError(problem[:200], writer.origin(offset))


def _word(cel_type: str) -> str:
    """Return the file's word for a type of CEL."""
    inner = re.fullmatch(r"list\((.*)\)", cel_type)
    return f"list of {_word(inner[1])}s" if inner else _WORDS.get(cel_type, cel_type)
