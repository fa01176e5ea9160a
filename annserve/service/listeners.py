"""The sockets of this process that take connections; servers in native code do not show theirs."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listening_fds(port: int) -> list[int]:
    """Return the descriptors that listen on ``port``; none where the system does not tell."""
    fds = [int(entry.name) for entry in Path("/proc/self/fd").glob("*") if entry.is_socket()]
    return [fd for fd in fds if is_listening(fd, port)]


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
