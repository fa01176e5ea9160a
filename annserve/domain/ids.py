"""What an id of an item or a user may be."""

from __future__ import annotations

import re

from annserve.domain.errors import InputError

MAX_ID_BYTES = 128
"""An id's longest UTF-8 form, in bytes: ids are keys in caches and names in error details."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def id_problem(id_: str) -> str | None:
    """Return what keeps ``id_`` from being an id, or None when nothing does.

    An id is 1 to 128 bytes of UTF-8 in any script, compared byte for byte (no Unicode
    normalisation), without control characters (U+0000-U+001F, U+007F-U+009F) and without lone
    surrogates, which have no UTF-8 form.

    Returns:
        What must hold, worded to follow a field's name: "must not be empty".
    """
    if not id_:
        return "must not be empty"
    if forbidden := _FORBIDDEN.search(id_):
        # What Python's `surrogateescape` makes of a byte that is no UTF-8.
        if "\udc80" <= forbidden[0] <= "\udcff":
            return f"must be UTF-8, got the byte 0x{ord(forbidden[0]) - 0xDC00:02X} at position {forbidden.start()}"
        kind = "a lone surrogate" if forbidden[0] >= "\ud800" else "a control character"
        return f"must not hold {kind} (U+{ord(forbidden[0]):04X} at position {forbidden.start()})"
    # Most ids are short ASCII, whose length in bytes needs no encoding.
    byte_count = len(id_) if id_.isascii() else len(id_.encode())
    if byte_count > MAX_ID_BYTES:
        return f"must be at most {MAX_ID_BYTES} bytes, got {byte_count}"
    return None


def check_item_id(item_id: str) -> None:
    """Raise InputError where ``item_id`` is none."""
    if problem := id_problem(item_id):
        raise InputError(f"{item_id!r} is no item id: it {problem}", item_id=item_id)
