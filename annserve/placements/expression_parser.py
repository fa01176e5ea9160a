"""The expressions of placements: a part of CEL, without loops, macros, maps and messages, read into a tree.

Reading it here bounds what CEL is given, and shows what an expression is made of: what it reads, and whether it could
be a filter. CEL itself checks the types and does the evaluating. Every number is a double: ``1`` is ``1.0``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Final, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from annserve.placements.expression_tree import (
    Call,
    Constant,
    ExpressionError,
    Has,
    Listed,
    Name,
    Node,
    Operation,
    nodes_of,
)

TEXT_MAX: Final = 1_000
"""Characters of an expression."""
DEPTH_MAX: Final = 16
NODES_MAX: Final = 256

METHODS: Final = ("startsWith", "endsWith", "contains", "matches")
ENTITIES: Final = ("user", "context", "item")

_GRAMMAR: Final = r"""
?start: choice
?choice: disjunction
    | disjunction "?" disjunction ":" choice -> conditional
?disjunction: conjunction (_OR conjunction)*
?conjunction: relation (_AND relation)*
?relation: sum
    | sum (COMPARED | IN) sum -> operation
?sum: product
    | sum (PLUS | MINUS) product -> operation
?product: unary
    | product (TIMES | OVER) unary -> operation
?unary: primary
    | NOT unary -> prefixed
    | MINUS unary -> prefixed
?primary: "(" choice ")" -> parenthesised
    | path
    | path "(" (choice ("," choice)*)? ")" -> call
    | "[" choice ("," choice)* "]" -> listed
    | literal
path: NAME MEMBER*
literal: TEXT | NUMBER | TRUE | FALSE

