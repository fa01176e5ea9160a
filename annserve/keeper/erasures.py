"""Erasures as the keeper follows and tells them, and as workers hear of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from annserve.domain.erasure import ErasedUsers, Erasure, ErasureStore
from annserve.domain.errors import CatalogUnavailableError
from annserve.keeper.frames import Header
from annserve.keeper.hub import KeeperHub

TOPIC: Final = "erased"
LOOK_SECONDS: Final = 0.5
"""How often it is looked whether another instance, or a command, has erased somebody."""
WAIT_SECONDS: Final = 5.0
"""How long a server waits, before it answers, to learn of them."""
_LATE_MS: Final = 60_000
"""How much earlier than it became visible an erasure may say that it was: clocks differ, writes take time."""

_logger = logging.getLogger(__name__)


class ErasureFollower:
    """Tells the workers of ``hub`` of the erasures in ``store``. One event loop uses it."""

    def __init__(self, store: ErasureStore, hub: KeeperHub) -> None:
        self._store = store
        self._hub = hub
        self._known = ErasedUsers()
        self._has_read = False
        self._following: asyncio.Task[None] | None = None
        hub.on_hello(self._greet)

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End all work."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})

    def tell(self, erasures: Sequence[Erasure]) -> None:
        """Have all workers know of ``erasures``."""
        if self._known.add(erasures):
            self._hub.broadcast(TOPIC, _encoded(erasures))

    async def _follow(self) -> None:
        read_from_ms, is_told = 0, False
        while True:
            try:
                erasures = await self._store.since(read_from_ms)
            except CatalogUnavailableError as error:
                # Once, not at every attempt: an outage may last, and the log is read then.
                if not is_told:
                    _logger.warning("erasures of users are not followed: %s", error)
                is_told = True
            except Exception:
                _logger.exception("following erasures of users failed")
            else:
                if is_told:
                    _logger.info("erasures of users are followed again")
                is_told = False
                if self._has_read:
                    self.tell(erasures)
                else:
                    # Who came meanwhile was told nothing, neither of these nor of any that this keeper was asked for.
                    self._known.add(erasures)
                    self._has_read = True
                    self._hub.broadcast(TOPIC, _encoded(self._known.all()))
                read_from_ms = max([read_from_ms, *(one.erased_ms - _LATE_MS for one in erasures)])
            await asyncio.sleep(LOOK_SECONDS)

    def _greet(self, _snapshot_id: str) -> Iterable[tuple[str, Header, bytes]]:
        return [(TOPIC, _encoded(self._known.all()), b"")] if self._has_read else ()


class ErasureNews:
    """A worker's side: what the keeper tells is added to ``erased``."""

    def __init__(self, erased: ErasedUsers, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever somebody was erased."""
        self._erased = erased
        self._listener = listener
        self._told = asyncio.Event()

    async def wait(self) -> None:
        """Return when all there is has been told, or after `WAIT_SECONDS`."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._told.wait()
        except TimeoutError:
            _logger.warning("nothing is known of erased users yet: serving without that")

    def hear(self, header: Header, _payload: bytes) -> None:
        """Apply what the keeper broadcasts of `TOPIC`."""
        erasures = [Erasure(digest=digest, erased_ms=erased_ms) for digest, erased_ms in header["erased"]]
        if self._erased.add(erasures):
            self._listener()
        self._told.set()


def _encoded(erasures: Sequence[Erasure]) -> Header:
    return {"erased": [[one.digest, one.erased_ms] for one in erasures]}
