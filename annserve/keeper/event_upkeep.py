"""Keeping the store of events fit: its indexes there, what is too old gone."""

from __future__ import annotations

import asyncio
import logging

from annserve.domain.errors import AnnserveError
from annserve.domain.events import EventStore

EVERY_SECONDS = 86_400.0
RETRY_SECONDS = 30.0

_logger = logging.getLogger(__name__)


async def keep_up(store: EventStore, keep_days: int) -> None:
    """Have ``store`` drop what is older than ``keep_days``, once a day until cancelled."""
    while True:
        try:
            await store.maintain(keep_days)
        except AnnserveError as error:
            _logger.warning("events are not looked after: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            await asyncio.sleep(EVERY_SECONDS)
