"""Writers of events that remember what was acknowledged to them: for tests and load tests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from threads import beside

from annserve_client import Client, Event, EventType
from annserve_client.errors import AnnserveError

USERS = 1_000


@dataclass(slots=True)
class EventLoad:
    """Threads that write events to an address as fast as they are acknowledged, an event with an id of its own each."""

    address: str
    writers: int = 8
    batch: int = 5
    acknowledged: list[str] = field(default_factory=list)
    """Their ids, as far as it is known that they are kept."""
    attempted: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """How long each call took that was acknowledged."""
    failures: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def going(self) -> Iterator[EventLoad]:
        """Write for the time of a block."""
        with beside(partial(self._write, number) for number in range(self.writers)):
            yield self

    def _write(self, writer: int, stopping: threading.Event) -> None:
        number = 0
        with Client(self.address) as client:
            while not stopping.is_set():
                events = [event(writer, number + place) for place in range(self.batch)]
                number += self.batch
                ids = [one.event_id for one in events]
                self.attempted += ids
                begun = time.monotonic()
                try:
                    client.write_events(events)
                except AnnserveError as error:
                    self.failures[error.reason or error.code.name] += 1
                    stopping.wait(0.02)
                else:
                    self.seconds.append(time.monotonic() - begun)
                    self.acknowledged += ids


def event(writer: int, number: int) -> Event:
    """Return one that no other call has."""
    name = f"{writer}-{number}"
    return Event(
        event_id=name,
        type=EventType.IMPRESSION if number % 5 else EventType.CLICK,
        user_id=f"user-{(writer * 7_919 + number) % USERS}",
        item_ids=[f"item-{(number * 31 + place) % 1_000}" for place in range(10 if number % 5 else 1)],
        impression_id=name,
    )
