"""What clients send that speak HTTP/2 badly, or only pretend to: seeded conversations of raw bytes.

By hand, against a server that runs, for as long as is wanted:

    python tests/service/hostile_frames.py 127.0.0.1:50051 --seconds 600
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
PATH: Final = "/annserve.v1.RecommendationService/Similar"

Conversation: TypeAlias = Callable[[random.Random], bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame that is as it should be."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """Return a header that no table knows, not compressed."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


HELLO: Final = PREFACE + frame(SETTINGS, 0, 0, b"")
HEAD: Final = b"".join(
    literal(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", PATH),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
MESSAGE: Final = b"\x0a\x06item-0"


def call(stream: int, message: bytes = MESSAGE, head: bytes = HEAD) -> bytes:
    """Return a whole call."""
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, body)


def noise(source: random.Random) -> bytes:
    """Return bytes that mean nothing."""
    return source.randbytes(source.randint(1, 4_096))


def wild_frames(source: random.Random) -> bytes:
    """Return frames of any kind in any order, some of which lie about their length."""
    frames = [
        frame(
            source.randint(0, 12),
            source.randint(0, 255),
            source.choice([0, 1, 2, 3, 5, 2**31 - 1]),
            source.randbytes(source.choice([0, 4, 5, 6, 8, 100, 16_384])),
        )
        for _ in range(source.randint(1, 30))
    ]
    if source.random() < 0.3:
        frames.append(source.randbytes(3) + frames[-1][3:])
    return HELLO + b"".join(frames)


def damaged_calls(source: random.Random) -> bytes:
    """Return calls of which some bytes are others."""
    data = bytearray(b"".join(call(stream) for stream in range(1, 40, 2)))
    for _ in range(source.randint(1, 20)):
        data[source.randrange(len(data))] = source.randrange(256)
    return HELLO + bytes(data)


def broken_off(source: random.Random) -> bytes:
    """Return calls that end anywhere."""
    data = HELLO + b"".join(call(stream) for stream in range(1, 40, 2))
    return data[: source.randrange(len(data))]


def rapid_resets(source: random.Random) -> bytes:
    """Return calls that are taken back at once (CVE-2023-44487)."""
    return HELLO + b"".join(
        call(stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", source.choice([0, 8])))
        for stream in range(1, 2_000, 2)
    )


def endless_headers(source: random.Random) -> bytes:
    """Return a call whose headers go on and on (CVE-2024-27316), up to a megabyte."""
    more = frame(CONTINUATION, 0, 1, literal("x-more", "x" * 120) * 100)
    return HELLO + frame(HEADERS, 0, 1, HEAD) + more * source.randint(1, 80)


def lying_messages(source: random.Random) -> bytes:
    """Return calls whose messages say they are longer, or shorter, or compressed, than they are."""
    calls = []
    for stream in range(1, 40, 2):
        prefix = bytes((source.choice([0, 1, 7]),)) + source.choice([0, 5, 2**31, 2**32 - 1]).to_bytes(4, "big")
        body = frame(DATA, source.choice([0, END_STREAM]), stream, prefix + MESSAGE)
        calls.append(frame(HEADERS, END_HEADERS, stream, HEAD) + body)
    return HELLO + b"".join(calls)


def floods(source: random.Random) -> bytes:
    """Return thousands of settings, pings, or empty frames of data."""
    one = source.choice(
        [
            frame(SETTINGS, 0, 0, struct.pack(">HI", 4, source.randrange(2**31))),
            frame(PING, 0, 0, bytes(8)),
            frame(DATA, 0, 1, b""),
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        ]
    )
    return HELLO + frame(HEADERS, END_HEADERS, 1, HEAD) + one * 3_000


def wild_metadata(source: random.Random) -> bytes:
    """Return calls with deadlines and metadata that no client sets."""
    pairs = [
        ("grpc-timeout", source.choice(["", "99999999H", "-1S", "1x", "0n", "123456789012S"])),
        ("grpc-encoding", source.choice(["gzip", "snappy", "identity", ""])),
        ("x-request-id", "".join(map(chr, source.choices(range(1, 127), k=64)))),
        ("content-type", source.choice(["text/plain", "application/grpc+proto", ""])),
        (":status", "200"),
    ]
    chosen = b"".join(literal(name, value) for name, value in source.sample(pairs, source.randint(1, len(pairs))))
    return HELLO + b"".join(call(stream, head=HEAD + chosen) for stream in range(1, 10, 2))


def wild_paths(source: random.Random) -> bytes:
    """Return calls of methods whose names are no UTF-8."""
    path = b"/" + bytes(source.choices(range(128, 256), k=8)) + b"/x"
    head = HEAD.replace(literal(":path", PATH), b"\x00\x05:path" + bytes((len(path),)) + path)
    return HELLO + b"".join(call(stream, head=head) for stream in range(1, 10, 2))


CONVERSATIONS: Final[tuple[Conversation, ...]] = (
    noise,
    wild_frames,
    damaged_calls,
    broken_off,
    rapid_resets,
    endless_headers,
    lying_messages,
    floods,
    wild_metadata,
    wild_paths,
)


def talk(address: str, data: bytes, source: random.Random) -> None:
    """Send ``data`` on a connection of its own, in pieces, and leave by one of the ways there are."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as connection, suppress(OSError):
        connection.settimeout(0.02)
        pieces = source.choice([1, 1, 3])
        for piece in range(pieces):
            connection.sendall(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
        if source.random() < 0.5:
            connection.recv(65_536)
        if source.random() < 0.3:
            # Gone without a word: the kernel sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main() -> None:
    """Talk to a server for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source, end_at, count = random.Random(arguments.seed), time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end_at:
        talk(arguments.address, source.choice(CONVERSATIONS)(source), source)
        count += 1
    sys.stdout.write(f"{count:,} conversations, and it still listens\n")


if __name__ == "__main__":
    main()
