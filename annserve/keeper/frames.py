"""What travels between the keeper and its workers: a header of plain values, and bytes.

On the wire a frame is the lengths of both, four bytes each, then the header as JSON, then the bytes.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from annserve.domain.errors import (
    AnnserveError,
    CatalogUnavailableError,
    DeadlineExceededError,
    FieldNotIndexedError,
)

FRAME_BYTES_MAX = 256 << 20
FLIP = struct.Struct("<IIQ")
"""One flip: the number of the leaf, twice the row plus whether it passes now, and the version that made."""
_LENGTHS = struct.Struct("<II")
_CARRIED: Mapping[str, type[CatalogUnavailableError | FieldNotIndexedError | DeadlineExceededError]] = {
    error.reason: error for error in (CatalogUnavailableError, FieldNotIndexedError, DeadlineExceededError)
}

Header: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """A header, which names what it is about under ``do``, and what belongs to it."""

    header: Header
    payload: bytes = b""

    def encoded(self) -> bytes:
        """Return the frame as it travels."""
        header = json.dumps(self.header, separators=(",", ":")).encode()
        return b"".join((_LENGTHS.pack(len(header), len(self.payload)), header, self.payload))


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Return the next frame.

    Raises:
        EOFError, OSError: the other side has gone.
        ValueError: what it sent is no frame.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_bytes + payload_bytes > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {header_bytes + payload_bytes} bytes")
    header = json.loads(await reader.readexactly(header_bytes))
    if not isinstance(header, dict):
        raise ValueError("a frame whose header is no object")
    return Frame(header, await reader.readexactly(payload_bytes) if payload_bytes else b"")


def encode_error(error: AnnserveError) -> Header:
    """Return what tells a worker of ``error``; of one that a leaf cannot have, that the catalogue is unavailable."""
    if error.reason not in _CARRIED:
        error = CatalogUnavailableError(error.message)
    return {"reason": error.reason, **error.metadata}


def decode_error(encoded: Header) -> AnnserveError:
    """Return the error that `encode_error` was given."""
    values = dict(encoded)
    return _CARRIED[values.pop("reason")](**values)
