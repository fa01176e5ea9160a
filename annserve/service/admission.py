"""Turning calls away for as little as can be, and saying when to come again.

What a call needs is known once it is read, so most are refused there: `engine.workbench` refuses what would wait for a
thread for too long, while what needs none is answered. Here are the bound of calls under way, and the reply.
"""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import Final, Never, TypeAlias

import grpc
from google.rpc import error_details_pb2

from annserve.domain.errors import OverloadedError
from annserve.service.calls import DETAILS
from annserve.service.context import Context
from annserve.service.status import status_of

_VARIANTS: Final = 16
"""Replies to choose from: callers that were refused together shall not come back together."""

_Reply: TypeAlias = tuple[str, tuple[tuple[str, str | bytes], ...]]


WAIT_SECONDS_MAX: Final = 0.02
"""How long a call may have waited for its turn, where that is known: later ones would wait as long for nothing."""


HELD_SECONDS: Final = 0.005
"""How long a refusal is held back: who asks again at once, whatever it says, takes the processor from those let in."""


class Admission:
    """Bounds how many calls a worker has under way, and how long they waited to be begun."""

    def __init__(self, calls_max: int) -> None:
        """Let in ``calls_max`` calls at a time."""
        self._calls_max = calls_max

    def check(self, calls_under_way: int, waited_seconds: float) -> None:
        """Raise OverloadedError when a call is one too many, itself included in ``calls_under_way``, or is late."""
        if calls_under_way > self._calls_max:
            raise OverloadedError(OverloadedError.CALLS)
        if waited_seconds > WAIT_SECONDS_MAX:
            raise OverloadedError(OverloadedError.TIME)


async def refuse(context: Context, error: OverloadedError) -> Never:
    """End a call as ``error`` says; without a request id, which takes as long to find out as the rest of this."""
    await asyncio.sleep(HELD_SECONDS)
    message, trailing_metadata = random.choice(_replies(error.metadata["cause"]))  # noqa: S311 - spread, not secrecy
    await context.abort(grpc.StatusCode.UNAVAILABLE, message, trailing_metadata)


@cache
def _replies(cause: str) -> list[_Reply]:
    return [_reply(OverloadedError(cause)) for _ in range(_VARIANTS)]


def _reply(error: OverloadedError) -> _Reply:
    status, retry = status_of(error, ""), error_details_pb2.RetryInfo()
    (detail,) = [detail for detail in status.details if detail.Is(retry.DESCRIPTOR)]
    detail.Unpack(retry)
    pushback_ms = str(retry.retry_delay.ToMilliseconds())
    details = status.SerializeToString()
    return status.message, ((DETAILS, details), ("grpc-retry-pushback-ms", pushback_ms))
