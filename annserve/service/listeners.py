"""The sockets of this process that take connections, or are ones; servers in native code do not show theirs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

GOAWAY: Final = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\xff" + b"\x00\x00\x00\x00"
"""HTTP/2's frame of eight bytes that begins a graceful end (RFC 9113, 6.8): no error, and no stream is left out."""


def listening_fds(port: int) -> list[int]:
    """Return the descriptors that listen on ``port``; none where the system does not tell."""
    return [fd for fd in _sockets() if is_listening(fd, port)]


def ask_to_leave(port: int) -> None:
    """Ask who is connected to ``port`` by HTTP/2 to make new calls elsewhere; those under way are not touched.

    A frame this small is written as a whole, or not at all where the connection is full.
    """
    for fd in _sockets():
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                is_one = connection.family in {socket.AF_INET, socket.AF_INET6} and connection.getsockname()[1] == port
                if is_one and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
                    connection.send(GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            continue  # Closed meanwhile, full, or no connection of ours.


def _sockets() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").glob("*") if entry.is_socket()]


def is_listening(fd: int, port: int) -> bool:
    """Return whether ``fd``, which others may close at any time, listens on ``port``."""
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            return (
                found.family in {socket.AF_INET, socket.AF_INET6}
                and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
                and found.getsockname()[1] == port
            )
    except OSError:
        return False


def shut(fd: int) -> None:
    """Let no more connections come by ``fd``: they go to another process that listens there, or are refused."""
    with socket.socket(fileno=os.dup(fd)) as listener:
        listener.shutdown(socket.SHUT_RDWR)
