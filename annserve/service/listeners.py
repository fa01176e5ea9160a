"""The sockets of this process that take connections, or are ones; neither transport shows its own."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

GOAWAY: Final = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\xff" + b"\x00\x00\x00\x00"
"""HTTP/2's frame of eight bytes that begins a graceful end (RFC 9113, 6.8): no error, and no stream is left out."""

CLOSED_SECONDS: Final = 0.1
"""From the end of listening until clients are asked to go: workers that leave together have closed by then too."""

HEARD_SECONDS: Final = 0.2
"""Who brings nothing for so long after he was asked to go, and stays, has something under way that never ends."""

ASKED_SECONDS_MAX: Final = 1.0
"""How long calls of those who do not go, though asked to, are answered."""

_LOOK_SECONDS: Final = 0.02
_LOST_SECONDS: Final = 0.5
_QUEUE_SECONDS_MAX: Final = 0.1
"""How long a moment is waited for at which no connection waits to be taken."""

_TCP_INFO: Final = struct.Struct("=24xI24xI64xQ16xI")
"""Of Linux's ``struct tcp_info``: ``unacked``, ``last_data_recv``, ``bytes_acked``, ``notsent_bytes``."""

_FRAME_HEAD_BYTES: Final = 9


def listening_fds(port: int) -> list[int]:
    """Return the descriptors that listen on ``port``; none where the system does not tell."""
    return [fd for fd in _sockets() if is_listening(fd, port)]


def is_listening(fd: int, port: int) -> bool:
    """Return whether ``fd``, which others may close at any time, listens on ``port``."""
    try:
        with _shared(fd) as found:
            return _is_at(fd, port) and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


async def wait_until_closed(port: int) -> None:
    """Return when this process has lost a listener on ``port``; never where it has none, or the system does not tell.

    grpc.aio stops for good, and tells nobody, when it is called by a path that is no UTF-8 (seen with 1.85).
    """
    fds = listening_fds(port)
    while all(is_listening(fd, port) for fd in fds):
        await asyncio.sleep(_LOST_SECONDS)


async def leave(port: int, seconds_max: float, *, is_plain: bool = True) -> None:
    """Have nobody come to ``port`` in this process any more, and who is here go elsewhere, by HTTP/2.

    Calls go on being answered meanwhile. The order matters where others listen on the port too: a client that is asked
    to go connects anew at once, and one that meets a listener which is about to close waits 100 ms or more for its next
    try. See docs/decisions/0053-leave-in-three-steps.md.

    Args:
        port: Where this process listens.
        seconds_max: How long all of it may take.
        is_plain: Whether it is HTTP/2 that goes over the connections, and not TLS: nobody can be asked then.
    """
    give_up = time.monotonic() + seconds_max
    for fd in listening_fds(port):
        await _close_listener(fd)
    await asyncio.sleep(min(CLOSED_SECONDS, seconds_max))
    give_up = min(give_up, time.monotonic() + ASKED_SECONDS_MAX)
    asked: dict[int, float] = {}
    awaited = [fd for fd in _sockets() if _is_at(fd, port)] if is_plain else []
    while (awaited := [fd for fd in awaited if _is_awaited(fd, port, asked)]) and time.monotonic() < give_up:
        await asyncio.sleep(_LOOK_SECONDS)


async def _close_listener(fd: int) -> None:
    """Close what listens, at a moment at which nobody waits there: whoever does is reset."""
    give_up = time.monotonic() + _QUEUE_SECONDS_MAX
    with suppress(OSError):
        while time.monotonic() < give_up and _traffic(fd)[0]:
            await asyncio.sleep(_LOOK_SECONDS / 20)
        # Its owner knows nothing of it, and closes in its time what has its number now. Shut down it would be a
        # listener on which nothing can be accepted, of which both transports complain.
        with socket.socket() as nothing:
            os.dup2(nothing.fileno(), fd, inheritable=False)


def _is_awaited(fd: int, port: int, asked: dict[int, float]) -> bool:
    """Ask who is connected by ``fd`` to go, once, and return whether he has still to hear of it."""
    try:
        unacked, silent_ms, acked_bytes, unsent_bytes = _traffic(fd)
        if not _is_at(fd, port) or acked_bytes < _FRAME_HEAD_BYTES:
            return False  # Gone, and its number another's; or the server has not said its first word, the settings.
        now = time.monotonic()
        if fd in asked:
            return now - asked[fd] < HEARD_SECONDS or silent_ms < HEARD_SECONDS * 1e3
        if not unacked and not unsent_bytes:
            # Between two frames: half of one is written only where the connection is full.
            with _shared(fd) as connection:
                connection.send(GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            asked[fd] = now
        return True
    except OSError:
        return False  # Gone meanwhile, or no connection.


def _traffic(fd: int) -> tuple[int, int, int, int]:
    """Return of a TCP socket what its peer has not acknowledged, or of a listener who waits, in segments; for how many
    milliseconds nothing came; how many bytes are acknowledged, how many not sent.
    """
    with _shared(fd) as found:
        unacked, silent_ms, acked_bytes, unsent_bytes = _TCP_INFO.unpack(
            found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        )
    return unacked, silent_ms, acked_bytes, unsent_bytes


def _sockets() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").glob("*") if entry.is_socket()]


def _is_at(fd: int, port: int) -> bool:
    try:
        with _shared(fd) as found:
            return found.family in {socket.AF_INET, socket.AF_INET6} and bool(found.getsockname()[1] == port)
    except OSError:
        return False


@contextmanager
def _shared(fd: int) -> Iterator[socket.socket]:
    """Give the socket of a descriptor that somebody else owns; raises OSError where there is none any more."""
    with socket.socket(fileno=os.dup(fd)) as found:
        yield found
