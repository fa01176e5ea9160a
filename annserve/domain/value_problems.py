"""What is wrong with values that people wrote, in their words: pydantic tells of types and parsers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "must be there",
    "extra_forbidden": "there is no such key",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "value_error": "{error}",
    "json_invalid": "must be JSON: {error}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "datetime_type": "must be a time, such as 2024-05-01T07:00:00Z",
    "datetime_parsing": "must be a time, such as 2024-05-01T07:00:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2024-05-01T07:00:00Z",
    "timezone_aware": "must say its offset from UTC, as in 2024-05-01T07:00:00Z",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entry",
    "finite_number": "must be a finite number",
}
_WITHOUT_VALUE: Final = ("missing", "extra_forbidden", "json_invalid")
_SHOWN_MAX: Final = 60


def value_problem(details: ErrorDetails) -> str:
    """Return what must hold of a value, and what it is unless that is left out: ``must be at most 64, got 65``."""
    template = _MESSAGES.get(details["type"])
    message = details["msg"] if template is None else template.format_map(details.get("ctx", {}))
    if details["type"] in _WITHOUT_VALUE or isinstance(details.get("input", {}), dict | list):
        return message
    return message if "got" in message else f"{message}, got {_shown(details['input'])}"


def key_problems(errors: Iterable[ErrorDetails], whole: str = "") -> str:
    """Return what is wrong, a key at a time: ``fields.price.type: must be …``; ``whole`` is what has no key."""
    return "; ".join(
        f"{key}: {value_problem(details)}" if (key := _key_of(details) or whole) else value_problem(details)
        for details in errors
    )


def _key_of(details: ErrorDetails) -> str:
    # Of a key that is none itself, pydantic says so in a part of its own.
    return ".".join(str(part) for part in details["loc"] if part != "[key]")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_MAX else f"{shown[:_SHOWN_MAX]}…"
