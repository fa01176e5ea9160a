"""Following the placements where they are kept, and telling workers of each set that nothing is wrong with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from annserve.domain.catalog import Schema
from annserve.domain.errors import CatalogUnavailableError, InputError
from annserve.domain.placements import PlacementSource, PlacementText
from annserve.keeper.frames import Header
from annserve.keeper.hub import KeeperHub
from annserve.keeper.placement_codec import TOPIC, decoded, encode_texts, encoded
from annserve.placements.loading import compiled_set
from annserve.placements.problems import PlacementsRefusedError, Problem
from annserve.placements.recipe import PlacementSet

RETRY_SECONDS = 0.5

_LOGGED_MAX = 10
_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class PlacementCounters:
    """How often placements were read, by outcome."""

    loaded: int = 0
    refused: int = 0
    """They were wrong, and what was there before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementsReport:
    """What placements there are, and what is wrong with those that are to replace them."""

    placements: PlacementSet
    loaded_at: float | None
    """Seconds since 1970; None before any."""
    problems: Sequence[Problem] = ()
    """Of what was read last; nothing of it is used while there are any."""


class PlacementFollower:
    """Tells the workers of ``hub`` which placements there are. One event loop uses it."""

    def __init__(self, source: PlacementSource, schema: Schema, hub: KeeperHub, kept: Path) -> None:
        """Follow ``source``.

        Args:
            source: Where they are.
            schema: The fields that they may name.
            hub: Where workers are told.
            kept: A file for the last set that nothing was wrong with: whoever comes after this process may find the
                source in a bad state.
        """
        self._source = source
        self._schema = schema
        self._hub = hub
        self._kept = kept
        self._texts: Sequence[PlacementText] | None = None
        self._report = PlacementsReport(placements=PlacementSet(), loaded_at=None)
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.counters = PlacementCounters()
        hub.on_hello(self._greet)

    @property
    def report(self) -> PlacementsReport:
        """How things are."""
        return self._report

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End all work."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def reload(self, *, validate_only: bool = False) -> PlacementsReport:
        """Read the source now, and use what is there unless something is wrong with it.

        Args:
            validate_only: Only look what is wrong; the report then tells of what is there as if it were used.

        Raises:
            InputError, CatalogUnavailableError: it cannot be read.
        """
        texts = await self._source.read()
        async with self._turn:
            if not validate_only:
                await self._take(texts)
                return self._report
            try:
                return PlacementsReport(placements=await self._compiled(texts), loaded_at=self._report.loaded_at)
            except PlacementsRefusedError as error:
                return self._with_problems(error.problems)

    async def _keep(self) -> None:
        await self._remember()
        while True:
            try:
                async with aclosing(self._source.follow()) as changes:
                    async for texts in changes:
                        async with self._turn:
                            await self._take(texts)
            except (InputError, CatalogUnavailableError) as error:
                if not self._report.problems:
                    _logger.error("placements are not followed: %s", error)
                self._report = self._with_problems([Problem(file="placements", text=error.message)])
            except Exception:
                _logger.exception("following placements failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _remember(self) -> None:
        """Begin with what was used before this process."""
        try:
            texts = decoded(await asyncio.to_thread(self._kept.read_bytes))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _logger.warning("the placements used before are lost: %s", error)
            return
        async with self._turn:
            await self._take(texts)

    async def _take(self, texts: Sequence[PlacementText]) -> None:
        """Use ``texts``, all of them, unless something is wrong with one."""
        try:
            placements = await self._compiled(texts)
        except PlacementsRefusedError as error:
            self.counters.refused += 1
            self._report = self._with_problems(error.problems)
            shown = "\n".join(map(str, error.problems[:_LOGGED_MAX]))
            _logger.error("placements stay as they were, %d problems:\n%s", len(error.problems), shown)
            return
        is_new = self._texts is None or placements.version != self._report.placements.version
        self._report = PlacementsReport(
            placements=placements, loaded_at=time.time() if is_new else self._report.loaded_at
        )
        if not is_new:
            return
        self.counters.loaded += 1
        self._texts = texts
        self._hub.broadcast(TOPIC, *encode_texts(texts, placements.version))
        _logger.info("%d placements: %s", len(placements.placements), ", ".join(sorted(placements.placements)))
        await asyncio.to_thread(self._write, encoded(texts))

    async def _compiled(self, texts: Sequence[PlacementText]) -> PlacementSet:
        return await asyncio.to_thread(compiled_set, texts, self._schema, self._report.placements)

    def _with_problems(self, problems: Sequence[Problem]) -> PlacementsReport:
        return PlacementsReport(
            placements=self._report.placements, loaded_at=self._report.loaded_at, problems=tuple(problems)
        )

    def _write(self, content: bytes) -> None:
        written = self._kept.with_suffix(".new")
        try:
            written.write_bytes(content)
            written.replace(self._kept)
        except OSError as error:
            _logger.warning("placements are not kept for a keeper after this one: %s", error)

    def _greet(self, _snapshot_id: str) -> Iterable[tuple[str, Header, bytes]]:
        if self._texts is None:
            return []
        return [(TOPIC, *encode_texts(self._texts, self._report.placements.version))]
