"""Ids as requests write them, strings, and as MongoDB holds them."""

from __future__ import annotations

import re

from bson import Int64, ObjectId

from annserve.catalog.config import IdType
from annserve.domain.ids import id_problem

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")


def stored_id(id_: str, id_type: IdType) -> object | None:
    """Return what MongoDB holds for ``id_``, None where there can be nothing of that id."""
    if id_problem(id_) is not None:
        return None
    match id_type:
        case "string":
            return id_
        case "integer":
            # Only the one way of writing a number: "007" is another id than "7".
            number = int(id_) if _INTEGER.fullmatch(id_) else None
            return Int64(number) if number is not None and -(2**63) <= number < 2**63 else None
        case "object_id":
            return ObjectId(id_) if _OBJECT_ID.fullmatch(id_) else None


def id_of(value: object, id_type: IdType) -> str | None:
    """Return the id that ``value`` of a document stands for, None where it stands for none."""
    match id_type, value:
        case "string", str():
            return None if id_problem(value) else value
        case "integer", bool():
            return None
        case "integer", int():
            return str(int(value))
        case "integer", float() if value.is_integer() and abs(value) <= 2**53:
            # Shells write whole numbers as floats; MongoDB finds them as the integers they equal.
            return str(int(value))
        case "object_id", ObjectId():
            return str(value)
    return None
