"""The keeper's side of one worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from typing import Any

from cachetools import TTLCache

from annserve.domain.errors import AnnserveError
from annserve.domain.filter import Leaf
from annserve.keeper.frames import Frame, encode_error, read_frame
from annserve.keeper.leaf_codec import decode_leaf
from annserve.keeper.publication import Publication
from annserve.keeper.settings import KeeperSettings

_LEAVES_FOLLOWED = 4_096
_logger = logging.getLogger(__name__)


class WorkerConnection:
    """A subscriber of a publication, and what it asks for."""

    def __init__(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        publication: Publication,
        settings: KeeperSettings,
    ) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer
        self._publication = publication
        self._room_bytes = settings.room_bytes
        self._backlog_bytes_max = settings.backlog_bytes_max
        self._allowance_bytes = math.inf
        """What it may have to read in excess of that, because it was greeted with so much."""
        self._wanted: TTLCache[Leaf, bool] = TTLCache(_LEAVES_FOLLOWED, settings.recent_seconds)
        """The leaves it used lately."""
        self._sent: set[Leaf | None] = set()
        """Those whose bitmap it has been sent, and is told of."""
        self._turn = asyncio.Lock()
        """Held by the one answer that waits until there is room for it."""
        self._answers: set[asyncio.Task[None]] = set()

    async def serve(self, greeting: Iterable[Frame]) -> None:
        """Send ``greeting`` and what is known, then answer until the worker leaves or is cut off."""
        publication = self._publication
        publication.flush()
        for frame in greeting:
            self._writer.write(frame.encoded())
        publication.subscribers[self] = None
        if publication.bitmaps.present is not None:
            publication.send_copy(self, None)
        self._writer.write(publication.state().encoded())
        self._allowance_bytes = self._unread_bytes()
        try:
            while True:
                self._hear((await read_frame(self._reader)).header)
        finally:
            del publication.subscribers[self]
            for answer in self._answers:
                answer.cancel()

    def send(self, frames: bytes) -> None:
        """Send encoded frames, or cut the worker off: it would know more and more too late."""
        if self._writer.is_closing():
            return
        self._writer.write(frames)
        unread_bytes = self._unread_bytes()
        if unread_bytes <= self._backlog_bytes_max:
            self._allowance_bytes = 0
        elif unread_bytes > self._backlog_bytes_max + self._allowance_bytes:
            _logger.warning("%s does not read: %d bytes wait for it; it is cut off", self._name, unread_bytes)
            self._writer.transport.abort()

    def wants(self, leaf: Leaf | None) -> bool:
        """Return whether it has used ``leaf`` lately, and there is room for it; the rows of all items it needs."""
        return leaf is None or (leaf in self._wanted and self._unread_bytes() < self._room_bytes)

    def sent(self, leaf: Leaf | None) -> None:
        """Note that it has the bitmap of ``leaf``."""
        self._sent.add(leaf)

    def dropped(self, leaf: Leaf | None) -> None:
        """Note that it has it no more."""
        self._sent.discard(leaf)

    def _unread_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def _hear(self, header: Any) -> None:
        match header["do"]:
            case "build":
                leaf = decode_leaf(header["leaf"])
                if leaf is not None:
                    self._wanted[leaf] = True
                if not header["here"]:
                    self._sent.discard(leaf)
                answer = asyncio.create_task(self._answer(header["ask"], leaf, header["since"]))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
            case "used":
                self._wanted.update(dict.fromkeys(self._publication.used(header["numbers"]), True))
            case unknown:
                raise ValueError(f"the worker asks for {unknown!r}")

    async def _answer(self, ask: int, leaf: Leaf | None, since: float) -> None:
        answer = {"do": "built", "ask": ask}
        try:
            built = await self._publication.build(leaf, since)
        except AnnserveError as error:
            self._say(Frame(answer | {"error": encode_error(error)}))
            return
        async with self._turn:
            with contextlib.suppress(OSError):  # It has gone, as whoever reads from it will learn.
                await self._writer.drain()
            if self._publication.known(leaf) is not built:
                # It was true when it was read, and is told of no changes.
                contents = {"read_at": built.read_at, "version": built.version}
                self._say(Frame(answer | contents, built.bitmap.serialize()))
            else:
                if leaf not in self._sent:
                    self._publication.send_copy(self, leaf)
                self._say(Frame(answer))

    def _say(self, frame: Frame) -> None:
        self._publication.flush()
        self.send(frame.encoded())
