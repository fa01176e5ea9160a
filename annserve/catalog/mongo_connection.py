"""The way to MongoDB: every call bounded in time and number, and refused at once while nobody is there.

The driver alone would wait for a server to turn up (at least 0.5 s, and knocking meanwhile), and replace connections as
fast as calls are given up. So calls are made only when its monitor, which knocks once a second, knows a server; a
caller whose time is up leaves while the call goes on to the end of its own time, so that its connection stays whole;
and after an unanswered call, or a few bad answers in a row, only the breaker's probe goes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import AsyncMongoClient
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ExecutionTimeout, PyMongoError
from pymongo.uri_parser import parse_uri
from pymongo.uri_parser_shared import SRV_SCHEME

from annserve.catalog.breaker import Breaker
from annserve.catalog.mongo_errors import is_silence, problem_of
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError, InputError

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")

HEARTBEAT_MS = 1_000
"""How often a server is looked at, and knocked at when it is gone.

When the driver's monitor finds that out it knocks twice at once, beside a call or two that were about to connect: up to
four attempts in that second. No option changes it; streaming would cost a second knock every heartbeat for as long as
the server is away, for its round-trip times. The driver waits in steps of half a second, so 900 would mean the same.
"""
HEARTBEAT_MS_PER_SERVER = 500
"""How long at least from server to server, so that a whole deployment is knocked at no more than twice a second."""
CONNECT_MS = 750
"""How long a knock waits for an answer: with the pause after it, less than two seconds to notice a server's return."""
IDLE_MS = 60_000
"""How long a connection lies idle before another takes its place: firewalls forget them without a word."""
SLOW_FACTOR = 20
"""How many times the time of a look-up a batch of bulk work may take."""
SLOW_CALLS = 2
WRITES = 2
"""Batches of events that are written at once."""
WRITE_FACTOR = 4
"""How many times the time of a look-up such a batch may take: a majority has to have it in its journal."""
STREAMS = 3
"""Connections that streams of changes hold: of the catalogue, of fresh items, of placements."""
MARGIN_SECONDS = 0.005
"""What is left of a caller's deadline for what it does with the answer, or without."""
GRACE_SECONDS = 0.1
"""How long after its time a server that is alive has said so."""
LOOK_SECONDS = 0.01
"""How often whoever waits looks whether the monitor found a server."""
JUDGE_SECONDS = 3.0
"""How long the first call waits to learn whether there is a server, look-ups aside, whose own time is shorter.

That is known after a knock and its answer, twice `CONNECT_MS` at most, and the finding of a name before them.
"""

# Any int64 of milliseconds is a date to MongoDB, and years beyond 9999 must not break reading.
CODEC: CodecOptions[Json] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler="replace"
)


@dataclass(slots=True)
class StoreCounters:
    """What the store did since it was made, counted."""

    calls: int = 0
    """Commands sent, a batch of a cursor each."""
    errors: int = 0
    timeouts: int = 0
    """Calls whose time was up before they were answered."""
    refused: int = 0
    """Calls not made, as nobody would have answered."""
    documents: int = 0
    bytes: int = 0
    """Of documents read, as BSON."""
    breaker_openings: int = 0


class Lane(Enum):
    """Kinds of calls, each bounded by itself so that none takes the connections of the other."""

    LOOK_UP = "look-up"
    """What a request waits for."""
    BULK = "bulk"
    """Reading or writing very much, a batch at a time."""
    WRITE = "write"
    """What many callers wait for until a majority has it."""