_OR: "||"
_AND: "&&"
COMPARED: "==" | "!=" | "<=" | ">=" | "<" | ">"
IN: /in\b/
PLUS: "+"
MINUS: "-"
TIMES: "*"
OVER: "/"
NOT: "!"
TRUE: /true\b/
FALSE: /false\b/
NAME: /(?!(in|true|false)\b)[A-Za-z_][A-Za-z0-9_]*/
MEMBER: /\.[A-Za-z_][A-Za-z0-9_]*/
TEXT: /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/
NUMBER: /(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?/
%ignore /\s+/
"""
_FOREIGN: Final = {"and": "&&", "or": "||", "not": "!", "&": "&&", "|": "||", "=": "=="}
"""What other languages say, that of ``annserve query --filter`` among them."""
_FOREIGN_AT: Final = re.compile(r"(and|or|not)\b|(?<![&|=])[&|=](?![&|=])", re.IGNORECASE)
_SHOWN: Final = {"$END": "the end", "TEXT": "a text", "NUMBER": "a number", "NAME": "a name"}


def parse_expression(text: str) -> Node:
    """Return what ``text`` says.

    Raises:
        ExpressionError: it cannot be understood, or is too long or too deep.
    """
    if len(text) > TEXT_MAX:
        raise ExpressionError(f"must be at most {TEXT_MAX:,} characters, got {len(text):,}")
    if not text.strip():
        raise ExpressionError("must not be empty")
    try:
        node = cast("Node", _parser().parse(text))
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        position = len(text.rstrip()) if at_end else error.token.start_pos or 0
        found = "the end" if at_end else repr(str(error.token)[:40])
        problem = f"expected {_expected(error.accepts or error.expected)}, got {found}"
        raise ExpressionError(problem + _advice(text, position), position) from None
    except UnexpectedCharacters as error:
        position = cast("int", error.pos_in_stream)
        problem = f"{text[position]!r} cannot be understood here"
        raise ExpressionError(problem + _advice(text, position), position) from None
    if sum(1 for _ in nodes_of(node)) > NODES_MAX:
        raise ExpressionError(f"must have at most {NODES_MAX} parts")
    return node


@cache
def _parser() -> Lark:
    # Errors of the builder come through as they are.
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


@v_args(inline=True)
class _Builder(Transformer[Token, Node]):
    """Makes nodes of what the parser recognises."""

    def disjunction(self, *operands: Node) -> Node:
        return _operation("||", operands, operands[0].position)

    def conjunction(self, *operands: Node) -> Node:
        return _operation("&&", operands, operands[0].position)

    def conditional(self, condition: Node, first: Node, second: Node) -> Node:
        return _operation("?", (condition, first, second), condition.position)

    def operation(self, left: Node, operator: Token, right: Node) -> Node:
        return _operation(str(operator), (left, right), operator.start_pos or 0)

    def prefixed(self, operator: Token, operand: Node) -> Node:
        position = operator.start_pos or 0
        if operator == "-" and isinstance(operand, Constant) and type(operand.value) is float:
            return Constant(-operand.value, position)
        return _operation("!" if operator == "!" else "negated", (operand,), position)

    def parenthesised(self, inner: Node) -> Node:
        return inner

    def path(self, *names: Token) -> Node:
        return Name("".join(names), names[0].start_pos or 0)

    def listed(self, *elements: Node) -> Node:
        return Listed(elements, elements[0].position, _deeper(elements, elements[0].position))

    def call(self, path: Name, *operands: Node) -> Node:
        receiver, _, method = path.name.rpartition(".")
        if method in METHODS and receiver and len(operands) == 1:
            called = (Name(receiver, path.position), *operands)
            return Call(method, called, path.position, _deeper(called, path.position))
        names = [operand.name if isinstance(operand, Name) else None for operand in operands]
        match path.name, len(operands):
            case "has", 1 if names[0] is not None:
                return Has(names[0], path.position)
            case "similarity", 2 if all(name in ENTITIES for name in names) and names[0] != names[1]:
                first, second = sorted(cast("list[str]", names), key=ENTITIES.index)
                return Name(f"similarity({first}, {second})", path.position)
            case "size", 1:
                return Call("size", operands, path.position, _deeper(operands, path.position))
            case "timestamp", 1 if isinstance(operands[0], Constant) and isinstance(operands[0].value, str):
                return Constant(parse_time(operands[0].value, operands[0].position), path.position)
        raise ExpressionError(_no_function(path.name, len(operands)), path.position)

    def literal(self, token: Token) -> Node:
        position = token.start_pos or 0
        match token.type:
            case "TRUE" | "FALSE":
                return Constant(token.type == "TRUE", position)
            case "NUMBER":
                number = float(token)
                if not math.isfinite(number):
                    raise ExpressionError(f"{str(token)[:40]} is too large a number", position)
                return Constant(number, position)
            case _:
                return Constant(_text(token), position)


def _operation(operator: str, operands: tuple[Node, ...], position: int) -> Operation:
    return Operation(operator, operands, position, _deeper(operands, position))


def _deeper(operands: Iterable[Node], position: int) -> int:
    depth = 1 + max((operand.depth for operand in operands), default=0)
    if depth > DEPTH_MAX:
        raise ExpressionError(f"must be nested at most {DEPTH_MAX} deep", position)
    return depth


def _text(token: Token) -> str:
    body = str(token[1:-1])
    if token.startswith("'"):
        body = re.sub(r'\\.|"', lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), body)
    try:
        text: str = json.loads(f'"{body}"', strict=False)
        text.encode()
    except ValueError:
        raise ExpressionError(
            "a text has JSON's escapes: \\n, \\\\, \\u00e9 and the like", token.start_pos or 0
        ) from None
    return text


def parse_time(text: str, position: int) -> datetime:
    """Return the moment that ``text`` names.

    Raises:
        ExpressionError: it names none, or none in whole milliseconds.
    """
    try:
        time = datetime.fromisoformat(text)
        if len(text) == len("2024-01-31"):
            time = time.replace(tzinfo=UTC)
        if time.tzinfo is not None and time.microsecond % 1_000 == 0:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ExpressionError(
        f"{text[:40]!r} is no time such as 2024-01-31 or 2024-01-31T09:00:00Z, in whole milliseconds", position
    ) from None


def _advice(text: str, position: int) -> str:
    """Return what to write for the word at ``position``, or for a ``not`` that was taken for a name before it."""
    negation = re.search(r"\bnot\s+$", text[:position], re.IGNORECASE)
    found = _FOREIGN_AT.match(text, negation.start() if negation else position)
    return f"; write {_FOREIGN[found[0].lower()]} for {found[0]}" if found else ""


def _no_function(name: str, operand_count: int) -> str:
    if name in ("exists", "defined"):
        return f"there is no {name}(…); write has(item.x) for it"
    known = 'has(item.x), size(x), timestamp("…"), similarity(user, context), x.startsWith("…"), x.endsWith("…"), '
    return f'there is no {name[:40]}(…) of {operand_count}; there are {known}x.contains("…"), x.matches("…")'


def _expected(terminals: Iterable[str]) -> str:
    names = {_SHOWN.get(name, "") for name in terminals} - {""}
    if "NAME" in terminals:
        return "a name, a text, a number or ("
    return " or ".join(sorted(names)) or "an operator or the end"
