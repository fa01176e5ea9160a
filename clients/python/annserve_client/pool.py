"""Several connections to one target, and which of them a call takes.

A worker that has stopped keeps its connections open and answers nothing, so each connection is judged by how calls on
it fare: the one with the fewest calls under way is taken next, and one that let a call down is left alone for a while,
three times as long each time in a row. One call after that shows whether it is well again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

AVOID_SECONDS = 0.25
AVOID_SECONDS_MAX = 10.0
AVOID_FACTOR = 3.0

Channel = TypeVar("Channel")


def lapsed(code: grpc.StatusCode | None) -> bool | None:
    """Return whether a call that ended with ``code`` was let down by its connection, None where that cannot be told."""
    if code is grpc.StatusCode.OK:
        return False
    return True if code is grpc.StatusCode.DEADLINE_EXCEEDED else None


@dataclass(slots=True, eq=False)
class Connection(Generic[Channel]):
    """A channel with a connection of its own."""

    channel: Channel
    methods: dict[str, Any]
    """The calls it can make, by the names of their RPCs."""
    call_count: int = 0
    """How many are under way."""
    lapse_count: int = 0
    """How many calls it let down in a row."""
    avoided_until: float = 0.0
    answered_at: float = 0.0
    """When it last gave an answer."""


class Pool(Generic[Channel]):
    """Connections to choose from. Threads may share it."""

    def __init__(self, connections: Sequence[Connection[Channel]], clock: Callable[[], float] = time.monotonic) -> None:
        self.connections = connections
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0

    def take(self) -> Connection[Channel]:
        """Return the connection for the next call; `give_back` it after the call."""
        with self._lock:
            now, count = self._clock(), len(self.connections)
            self._turn = (self._turn + 1) % count
            # Equals take turns.
            order = [self.connections[(self._turn + step) % count] for step in range(count)]
            return _taken(min(order, key=lambda one: (one.avoided_until > now, one.call_count)))

    def take_another(self, first: Connection[Channel]) -> Connection[Channel]:
        """Return the connection for a second attempt beside ``first``: the one that was well most lately."""
        with self._lock:
            return _taken(max((one for one in self.connections if one is not first), key=lambda one: one.answered_at))

    def give_back(self, connection: Connection[Channel], *, lapsed: bool | None) -> None:
        """Take note that a call is over.

        Args:
            connection: What `take` returned.
            lapsed: Whether the connection let it down: another was faster by far, or the deadline passed. None where
                that cannot be told.
        """
        with self._lock:
            connection.call_count -= 1
            if lapsed:
                seconds = min(AVOID_SECONDS * AVOID_FACTOR**connection.lapse_count, AVOID_SECONDS_MAX)
                connection.lapse_count += 1
                connection.avoided_until = self._clock() + seconds
            elif lapsed is not None:
                connection.lapse_count, connection.avoided_until = 0, 0.0
                connection.answered_at = self._clock()


def _taken(connection: Connection[Channel]) -> Connection[Channel]:
    connection.call_count += 1
    return connection
