"""What a method may ask of a call, whatever brought it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Never, Protocol, TypeAlias

import grpc

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


class Context(Protocol):
    """A call; `grpc.aio.ServicerContext` is one."""

    def time_remaining(self) -> float | None:
        """Return the seconds that its caller still waits, at least 0; None where it set no deadline."""
        ...

    def invocation_metadata(self) -> Metadata | None:
        """Return the metadata that came with it, names in lower case."""
        ...

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> Never:
        """End it with a status that is not OK; raises `grpc.aio.AbortError`."""
        ...


class Call(Protocol):
    """Answers calls of one method."""

    def __call__(self, data: bytes, context: Context, waited_seconds: float = 0.0) -> Awaitable[bytes]:
        """Return the encoded answer to ``data``, an encoded request.

        Args:
            data: What came in.
            context: The call; it ends with an error by its `abort`.
            waited_seconds: How long it is known to have waited for its turn, behind many others.
        """
        ...


class Together(NamedTuple):
    """Answers several calls of one method that wait at the same time, without a task for any of them."""

    at_most: int
    """How many, at least 1."""
    answer: Callable[[Sequence[bytes], Sequence[Context], float], Sequence[bytes | None]]
    """Returns the answers to what came in, None for each that ``ServedMethod.call`` has to make; given besides the
    calls and how long the first of them is known to have waited, see `Call`."""


class ServedMethod(NamedTuple):
    """A method, as a transport serves it."""

    call: Call
    kept: Callable[[bytes, Context], bytes | None] | None = None
    """Returns an answer that is there already, as ``call`` would; None where that has to make it."""
    together: Together | None = None
    """Asked after ``kept``; None where every call is answered by itself."""
