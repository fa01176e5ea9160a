"""A worker's side of placements: what the keeper tells of is compiled, and replaces what was there in one step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from annserve.domain.catalog import Schema
from annserve.domain.errors import InstanceUnavailableError
from annserve.domain.placements import PlacementText
from annserve.keeper.frames import Header
from annserve.keeper.placement_codec import decode_texts
from annserve.placements.loading import compiled_set
from annserve.placements.problems import PlacementsRefusedError
from annserve.placements.recipe import PlacementSet

WAIT_SECONDS = 10.0
"""How long a server waits, before it answers, to be told of its placements."""
COMPILE_SECONDS = 60.0
"""How long it waits for them to be compiled: a thousand take some seconds."""

_logger = logging.getLogger(__name__)


class PlacementNewsReader:
    """Knows the placements that there are. One event loop uses it; any thread may look at `current`."""

    def __init__(self, schema: Schema) -> None:
        """Compile what is told of by the fields of ``schema``."""
        self._schema = schema
        self._current = PlacementSet()
        self._latest: Sequence[PlacementText] | None = None
        """What was told last and is not compiled yet."""
        self._work: asyncio.Task[None] | None = None
        self._told, self._known = asyncio.Event(), asyncio.Event()

    @property
    def current(self) -> PlacementSet:
        """Those of now: replaced as a whole, never changed."""
        return self._current

    def known(self) -> PlacementSet:
        """Return `current` for whoever asks for one of them.

        Raises:
            InstanceUnavailableError: none was ever known here: one that is not there may be elsewhere, and soon here.
        """
        if not self._known.is_set():
            raise InstanceUnavailableError("its keeper has not told this worker of placements yet")
        return self._current

    def hear(self, header: Header, payload: bytes) -> None:
        """Take what the keeper broadcasts of `placement_codec.TOPIC`."""
        self._latest = decode_texts(header, payload)
        self._told.set()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._compile())

    async def wait(self) -> None:
        """Return when they are known, or after `WAIT_SECONDS` when nothing is told of them."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._told.wait()
            async with asyncio.timeout(COMPILE_SECONDS):
                await self._known.wait()
        except TimeoutError:
            _logger.warning("nothing is known of placements yet: serving without them")

    async def _compile(self) -> None:
        while (texts := self._latest) is not None:
            self._latest = None
            try:
                # Not on the event loop: calls are answered meanwhile by what was there.
                placements = await asyncio.to_thread(compiled_set, texts, self._schema, self._current)
            except PlacementsRefusedError as error:
                _logger.error("placements of the keeper cannot be used here:\n%s", error)
                continue
            except Exception:
                _logger.exception("compiling placements failed")
                continue
            # What came meanwhile is newer.
            if self._latest is None:
                self._current = placements
                self._known.set()
