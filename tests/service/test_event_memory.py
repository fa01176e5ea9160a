"""What waits to be written is bounded by the memory it takes, whatever its shape on the wire."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from annserve.catalog.file_events import FileEventStore
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import EventsUnavailableError
from annserve.domain.events import Event, Written
from annserve.service import event_queue
from annserve.service.call_handling import CallHandling
from annserve.service.event_queue import EventQueue
from annserve.service.event_servicer import EventServicer
from annserve.v1 import event_pb2 as messages
from annserve.v1 import event_service_pb2 as service_messages

BOUND_BYTES = 4 << 20


class HeldStore(FileEventStore):
    """Writes nothing until it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go_on = asyncio.Event()

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        await self.go_on.wait()
        return await super().write(events, deadline)


class Caller:
    """The context of a call without a deadline."""

    def time_remaining(self) -> float | None:
        return None


def message(number: int, **fields: Any) -> messages.Event:
    known: dict[str, Any] = {"type": messages.EVENT_TYPE_CLICK, "user_id": f"u{number}", "item_ids": [f"i{number}"]}
    return messages.Event(event_id=f"{number:06x}", **(known | fields))


PLACEMENT = {
    "name": "home",
    "version": "0123456789abcdef",
    "experiment": "variety",
    "variant": "plain",
    "mode": "similar",
}
SHAPES: dict[str, Callable[[int], messages.Event]] = {
    "as small as can be": message,
    "an impression": lambda number: message(
        number,
        item_ids=[f"{number + place}" for place in range(20)],
        context_item_ids=[f"{number}x"],
        placement=PLACEMENT | {"user_context_similarity": 0.25},
        attribution_token=f"{number:032x}",
        impression_id=f"{number:032x}",
    ),
    "many ids of two letters": lambda number: message(
        number, item_ids=[f"{(number + place) % 90 + 10}" for place in range(500)]
    ),
    "long ids in Korean": lambda number: message(
        number, item_ids=[f"{number}{'가' * 40}{place}" for place in range(20)]
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_more_memory_is_held_than_is_allowed(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "QUEUE_BYTES_MAX", BOUND_BYTES)
    store = HeldStore(tmp_path / "events.jsonl")
    queue = EventQueue(store, calls_max=1_000_000)
    servicer = EventServicer(queue, CallHandling("s", 60_000))
    caller: Any = Caller()
    requests = iter(range(10**6))
    calls: list[asyncio.Task[bytes]] = []
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    while not calls or not calls[-1].done():
        start = next(requests) * 50
        request = service_messages.WriteRequest(events=[SHAPES[shape](start + place) for place in range(50)])
        calls.append(asyncio.create_task(servicer.write(request.SerializeToString(), caller)))
        del request
        while not calls[-1].done() and queue._calls < len(calls):  # It is being read.
            await asyncio.sleep(0)
    assert isinstance(calls.pop().exception(), EventsUnavailableError)
    gc.collect()  # What was refused goes with its traceback.
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert 0.5 * BOUND_BYTES < held < 1.1 * BOUND_BYTES
    store.go_on.set()
    await asyncio.gather(*calls)
    await queue.close()
    await store.close()
