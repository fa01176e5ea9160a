"""What protobuf writes for numbers, where a message is put together from bytes that are there already."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return ``value``, at least 0, as protobuf writes it: seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
