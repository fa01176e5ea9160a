"""A client that sends unary gRPC calls at moments set in advance, whatever becomes of earlier ones.

A closed loop cannot overload anything: it waits. And a client library takes more of a processor per call than the
server does to refuse one. So this writes HTTP/2 frames itself, and reads of the answers no more than which status they
have: about 50 us a call.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4
WINDOW_BYTES = 1 << 30
OK = 0
NO_ANSWER = -1
"""The status of a call that was not answered in time, or whose stream was reset."""

# The letters of a status and of its name in Huffman's code (RFC 7541, appendix B).
_CODES = (
    *("00011", "00100", "100110", "101011", "101100", "01000", "01001", "101101", "010110"),
    *("00000", "00001", "00010", "011001", "011010", "011011", "011100", "011101", "011110", "011111"),
)
_HUFFMAN = dict(zip("acgprstu-0123456789", _CODES, strict=True))


def _coded(text: str) -> bytes:
    bits = "".join(_HUFFMAN[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# Without a table of headers the server writes each in full, as it is or in Huffman's code.
_CODED_STATUSES = {_coded(str(status)): status for status in range(17)}
_STATUS = re.compile(rb"grpc-status.(\d+)|" + re.escape(_coded("grpc-status")) + b"([\x81-\x82])(..?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked."""

    method: str
    """Its path, such as ``/annserve.v1.RecommendationService/Similar``."""
    message: bytes


@dataclass(slots=True)
class Outcomes:
    """What became of the calls of one run, in the order in which they ended."""

    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """From the moment a call was due."""


class Connection(asyncio.Protocol):
    """One HTTP/2 connection to a server without TLS."""

    def __init__(self, authority: str, timeout_seconds: float) -> None:
        """Prepare calls of a server, each with a deadline."""
        self._authority = authority
        self._timeout_seconds = timeout_seconds
        self._headers: dict[str, bytes] = {}
        self._calls: dict[int, float] = {}
        self._has_data: set[int] = set()
        self._statuses: dict[int, int] = {}
        self._next_stream = 1
        self._buffer = bytearray()
        self.outcomes = Outcomes()

    @property
    def under_way(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, WINDOW_BYTES)
        hello = [_frame(SETTINGS, 0, 0, settings), _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_BYTES))]
        self._transport.write(PREFACE + b"".join(hello))

    def send(self, call: Call, due_at: float) -> None:
        """Begin a call that was due at ``due_at``, monotonic seconds."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._calls[stream] = due_at
        headers = self._headers.get(call.method)
        if headers is None:
            headers = self._headers[call.method] = self._headers_of(call.method)
        body = b"\x00" + len(call.message).to_bytes(4, "big") + call.message
        self._transport.write(_frame(HEADERS, END_HEADERS, stream, headers) + _frame(DATA, END_STREAM, stream, body))

    def _headers_of(self, method: str) -> bytes:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{round(self._timeout_seconds * 1e3)}m"),
        ]
        return b"".join(map(_literal, *zip(*headers, strict=True)))

    def give_up(self) -> None:
        """Count what is still under way as not answered."""
        for stream in list(self._calls):
            self._end(stream, NO_ANSWER)

    def close(self) -> None:
        """Leave."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take frames, as they come."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) >= start + 9:
            size = int.from_bytes(buffer[start : start + 3], "big")
            end = start + 9 + size
            if len(buffer) < end:
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            self._take(kind, flags, stream, bytes(buffer[start + 9 : end]))
            start = end
        del buffer[:start]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            found = _STATUS.search(payload)
            if found:
                plain, length, coded = found.groups()
                self._statuses[stream] = int(plain) if plain else _CODED_STATUSES[coded[: length[0] & 0x7F]]
        elif kind == RST_STREAM:
            self._end(stream, self._statuses.pop(stream, NO_ANSWER))
            return
        elif kind == SETTINGS and not flags & ACK:
            self._transport.write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(_frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server ends the connection: {payload[8:]!r}")
        if flags & END_STREAM and kind in (HEADERS, DATA):
            self._end(stream, self._statuses.pop(stream, NO_ANSWER))

    def _end(self, stream: int, status: int) -> None:
        due_at = self._calls.pop(stream, None)
        if due_at is not None:
            self.outcomes.statuses.append(status)
            self.outcomes.seconds.append(time.monotonic() - due_at)


async def connect(address: str, count: int, timeout_seconds: float = 0.3) -> list[Connection]:
    """Return ``count`` connections to ``address``."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: Connection(address, timeout_seconds), host, int(port))
        made.append(connection)
    await asyncio.sleep(0.1)  # The server's settings arrive.
    return made


async def send_at(
    connections: Sequence[Connection], calls: Iterator[Call], moments: Sequence[float], streams_max: int = 100
) -> Outcomes:
    """Begin one of ``calls`` at each of ``moments``, in seconds from now, and return what became of them.

    A call that finds ``streams_max`` under way on each connection waits, as it would in any client's library; its time
    counts from when it was due. What has not ended a second after the last has begun is counted as not answered.
    """
    began_at = time.monotonic()
    sent = 0
    while sent < len(moments):
        now = time.monotonic() - began_at
        while sent < len(moments) and moments[sent] <= now:
            idlest = min(connections, key=lambda connection: connection.under_way)
            if idlest.under_way >= streams_max:
                break
            idlest.send(next(calls), began_at + moments[sent])
            sent += 1
        await asyncio.sleep(0.0005)
    give_up_at = time.monotonic() + 1.0
    while any(connection.under_way for connection in connections) and time.monotonic() < give_up_at:
        await asyncio.sleep(0.002)
    return _taken_of(connections)


def moments_of(rate: float, seconds: float, random: np.random.Generator) -> list[float]:
    """Return when calls are due, in seconds from the start, that come at random, ``rate`` of them a second."""
    return [float(moment) for moment in np.cumsum(random.exponential(1.0 / rate, round(rate * seconds)))]


def _taken_of(connections: Sequence[Connection]) -> Outcomes:
    joined = Outcomes()
    for connection in connections:
        connection.give_up()
        joined.statuses += connection.outcomes.statuses
        joined.seconds += connection.outcomes.seconds
        connection.outcomes = Outcomes()
    return joined


async def keep_busy(
    connections: Sequence[Connection], calls: Iterator[Call], in_flight: int, seconds: float
) -> Outcomes:
    """Have ``in_flight`` calls under way on each connection all the time: the closed loop that finds the capacity."""
    end_at = time.monotonic() + seconds
    while (now := time.monotonic()) < end_at:
        for connection in connections:
            while connection.under_way < in_flight:
                connection.send(next(calls), now)
        await asyncio.sleep(0.0005)
    return await send_at(connections, calls, [])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header field that neither looks into a table nor adds to one (RFC 7541, 6.2.2), not compressed."""
    if len(value) > 126:
        raise ValueError(f"{name} is too long for a length of one byte")
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
