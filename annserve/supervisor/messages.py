"""JSON messages between a supervisor and a loader, over a pair of sockets that keep them apart (SOCK_SEQPACKET)."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

Message = dict[str, Any]

MESSAGE_BYTES_MAX: Final = 64 * 1024
_PROBLEM_CHARACTERS_MAX: Final = 2_000


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new conversation."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message) -> None:
    """Send one message; raises OSError when the other end has gone, or as the socket's time-out says."""
    end.send(json.dumps(message).encode())


def receive(end: socket.socket) -> Message | None:
    """Return the next message, or None when the other end has gone.

    Raises:
        BlockingIOError: there is none yet, and the socket does not wait.
        ValueError: it is no message.
    """
    try:
        data = end.recv(MESSAGE_BYTES_MAX)
    except ConnectionResetError:
        return None
    if not data:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


def shortened(problem: str) -> str:
    """Return ``problem`` short enough for a message."""
    return problem if len(problem) <= _PROBLEM_CHARACTERS_MAX else problem[:_PROBLEM_CHARACTERS_MAX] + "…"
