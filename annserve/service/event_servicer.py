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
from annserve.service.event_queue import EventQueue
from annserve.v1 import event_service_pb2 as messages

SERVICE_NAME: Final = messages.DESCRIPTOR.services_by_name["EventService"].full_name


class EventServicer:
    """Hands the events of calls to ``queue``."""

    def __init__(self, queue: EventQueue, handling: CallHandling) -> None:
        self._queue = queue
        self._handling = handling

    def methods(self) -> dict[str, ServedMethod]:
        """Return what answers each method."""
        return {"Write": ServedMethod(self._handling.call(SERVICE_NAME, "Write", self.write))}

    async def write(self, data: bytes, context: Context) -> bytes:
        """Answer `EventService.Write`."""
        deadline = self._handling.deadline(context)
        request = decoder(messages.WriteRequest)(data)
        if isinstance(request, InvalidArgumentError):
            raise request
        events: list[Event] = []
        for step in events_of(request, time.time_ns() // 1_000_000):
            events += step
            await asyncio.sleep(0)
        written = await self._queue.write(events, len(data), deadline)
        return encode(
            messages.WriteResponse(accepted_count=written.accepted_count, duplicate_count=written.duplicate_count)
        )
