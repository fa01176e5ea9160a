"""The rooms of a server, joined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from annserve.domain.ports import Recommender
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot


@asynccontextmanager
async def opened_recommender(snapshot: Snapshot, settings: Settings) -> AsyncIterator[Recommender]:
    """Give what answers from ``snapshot``."""
    executor = ThreadPoolExecutor(settings.executor_threads, thread_name_prefix="annserve-search")
    try:
        yield PlainRecommender(SnapshotRecommender(snapshot), Workbench(executor))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
