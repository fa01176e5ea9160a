"""A worker's side of the keeper: a copy of its bitmaps, which follows it, and the reading of leaves by it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.errors import AnnserveError, CatalogUnavailableError
from annserve.domain.filter import Leaf
from annserve.keeper.frames import Frame, Header, decode_error, read_frame
from annserve.keeper.leaf_codec import encode_leaf
from annserve.keeper.replica import Replica
from annserve.keeper.settings import KeeperSettings

_TRIES = 8
_logger = logging.getLogger(__name__)


class KeeperLink:
    """Keeps ``bitmaps`` equal to what the keeper's were a moment ago; implements `engine.filters.LeafBuilder`.

    While the keeper is away, what is known is stale, and what is not known is unavailable. One event loop uses it.
    """

    def __init__(
        self,
        path: Path,
        snapshot_id: str,
        bitmaps: BitmapCache,
        listeners: Sequence[Callable[[Sequence[str]], None]] = (),
        lost_listeners: Sequence[Callable[[], None]] = (),
        *,
        slot: int = 0,
        settings: KeeperSettings | None = None,
    ) -> None:
        """Follow the keeper at the socket ``path``.

        Args:
            path: Where it takes workers.
            snapshot_id: What is served here.
            bitmaps: What to keep; written by nobody else.
            listeners: Told the ids of items that changed, before any bit flips.
            lost_listeners: Called when changes may have been missed.
            slot: What the worker is called.
            settings: How to go about it.
        """
        self._path = path
        self._hello = Frame({"do": "hello", "snapshot_id": snapshot_id, "slot": slot})
        self._bitmaps = bitmaps
        self._listeners = listeners
        self._lost_listeners = lost_listeners
        self._settings = settings or KeeperSettings()
        self._replica = Replica(bitmaps, self._settings.slice_seconds)
        self._topics: dict[str, Callable[[Header, bytes], None]] = {}
        self._next_ask = itertools.count().__next__
        self._asked: dict[int, tuple[Leaf | None, asyncio.Future[LeafBitmap]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._was_here = False
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the keeper is there."""
        return self._writer is not None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._bitmaps.stale = True
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End all work; whoever waits for a leaf gets CatalogUnavailableError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def subscribe(self, topic: str, callback: Callable[[Header, bytes], None]) -> None:
        """Have ``callback`` told what the keeper broadcasts of ``topic``; before `start`, to miss nothing.

        When the keeper comes back, what it greets its workers with is told anew.
        """
        self._topics[topic] = callback

    def build(self, leaf: Leaf | None, since: float = math.inf) -> asyncio.Future[LeafBitmap]:
        """Have the keeper read ``leaf``; see `Keeper.build`. The future is the caller's own."""
        outcome: asyncio.Future[LeafBitmap] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_heard)  # Nobody may be waiting, and then an error is no event.
        if self._writer is None:
            outcome.set_exception(_away())
            return outcome
        ask = self._next_ask()
        self._asked[ask] = (leaf, outcome)
        outcome.add_done_callback(lambda _: self._asked.pop(ask, None))
        question = {"do": "build", "ask": ask, "leaf": encode_leaf(leaf), "since": since, "here": leaf in self._replica}
        self._writer.write(Frame(question).encoded())
        return outcome

    async def _keep(self) -> None:
        settings, missed = self._settings, False
        while True:
            try:
                await self._follow()
            except (OSError, EOFError) as error:
                if self.connected or not missed:
                    # Both are started together, and it has more to do before it listens.
                    level = logging.WARNING if self._was_here else logging.INFO
                    _logger.log(level, "the keeper is away: %s", error if isinstance(error, OSError) else "it has gone")
                missed = True
                pause_seconds = settings.reconnect_seconds
            except Exception:
                _logger.exception("following the keeper failed")
                pause_seconds = settings.reconnect_seconds * 10
            finally:
                self._lose()
            await asyncio.sleep(pause_seconds)

    async def _follow(self) -> None:
        """Hear the keeper until it goes."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        helpers: list[asyncio.Task[None]] = []
        try:
            writer.write(self._hello.encoded())
            welcome = await self._next(reader)
            if welcome.header["do"] != "welcome":
                raise ValueError(f"the keeper begins with {welcome.header}")
            self._writer = writer
            self._was_here = True
            for listener in self._lost_listeners:
                listener()
            _logger.info("the keeper is here")
            helpers.append(asyncio.create_task(self._catch_up(self._replica.begin())))
            helpers.append(asyncio.create_task(self._report_uses(welcome.header["uses_seconds"], writer)))
            while True:
                await self._hear(await self._next(reader))
        finally:
            for helper in helpers:
                helper.cancel()
            writer.transport.abort()

    async def _next(self, reader: asyncio.StreamReader) -> Frame:
        # A keeper that says nothing at all follows nothing; it says something every `beat_seconds`.
        async with asyncio.timeout(self._settings.keeper_silence_seconds):
            return await read_frame(reader)

    async def _hear(self, frame: Frame) -> None:
        header = frame.header
        match header["do"]:
            case "flip":
                await self._replica.flip(frame.payload)
            case "state":
                self._replica.hear(header["synced_at"], header["stale"], header["has_gaps"])
            case "changed":
                for listener in self._listeners:
                    listener(header["item_ids"])
            case "put":
                self._replica.put(header, frame.payload)
            case "built":
                self._settle(header, frame.payload)
            case "drop":
                self._replica.drop(header["number"])
            case "lost":
                for lost_listener in self._lost_listeners:
                    lost_listener()
            case "topic":
                if callback := self._topics.get(header["topic"]):
                    callback(header["header"], frame.payload)
            case unknown:
                raise ValueError(f"the keeper says {unknown!r}")

    def _settle(self, header: Header, payload: bytes) -> None:
        leaf, outcome = self._asked.get(header["ask"], (None, None))
        if outcome is None or outcome.done():
            return
        if "error" in header:
            outcome.set_exception(decode_error(header["error"]))
        elif "version" in header:
            rows = BitMap.deserialize(payload)
            outcome.set_result(LeafBitmap(leaf=leaf, bitmap=rows, read_at=header["read_at"], version=header["version"]))
        elif (kept := self._bitmaps.peek(leaf)) is not None:
            outcome.set_result(kept)
        else:
            # It came, and was too large to be kept here, or had to give way at once.
            outcome.set_exception(CatalogUnavailableError("there is no room for what a filter needs"))

    async def _catch_up(self, leaves: Sequence[Leaf | None]) -> None:
        """Read again what is known from before, the leaves used lately; the rest is given up."""
        turns = asyncio.Semaphore(self._settings.builds_at_once)

        async def read_again(leaf: Leaf | None) -> None:
            tries = 0
            async with turns:
                while leaf not in self._replica and tries < _TRIES:
                    try:
                        await self.build(leaf, -math.inf)
                        tries += 1  # And yet it may not be here: a keeper that has just begun forgets what it read.
                    except CatalogUnavailableError:
                        pass  # What is known is better than nothing for as long as the catalogue is away too.
                    except AnnserveError:
                        return
                    if leaf not in self._replica:
                        await asyncio.sleep(self._settings.retry_seconds)

        await asyncio.gather(*map(read_again, leaves[: 1 + self._settings.rebuilds_max]))
        self._replica.caught_up()

    async def _report_uses(self, every_seconds: float, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            if numbers := self._replica.uses():
                writer.write(Frame({"do": "used", "numbers": numbers}).encoded())

    def _lose(self) -> None:
        self._writer = None
        self._replica.lose()
        for _, outcome in tuple(self._asked.values()):
            if not outcome.done():
                outcome.set_exception(_away())


def _away() -> CatalogUnavailableError:
    return CatalogUnavailableError("the keeper, which reads it, is away")


def _heard(future: asyncio.Future[LeafBitmap]) -> None:
    if not future.cancelled():
        future.exception()
