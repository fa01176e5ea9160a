"""A worker's side of fresh items: what the keeper tells of them is applied as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from annserve.domain.fresh import FreshChange
from annserve.engine.fresh_state import FreshState
from annserve.keeper.frames import Header
from annserve.keeper.fresh_codec import decode_news

WAIT_SECONDS = 5.0
"""How long a server waits, before it answers, to learn of fresh items."""

_logger = logging.getLogger(__name__)


class FreshNewsReader:
    """Applies news to ``fresh``, and hands the changes to ``listener``. One event loop uses it."""

    def __init__(self, fresh: FreshState, listener: Callable[[Sequence[FreshChange]], None] | None = None) -> None:
        self._fresh = fresh
        self._listener = listener
        self._told = asyncio.Event()

    def hear(self, header: Header, payload: bytes) -> None:
        """Apply what the keeper broadcasts of `fresh_codec.TOPIC`."""
        news = decode_news(header, payload)
        # Bitmaps first: an item without a row in them passes no filter, and one that no answer has does no harm there.
        if self._listener is not None:
            self._listener(news.changes)
        if news.is_all:
            self._fresh.begin(news.changes, news.version)
        else:
            self._fresh.apply(news.changes, news.version)
        self._told.set()

    async def wait(self) -> None:
        """Return when all there is has been told, or after `WAIT_SECONDS`."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._told.wait()
        except TimeoutError:
            _logger.warning("nothing is known of fresh items yet: serving without them")
