"""A program that serves a twin whose every answer waits for USR1; tests of signals start it.

Its argument is the transport. Writes the address, then ``entered`` for each question that reached the twin.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import nullcontext

from edge_twin import TwinRecommender

from annserve.domain.deadline import Deadline
from annserve.domain.query import Answer, Query
from annserve.service.server import Served, serve
from annserve.service.settings import ServerSettings


class WaitingTwin(TwinRecommender):
    def __init__(self) -> None:
        super().__init__(executor_threads=8)
        self.cost_us = 5_000.0
        self.gate = gate = threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: gate.set())

    def answered(self, query: Query, deadline: Deadline) -> Answer:
        tell("entered")
        return super().answered(query, deadline)


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(
        ServerSettings(
            address="127.0.0.1:0",
            transport=sys.argv[1],  # type: ignore[arg-type]
            deadline_max_ms=60_000,
            drain_grace_ms=60_000,
        ),
        nullcontext(Served(recommender=WaitingTwin())),
        tell,
    )
