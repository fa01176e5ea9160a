"""An entry of the cache, and how it looks in shared memory and on the way there."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import NamedTuple

ENTRY_BYTES_MAX = 64 << 10
"""A larger entry, its key included, is kept by the worker that made it alone."""

NAME_BYTES = 16
PUT, REPORT = b"P", b"R"
"""What a packet to the writer begins with: an entry's name and the entry, or a worker's report in JSON."""

_HEADER = struct.Struct("=QdddI")


class Entry(NamedTuple):
    """A value and for how long it holds; moments are monotonic seconds, a clock that all processes have in common."""

    key: bytes
    """Says everything that the value depends on."""
    value: bytes
    """Whatever its maker means by it; empty where there is known to be nothing."""
    flushes: int
    """How often the cache had been flushed when it was made."""
    made_at: float
    """When its making began."""
    expires_at: float
    stale_until: float
    """Until when it may be handed out beyond `expires_at`, while it is made anew."""


@lru_cache(maxsize=256)  # It is asked for several times while a value is made.
def name_of(key: bytes) -> bytes:
    """Return what the entry of ``key`` is called in LMDB, whose own keys are at most 511 bytes."""
    return hashlib.blake2b(key, digest_size=NAME_BYTES).digest()


def encode_entry(entry: Entry) -> bytes:
    """Return ``entry`` with the whole of its key, so that no two keys are ever taken for each other."""
    header = _HEADER.pack(entry.flushes, entry.made_at, entry.expires_at, entry.stale_until, len(entry.key))
    return b"".join((header, entry.key, entry.value))


def decode_entry(key: bytes, data: memoryview) -> Entry | None:
    """Return the entry of ``key`` in ``data``; None when it is another key's."""
    flushes, made_at, expires_at, stale_until, key_bytes = _HEADER.unpack_from(data)
    end = _HEADER.size + key_bytes
    if data[_HEADER.size : end] != key:
        return None
    return Entry(key, bytes(data[end:]), flushes, made_at, expires_at, stale_until)