class MongoConnection:
    """A client of a MongoDB deployment, made in and for one event loop; it connects at the first call.

    Args:
        uri: ``mongodb://`` or ``mongodb+srv://``; those of its options that this module relies on are overruled.
        database: The database's name.
        pool_size: Look-ups at once.
        timeout_seconds: The longest a look-up may take.
    """

    def __init__(self, uri: str, database: str, pool_size: int, timeout_seconds: float) -> None:
        self.counters = StoreCounters()
        self.timeout_seconds = timeout_seconds
        try:
            self._client: AsyncMongoClient[Json] = AsyncMongoClient(
                uri,
                appname="annserve",
                maxPoolSize=pool_size + SLOW_CALLS + WRITES + STREAMS,
                maxIdleTimeMS=IDLE_MS,
                # When a server goes, one call finds out by knocking, and not two.
                maxConnecting=1,
                heartbeatFrequencyMS=max(HEARTBEAT_MS, HEARTBEAT_MS_PER_SERVER * _server_count(uri)),
                serverMonitoringMode="poll",
                connectTimeoutMS=CONNECT_MS,
                # Whoever waits for a server has the monitor knock more often: nobody does.
                serverSelectionTimeoutMS=0,
                waitQueueTimeoutMS=round(timeout_seconds * 1_000),
                readPreference="primaryPreferred",
                retryReads=False,
                connect=False,
            )
        except (PyMongoError, ValueError, OSError) as error:
            problem = f"the address of MongoDB cannot be used ({type(error).__name__}); it is mongodb://host:port"
            raise InputError(problem) from None
        self.database: AsyncDatabase[Json] = self._client.get_database(database, codec_options=CODEC)
        self._lanes = {
            Lane.LOOK_UP: (asyncio.Semaphore(pool_size), timeout_seconds),
            Lane.BULK: (asyncio.Semaphore(SLOW_CALLS), timeout_seconds * SLOW_FACTOR),
            Lane.WRITE: (asyncio.Semaphore(WRITES), timeout_seconds * WRITE_FACTOR),
        }
        self._breaker = Breaker(self._probe)
        self._opening: asyncio.Task[None] | None = None
        self._open_again_at = 0.0
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def available(self) -> bool:
        """Whether a call would be made; True before the first."""
        if self._opening_failed:
            return time.monotonic() >= self._open_again_at
        return not self._breaker.is_open and (self.has_server() or not self._judged)

    def has_server(self, primary: bool = False) -> bool:
        """Return whether the monitor knows a server that can be read from, or, for ``primary``, written to."""
        servers = self._client.topology_description.server_descriptions().values()
        return any(server.is_writable if primary else server.is_readable for server in servers)

    async def ask(
        self,
        call: Callable[[int], Awaitable[T]],
        deadline: Deadline = NO_DEADLINE,
        lane: Lane = Lane.LOOK_UP,
        primary: bool = False,
        seconds: float | None = None,
    ) -> T:
        """Return what ``call`` returns; it is given the milliseconds that the server may take.

        Raises:
            CatalogUnavailableError: there is no server, or no answer within the lane's time, or none of use.
            DeadlineExceededError: the deadline comes first.
        """
        lane_places, lane_seconds = self._lanes[lane]
        seconds = seconds or lane_seconds
        until = min(deadline.at - MARGIN_SECONDS, time.monotonic() + seconds)
        await self._check_reachable(until, deadline, primary)
        try:
            async with asyncio.timeout(_left(until, deadline)):
                await lane_places.acquire()
        except TimeoutError:
            self.counters.timeouts += 1
            raise _too_late(deadline, "every connection is busy") from None
        try:
            # What was known before the wait may be over.
            self._check_answering(primary)
            left = _left(until, deadline)
        except (CatalogUnavailableError, DeadlineExceededError):
            lane_places.release()
            raise
        task = asyncio.create_task(self._made(call, left, seconds, lane_places))
        self._calls.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=left)
        if not done:
            self.counters.timeouts += 1
            raise _too_late(deadline, "no answer in time")
        if isinstance(task.exception(), TimeoutError):
            raise _too_late(deadline, "no answer in time") from None
        return task.result()

    async def wait_for_server(self, seconds: float) -> None:
        """Return once there is a server that answers.

        Raises:
            CatalogUnavailableError: there is none after so many seconds.
        """
        if not self._judged:
            await self._wait_for_judgement(time.monotonic() + JUDGE_SECONDS, NO_DEADLINE)
        until = time.monotonic() + seconds
        while self._breaker.is_open or not self.has_server():
            if time.monotonic() >= until:
                raise CatalogUnavailableError("no server of it is reachable")
            await asyncio.sleep(LOOK_SECONDS)

    def abandon(self, cursor: AsyncCursor[Json]) -> None:
        """Tell the server that nobody will read on, without waiting for it."""
        task = asyncio.create_task(self._closed(cursor))
        self._calls.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """End what is under way and disconnect."""
        await self._breaker.close()
        under_way = [*self._calls, *([self._opening] if self._opening else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.close()

    async def _closed(self, cursor: AsyncCursor[Json]) -> None:
        with contextlib.suppress(PyMongoError, OSError, TimeoutError):
            async with asyncio.timeout(self.timeout_seconds):
                await cursor.close()

    async def _made(
        self, call: Callable[[int], Awaitable[T]], left: float, seconds: float, lane_places: asyncio.Semaphore
    ) -> T:
        """Make the call, and tell the breaker how it went, whether or not somebody still waits for it."""
        self.counters.calls += 1
        try:
            async with asyncio.timeout(last_resort(seconds)):
                result = await call(max(1, round(left * 1_000)))
        except TimeoutError:
            self._breaker.open()
            raise
        except ExecutionTimeout:
            # A short deadline of the caller's says nothing about the server.
            if left >= seconds * 0.9:
                self._breaker.failed()
            raise TimeoutError from None
        except (PyMongoError, BSONError, OSError) as error:
            self.counters.errors += 1
            if is_silence(error):
                self._breaker.failed()
            raise CatalogUnavailableError(problem_of(error)) from error
        finally:
            lane_places.release()
            self.counters.breaker_openings = self._breaker.openings
        self._breaker.succeeded()
        return result

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        # Looked at, so that asyncio does not complain of errors nobody waited for.
        if not task.cancelled():
            task.exception()

    async def _check_reachable(self, until: float, deadline: Deadline, primary: bool) -> None:
        if not self._judged:
            await self._wait_for_judgement(min(until, time.monotonic() + JUDGE_SECONDS), deadline)
        self._check_answering(primary)

    def _check_answering(self, primary: bool) -> None:
        if self._breaker.is_open:
            self.counters.refused += 1
            raise CatalogUnavailableError("it did not answer lately")
        if not self.has_server(primary):
            self.counters.refused += 1
            raise CatalogUnavailableError("no server of it is reachable")

    @property
    def _judged(self) -> bool:
        """Whether every server was looked at once, or one was found."""
        if self._opening is None or not self._opening.done() or self._opening_failed:
            return False
        servers = self._client.topology_description.server_descriptions().values()
        return self.has_server() or all(server.error or server.is_server_type_known for server in servers)

    @property
    def _opening_failed(self) -> bool:
        """Whether the driver could not even begin: a name that leads nowhere."""
        opening = self._opening
        return opening is not None and opening.done() and (opening.cancelled() or opening.exception() is not None)

    async def _wait_for_judgement(self, until: float, deadline: Deadline) -> None:
        if self._opening is None or (self._opening_failed and time.monotonic() >= self._open_again_at):
            self._open_again_at = time.monotonic() + HEARTBEAT_MS / 1_000
            self._opening = asyncio.create_task(self._client.aconnect())
        try:
            async with asyncio.timeout(_left(until, deadline)):
                # Shielded: it is everybody's.
                await asyncio.shield(self._opening)
                while not self._judged:
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise _too_late(deadline, "no server of it is reachable") from None
        except (PyMongoError, OSError) as error:
            raise CatalogUnavailableError(problem_of(error)) from error

    async def _probe(self) -> bool:
        # Without a server the monitor is knocking already.
        while not self.has_server():
            await asyncio.sleep(LOOK_SECONDS)
        try:
            async with asyncio.timeout(last_resort(self.timeout_seconds)):
                await self.database.command("ping")
        except (PyMongoError, OSError, TimeoutError):
            return False
        return True


def last_resort(seconds: float) -> float:
    """Return when to cut off a call that may take ``seconds``: after the server and the driver had time to end it.

    A driver that is cut off while it connects leaves its socket to the garbage collector.
    """
    return max(seconds, CONNECT_MS / 1_000) + GRACE_SECONDS


def _server_count(uri: str) -> int:
    """Return how many servers ``uri`` names; a DNS record (``+srv``) commonly names three."""
    return 3 if uri.startswith(SRV_SCHEME) else len(parse_uri(uri)["nodelist"])


def _left(until: float, deadline: Deadline) -> float:
    """Return the seconds until then, which are more than none."""
    left = until - time.monotonic()
    if left <= 0:
        raise _too_late(deadline, "no answer in time")
    return left


def _too_late(deadline: Deadline, problem: str) -> DeadlineExceededError | CatalogUnavailableError:
    """Return what to raise: whose time is up, the caller's or the store's?"""
    if time.monotonic() >= deadline.at - 2 * MARGIN_SECONDS:
        return DeadlineExceededError("a look-up in the catalogue")
    return CatalogUnavailableError(problem)
