"""EventService: events are checked, and answered once they are durable."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from annserve.domain.errors import InvalidArgumentError
from annserve.domain.events import Event
from annserve.service.call_handling import CallHandling
from annserve.service.calls import decoder, encode
from annserve.service.context import Context, ServedMethod
from annserve.service.event_convert import events_of
from annserve.service.event_memory import held_bytes
from annserve.service.event_queue import EventQueue
from annserve.v1 import event_service_pb2 as messages

_READ_AT_ONCE: Final = 4

SERVICE_NAME: Final = messages.DESCRIPTOR.services_by_name["EventService"].full_name


class EventServicer:
    """Hands the events of calls to ``queue``."""

    def __init__(self, queue: EventQueue, handling: CallHandling) -> None:
        self._queue = queue
        self._handling = handling
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)

    def methods(self) -> dict[str, ServedMethod]:
        """Return what answers each method."""
        return {"Write": ServedMethod(self._handling.call(SERVICE_NAME, "Write", self.write))}

    async def write(self, data: bytes, context: Context) -> bytes:
        """Answer `EventService.Write`."""
        deadline = self._handling.deadline(context)
        request = decoder(messages.WriteRequest)(data)
        if isinstance(request, InvalidArgumentError):
            raise request
        # Events that nobody has room for need not be read.
        self._queue.check_room(len(request.events), len(data))
        events, size_bytes = await self._read(request, len(data))
        # What came in is the caller's to let go of, and what was decoded is not needed while events wait.
        del request
        written = await self._queue.write(events, size_bytes, deadline)
        return encode(
            messages.WriteResponse(accepted_count=written.accepted_count, duplicate_count=written.duplicate_count)
        )

    async def _read(self, request: messages.WriteRequest, request_bytes: int) -> tuple[list[Event], int]:
        """Return the events of ``request``, and how much memory they and its bytes take."""
        events: list[Event] = []
        size_bytes = request_bytes
        # Few at a time: what is being read is bounded by nothing else.
        async with self._reading:
            for step in events_of(request, time.time_ns() // 1_000_000):
                events += step
                size_bytes += held_bytes(step)
                await asyncio.sleep(0)
        return events, size_bytes
