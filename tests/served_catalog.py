"""A server on a MongoDB catalogue in a process of its own, and steady traffic on it: for tests and load tests."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pymongo import MongoClient

from annserve_client import Options, Recommendations, Similar, field
from annserve_client._gen.recommendation_service_pb2_grpc import RecommendationServiceStub
from annserve_client.convert import answer_of, message_of
from annserve_client.filters import Filter

DATABASE = "annserve_served"
START_SECONDS = 60.0
CALL_SECONDS = 0.3
"""The deadline of a call, as clients have it by default."""

_FIELDS = f"""
fields: {{price: number, in_stock: boolean}}
mongodb: {{database: {DATABASE}}}
"""

_NOTE_CONNECTIONS = """
import os, sys, time
log, port = os.open({knocks!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), {port}
def note(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][1] == port:
        os.write(log, b"%d %f\\n" % (os.getpid(), time.monotonic()))
sys.addaudithook(note)
"""
"""What each process of the instance runs first: refused attempts too are seen where they are made, nowhere else."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    address: str
    knocks: Path

    def knocks_between(self, begun: float, ended: float) -> dict[int, list[float]]:
        """Return when each of its processes tried to connect to MongoDB, within a time on the monotonic clock."""
        found: dict[int, list[float]] = {}
        for line in self.knocks.read_text().splitlines() if self.knocks.exists() else ():
            pid, moment = line.split()
            if begun <= float(moment) < ended:
                found.setdefault(int(pid), []).append(float(moment))
        return found


@contextmanager
def served(snapshots: Path, uri: str, folder: Path, **environment: str) -> Iterator[Served]:
    """Run `annserve serve` with the catalogue at ``uri``; ``folder`` is for what it says."""
    config, said, knocks = folder / "catalog.yaml", folder / "said.log", folder / "knocks.log"
    config.write_text(_FIELDS)
    match = re.match(r"mongodb://127\.0\.0\.1:(\d+)/", uri)
    port = match[1] if match else "0"
    start = folder / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(_NOTE_CONNECTIONS.format(knocks=str(knocks), port=port))
    command = [sys.executable, "-m", "annserve.cli", "serve", "--address", "127.0.0.1:0", "--workers", "1"]
    command += ["--snapshots", str(snapshots), "--catalog", uri, "--catalog-config", str(config)]
    elsewhere = {"ANNSERVE_OPS_ADDRESS": "127.0.0.1:0", "ANNSERVE_ADMIN_ADDRESS": "127.0.0.1:0"}
    surroundings = os.environ | elsewhere | environment | {"PYTHONPATH": str(start)}
    with said.open("w") as log, subprocess.Popen(command, stderr=log, env=surroundings) as process:
        try:
            yield Served(_bound(process, said), knocks)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_SECONDS)


def _bound(process: subprocess.Popen[bytes], said: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if match := re.search(r"^serving .* on (127\.0\.0\.1:\d+)$", said.read_text(), re.MULTILINE):
            return match[1]
        time.sleep(0.02)
    raise RuntimeError(f"annserve did not start:\n{said.read_text()}")


def load_items(uri: str, item_ids: Sequence[str]) -> None:
    """Write a document for each item: prices from 0 to 100 in no order, everything in stock."""
    prices = random.Random(0).sample(range(len(item_ids)), len(item_ids))
    with MongoClient[dict[str, Any]](uri) as client:
        items = client[DATABASE]["items"]
        items.delete_many({})
        items.insert_many(
            [
                {"_id": item_id, "price": 100.0 * price / len(item_ids), "in_stock": True}
                for item_id, price in zip(item_ids, prices, strict=True)
            ]
        )
        items.create_index([("price", 1), ("_id", 1)])
        items.create_index([("in_stock", 1), ("_id", 1)])


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one call."""

    kind: str
    begun: float
    seconds: float
    code: str
    degraded: bool


def unfiltered() -> Filter | None:
    """Ask for anything."""
    return None


def known_leaf() -> Filter | None:
    """Ask for the same half of all items every time."""
    return field("price") < 50


def unknown_leaf() -> Filter | None:
    """Ask for one in a hundred items, other ones every time."""
    price = 99 * random.random()
    return field("price").within(minimum=price, below=price + 1)


KINDS: Mapping[str, Callable[[], Filter | None]] = {
    "unfiltered": unfiltered,
    "known": known_leaf,
    "unknown": unknown_leaf,
}


class Traffic:
    """Calls at a steady rate whether or not earlier ones are answered; without the client's retries, which hide errors.

    Args:
        address: Of the server.
        item_ids: To ask about.
        rates: Calls a second of each of `KINDS`.
        timeout_seconds: The deadline of a call.
    """

    def __init__(
        self,
        address: str,
        item_ids: Sequence[str],
        rates: Mapping[str, float],
        timeout_seconds: float = CALL_SECONDS,
    ) -> None:
        self.calls: list[Call] = []
        self._timeout_seconds = timeout_seconds
        self._random = random.Random(1)
        self._item_ids = item_ids
        self._rates = rates
        self._under_way: set[asyncio.Task[object]] = set()
        options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(address, options)
        # What a request becomes is known to the converter alone.
        self._similar: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = RecommendationServiceStub(self._channel).Similar

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Call for the time of a block, and end what is under way after it."""
        tasks = [asyncio.create_task(self._flow(kind, rate)) for kind, rate in self._rates.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *self._under_way, return_exceptions=True)
            await self._channel.close()

    async def call(self, kind: str) -> Call:
        """Call once; what came of it is noted too."""
        request = Similar(item_ids=[self._random.choice(self._item_ids)], options=Options(filter=KINDS[kind]()))
        begun = time.monotonic()
        answer: Recommendations | None = None
        try:
            answer = answer_of(await self._similar(message_of(request), timeout=self._timeout_seconds))
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        call = Call(kind, begun, time.monotonic() - begun, code, answer is not None and bool(answer.degradations))
        self.calls.append(call)
        return call

    def of(self, kind: str, begun: float, ended: float) -> list[Call]:
        """Return the calls of a kind that were begun within a time on the monotonic clock."""
        return [call for call in self.calls if call.kind == kind and begun <= call.begun < ended]

    async def until_healthy(self, seconds: float) -> float:
        """Return when, on the monotonic clock, calls of all kinds were first answered with nothing missing."""
        async with asyncio.timeout(seconds):
            while True:
                begun = time.monotonic()
                calls = [await self.call(kind) for kind in KINDS]
                if all(call.code == "OK" and not call.degraded for call in calls):
                    return begun
                await asyncio.sleep(0.02)

    async def _flow(self, kind: str, rate: float) -> None:
        at = time.monotonic()
        while True:
            at += 1 / rate
            await asyncio.sleep(max(at - time.monotonic(), 0.0))
            task = asyncio.create_task(self.call(kind))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)


def codes(calls: Sequence[Call]) -> dict[str, int]:
    """Return how many calls ended with each status code."""
    return dict(Counter(call.code for call in calls))
