"""The keeper's door: workers come by a socket, each for the snapshot it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from annserve.cache.bitmaps import BYTES_MAX
from annserve.domain.catalog import CatalogStore
from annserve.domain.fresh import FreshChange
from annserve.keeper.builds import IdRows
from annserve.keeper.frames import Frame, Header, read_frame
from annserve.keeper.keeper import Keeper
from annserve.keeper.link_server import WorkerConnection
from annserve.keeper.publication import Publication
from annserve.keeper.settings import KeeperSettings

_TURNS = 4
_logger = logging.getLogger(__name__)


class KeeperHub:
    """Keeps one publication for each snapshot that workers serve. One event loop uses it."""

    def __init__(
        self,
        store: CatalogStore | None,
        open_items: Callable[[str], IdRows],
        settings: KeeperSettings | None = None,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """Publish what ``store`` says of the items of snapshots.

        Args:
            store: The catalogue; without one, workers find topics here and no bitmaps.
            open_items: Gives the rows of the items of a snapshot by its id, at once: it holds the event loop. What it
                raises turns the worker away, which comes again.
            settings: How to go about it.
            bytes_max: How much to keep of the leaves of one snapshot, about.
        """
        self._store = store
        self._open_items = open_items
        self._settings = settings or KeeperSettings()
        self._bytes_max = bytes_max
        self._publications: dict[str, Publication] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}
        self._greeters: list[Callable[[str], Iterable[tuple[str, Header, bytes]]]] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    @property
    def keepers(self) -> Mapping[str, Keeper]:
        """The keepers at work, by snapshot id."""
        return {
            snapshot_id: publication.keeper
            for snapshot_id, publication in self._publications.items()
            if publication.keeper is not None
        }

    @property
    def snapshot_ids(self) -> Collection[str]:
        """Return the snapshots that workers serve, or did a moment ago."""
        return self._publications.keys()

    async def start(self, path: Path) -> None:
        """Take workers at the socket ``path``, in the place of one that is there.

        Raises:
            OSError: there can be no socket.
        """
        self._path = path
        self._server = await asyncio.start_unix_server(self._welcome, path)
        path.chmod(0o600)
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Let everybody go, and end all work."""
        server, self._server = self._server, None
        if server is not None and self._path is not None:
            # Nobody comes any more; who has come is let in first: asyncio trips over a door closed before them.
            self._path.unlink(missing_ok=True)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            server.close()
        under_way = {*self._connections, *filter(None, [self._beating])}
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        for timer in self._closing.values():
            timer.cancel()
        await asyncio.gather(*self._stops, *(publication.stop() for publication in self._publications.values()))
        self._publications.clear()

    def broadcast(self, topic: str, header: Header, payload: bytes = b"", snapshot_id: str | None = None) -> None:
        """Tell the workers, or those of one snapshot, what ``topic`` is about, in order with everything else."""
        told = [self._publications.get(snapshot_id)] if snapshot_id is not None else self._publications.values()
        frame = _topic(topic, header, payload).encoded()
        for publication in filter(None, told):
            publication.tell(frame)

    def add_rows(self, snapshot_id: str, changes: Iterable[FreshChange]) -> None:
        """Give the items of ``changes`` rows in the bitmaps of a snapshot, and read which of those they are in."""
        publication = self._publications.get(snapshot_id)
        if publication is not None:
            publication.add_rows(changes)

    def on_hello(self, greeter: Callable[[str], Iterable[tuple[str, Header, bytes]]]) -> None:
        """Have each worker that comes told what ``greeter`` returns for its snapshot id, before any broadcast.

        It returns topics, headers and payloads; an exception of it turns the worker away.
        """
        self._greeters.append(greeter)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._server is None:
            writer.transport.abort()  # It came while we went.
            return
        self._connections.add(task)
        name = "a worker"
        try:
            async with asyncio.timeout(self._settings.hello_seconds):
                hello = (await read_frame(reader)).header
            name = f"worker {hello['slot']} of {hello['snapshot_id']}"
            await self._serve(name, hello["snapshot_id"], reader, writer)
        except (EOFError, OSError, asyncio.CancelledError):
            pass  # It has gone, or we go.
        except Exception:
            _logger.exception("%s is let go", name)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(
        self, name: str, snapshot_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        publication = self._publication(snapshot_id)
        try:
            greeting = [Frame({"do": "welcome", "uses_seconds": self._uses_seconds()})]
            for greeter in self._greeters:
                greeting += [_topic(*told) for told in greeter(snapshot_id)]
            await WorkerConnection(name, reader, writer, publication, self._settings).serve(greeting)
        finally:
            if not publication.subscribers:
                self._close_later(snapshot_id)

    def _uses_seconds(self) -> float:
        return min(self._settings.uses_seconds, self._settings.ttl_seconds / 4)

    def _publication(self, snapshot_id: str) -> Publication:
        closing = self._closing.pop(snapshot_id, None)
        if closing is not None:
            closing.cancel()
        publication = self._publications.get(snapshot_id)
        if publication is None:
            publication = Publication(self._store, self._open_items(snapshot_id), self._settings, self._bytes_max)
            self._publications[snapshot_id] = publication
            publication.start()
            _logger.info("keeping snapshot %s", snapshot_id)
        return publication

    def _close_later(self, snapshot_id: str) -> None:
        def close() -> None:
            del self._closing[snapshot_id]
            publication = self._publications[snapshot_id]
            if not publication.subscribers:
                del self._publications[snapshot_id]
                stop = asyncio.create_task(publication.stop())
                self._stops.add(stop)
                stop.add_done_callback(self._stops.discard)
                _logger.info("snapshot %s is kept no longer: no worker serves it", snapshot_id)

        if snapshot_id not in self._closing:
            self._closing[snapshot_id] = asyncio.get_running_loop().call_later(self._settings.linger_seconds, close)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.beat_seconds)
            for publication in self._publications.values():
                publication.beat()


def _topic(topic: str, header: Header, payload: bytes) -> Frame:
    return Frame({"do": "topic", "topic": topic, "header": header}, payload)
