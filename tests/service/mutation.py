"""Bytes that were a message once."""

from __future__ import annotations

from random import Random


def mutated(data: bytes, random: Random) -> bytes:
    """Return ``data`` with a few bytes changed, taken out, put in, doubled, or cut off."""
    array = bytearray(data)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(array) + 1)
        match random.randrange(5):
            case 0:
                array[start : start + 1] = bytes([random.randrange(256)])
            case 1:
                del array[start : start + random.randint(1, 8)]
            case 2:
                array[start:start] = random.randbytes(random.randint(1, 8))
            case 3:
                array += array[start : start + 64]
            case 4:
                del array[start:]
    return bytes(array)
