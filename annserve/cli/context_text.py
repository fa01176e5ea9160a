"""Circumstances as people write them: ``hour=7 device=phone returning=true at=2024-05-01T07:00:00+09:00``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from annserve.domain.errors import InputError
from annserve_client import Value


def parse_pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return what ``texts``, each NAME=VALUE, say.

    Raises:
        InputError: one is none.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {text}: must be NAME=VALUE")
        pairs[name] = value
    return pairs


def parse_value(text: str) -> Value:
    """Return the truth, number or time that ``text`` is, or itself; in quotes it is a text whatever it says."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
