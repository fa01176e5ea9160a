"""Leaves as plain values that JSON keeps exactly, for the way from a worker to the keeper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from annserve.domain.filter import Equals, Exists, Field, FieldType, In, Leaf, Range

_KINDS: Final[Mapping[str, type[Leaf]]] = {kind.__name__: kind for kind in (Equals, In, Range, Exists)}


def encode_leaf(leaf: Leaf | None) -> Mapping[str, Any] | None:
    """Return ``leaf`` as what JSON can hold; None, the leaf that every item passes, is itself."""
    return None if leaf is None else {"kind": type(leaf).__name__, **asdict(leaf)}


def decode_leaf(encoded: Mapping[str, Any] | None) -> Leaf | None:
    """Return the leaf that `encode_leaf` made ``encoded`` from.

    Raises:
        KeyError, TypeError, ValueError: it was made from none.
    """
    if encoded is None:
        return None
    values = dict(encoded)
    kind = _KINDS[values.pop("kind")]
    field = dict(values.pop("field"))
    field["type"] = FieldType(field["type"])
    if kind is In:
        values["values"] = tuple(values["values"])
    return kind(Field(**field), **values)
