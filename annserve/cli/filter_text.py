"""Filters as people write them, for ``--filter``; on the wire there is only the typed tree.

::

    price < 5 and country in ["France", "Spain"] and not exists(discontinued)
    released >= 2024-01-01T00:00:00Z or tags contains "new" or 3 <= price < 10

``not`` binds closer than ``and``, ``and`` closer than ``or``. Strings are in double quotes, with JSON's escapes, or in
single quotes, as they are. A time has an offset or ``Z``; a date alone is its first moment in UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Final, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args
from rich.cells import cell_len

from annserve.domain.errors import InputError
from annserve_client import Filter, Value, field

_GRAMMAR: Final = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: test
    | _NOT negation -> negation
?test: "(" disjunction ")"
    | _EXISTS "(" NAME ")" -> exists
    | NAME _CONTAINS value -> contains
    | NAME _IN list -> one_of
    | NAME _NOT _IN list -> not_one_of
    | NAME (EQUAL | UP | DOWN) value -> comparison
    | value (EQUAL | UP | DOWN) NAME -> turned_comparison
    | value UP NAME UP value -> chain
    | value DOWN NAME DOWN value -> chain
list: "[" value ("," value)* "]"
value: TEXT | NUMBER | TIME | TRUE | FALSE

_OR: /or\b/i
_AND: /and\b/i
_NOT: /not\b/i
_IN: /in\b/i
_EXISTS: /exists\b/i
_CONTAINS: /contains\b/i
TRUE: /true\b/i
FALSE: /false\b/i
EQUAL: "==" | "=" | "!="
UP: "<=" | "<"
DOWN: ">=" | ">"
NAME: /(?!(?i:or|and|not|in|exists|contains|true|false)\b)[A-Za-z_][A-Za-z0-9_]*/
TEXT: /"(?:[^"\\]|\\.)*"|'[^']*'/
TIME.1: /\d{4}-\d\d-\d\d([Tt ][0-9:.,]+([Zz]|[+-]\d\d:?\d\d)?)?/
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
%ignore /\s+/
"""

_VALUE: Final = "a value"
_SHOWN: Final = {
    "NAME": "a field",
    "TEXT": _VALUE,
    "NUMBER": _VALUE,
    "TIME": _VALUE,
    "TRUE": _VALUE,
    "FALSE": _VALUE,
    "EQUAL": "'=='",
    "UP": "'<'",
    "DOWN": "'>'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "$END": "the end",
}
_FOREIGN: Final = re.compile(r"&&?|\|\|?|!|(?<=\bitem)\.|(?<=\bhas)\(")
_ADVICE: Final = {
    "&": "and for &&",
    "|": "or for ||",
    "!": "not for !",
    ".": "the name of a field without item.",
    "(": "exists(…) for has(…)",
}
"""What to write for what the conditions of placements say, by its first character."""
_WORD: Final = re.compile(r"\w+|.?", re.DOTALL)


def parse_filter(text: str) -> Filter:
    """Return the filter that ``text`` describes.

    Raises:
        InputError: it cannot be understood; the message points at the place, and says what was expected there.
    """
    try:
        filter_: Filter = _parser().parse(text)  # type: ignore[assignment]  # the transformer leaves no tree
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        position = len(text.rstrip()) if at_end else error.token.start_pos or 0
        raise _problem(text, position, _expected(text, position, error.accepts or error.expected)) from None
    except UnexpectedCharacters as error:
        # lark declares it as None, and sets it.
        position = cast("int", error.pos_in_stream)
        raise _problem(text, position, _expected(text, position, error.allowed or ())) from None
    except _BadValueError as error:
        raise _problem(text, error.position, error.problem) from None
    return filter_


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


class _BadValueError(Exception):
    """A value that is well formed, and none."""

    def __init__(self, token: Token, problem: str) -> None:
        super().__init__(problem)
        self.position = token.start_pos or 0
        self.problem = problem


@v_args(inline=True)
class _Builder(Transformer[Token, Filter]):
    """Makes filters of what the parser recognises."""

    def disjunction(self, first: Filter, *others: Filter) -> Filter:
        for other in others:
            first |= other
        return first

    def conjunction(self, first: Filter, *others: Filter) -> Filter:
        for other in others:
            first &= other
        return first

    def negation(self, filter_: Filter) -> Filter:
        return ~filter_

    def exists(self, name: Token) -> Filter:
        return field(str(name)).exists()

    def contains(self, name: Token, value: Value) -> Filter:
        return field(str(name)).contains(value)

    def one_of(self, name: Token, values: tuple[Value, ...]) -> Filter:
        return field(str(name)).one_of(*values)

    def not_one_of(self, name: Token, values: tuple[Value, ...]) -> Filter:
        return ~self.one_of(name, values)

    def comparison(self, name: Token, operator: Token, value: Value) -> Filter:
        compared = field(str(name))
        match str(operator):
            case "<":
                return compared < value
            case "<=":
                return compared <= value
            case ">":
                return compared > value
            case ">=":
                return compared >= value
            case "!=":
                return compared != value
            case _:
                return compared == value

    def turned_comparison(self, value: Value, operator: Token, name: Token) -> Filter:
        return self.comparison(name, _turned(operator), value)

    def chain(self, first: Value, operator: Token, name: Token, other_operator: Token, second: Value) -> Filter:
        lower, lower_value, upper, upper_value = operator, first, other_operator, second
        if operator.type == "DOWN":
            lower, lower_value, upper, upper_value = other_operator, second, operator, first
        bounds = {
            "minimum" if "=" in lower else "above": lower_value,
            "maximum" if "=" in upper else "below": upper_value,
        }
        return field(str(name)).within(**bounds)

    def list(self, *values: Value) -> tuple[Value, ...]:
        return values

    def value(self, token: Token) -> Value:
        try:
            return _value(token)
        except ValueError as error:
            raise _BadValueError(token, f"{str(token)!r} is no value: {error}") from None


def _value(token: Token) -> Value:
    match token.type:
        case "TRUE" | "FALSE":
            return token.type == "TRUE"
        case "NUMBER":
            number = float(token)
            if token.lstrip("+-").isdigit() and int(token) != number:
                raise ValueError(f"numbers are floats, and the nearest one is {int(number)}")
            return number
        case "TIME":
            return _time(str(token))
        case _:
            text: str = json.loads(token, strict=False) if token.startswith('"') else str(token[1:-1])
            return text


def _time(text: str) -> datetime:
    if len(text) == len("2024-01-01"):
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("add Z for UTC, or an offset such as +09:00")
    return time


def _turned(operator: Token) -> Token:
    return operator.update(value=str(operator).translate(str.maketrans("<>", "><")))


def _expected(text: str, position: int, terminals: Iterable[str]) -> str:
    """Return what to say of the word at ``position``, where one of ``terminals`` was expected."""
    names = sorted({_SHOWN.get(terminal, f"'{terminal.strip('_').lower()}'") for terminal in terminals})
    expected = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    found = _WORD.match(text, position)
    problem = f"expected {expected}, got {found[0]!r}" if found and found[0] else f"expected {expected}"
    if foreign := _FOREIGN.match(text, position):
        problem += f"; write {_ADVICE[foreign[0][0]]}"
    return problem


def _problem(text: str, position: int, problem: str) -> InputError:
    """Return the error that points at ``position``, counted from 0, in ``text``."""
    shown = text.replace("\n", " ").replace("\t", " ")
    # A Korean letter is as wide as two others.
    pointer = " " * cell_len(shown[:position]) + "^"
    return InputError(f"--filter, column {position + 1}: {problem}\n  {shown}\n  {pointer}")
