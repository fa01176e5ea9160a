"""What a worker is made of."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from annserve.cache.shared import SharedCache
from annserve.cli.catalog_source import catalog_source
from annserve.cli.composition import KeeperPlace, opened_service
from annserve.cli.placement_source import has_placements, schema_of
from annserve.cli.securing import is_reflected, security_of
from annserve.keeper import placement_codec
from annserve.keeper.placement_news import PlacementNewsReader
from annserve.placements.recipe import PlacementSet
from annserve.service import warming
from annserve.service.logs import configure_logs
from annserve.service.metrics import Metrics, share_metrics
from annserve.service.process_metrics import follow_process
from annserve.service.server import Served, Server, serve
from annserve.service.settings import ServerSettings
from annserve.service.warming import HotRequests
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot
from annserve.supervisor.attendance import attend_worker
from annserve.supervisor.loader import Post

if TYPE_CHECKING:
    from annserve.service.traces import Traces


def _traces(settings: Settings, slot: int) -> Traces | None:
    if not settings.traces:
        return None
    from annserve import __version__
    from annserve.service.traces import Traces

    return Traces(__version__, f"{socket.gethostname()}:{slot}")


@asynccontextmanager
async def _knowing(
    placements: PlacementNewsReader | None, opening: AbstractAsyncContextManager[Served]
) -> AsyncIterator[Served]:
    """Give what ``opening`` does once ``placements`` are known."""
    async with opening as served:
        if placements is not None:
            await placements.wait()
        yield served


def serve_worker(snapshot: Snapshot, post: Post, settings: Settings) -> None:
    """Serve on the instance's port until told to leave, then drain."""
    orders = post.orders
    # Only now, for the same reason: it has a thread.
    log = configure_logs(f"worker {post.slot}", settings.log_level, settings.log_format, in_thread=True)
    server_settings = ServerSettings(
        address=orders.address,
        transport=settings.transport,
        deadline_max_ms=settings.deadline_max_ms,
        drain_grace_ms=settings.drain_grace_ms,
        answer_ttl_ms=settings.answer_ttl_ms,
        personal_answer_ttl_ms=settings.personal_answer_ttl_ms,
        reflection=is_reflected(settings, orders.address),
        security=security_of(settings),
        calls_max=settings.calls_max,
        log_share=settings.log_share,
        socket_folder=orders.runtime_folder,
        is_worker=True,
    )
    hot = HotRequests()
    source = catalog_source(None, None)
    placements = PlacementNewsReader(schema_of(source)) if has_placements(settings) else None
    topics = {warming.TOPIC: hot.hear}
    if placements is not None:
        topics[placement_codec.TOPIC] = placements.hear
    keeper = KeeperPlace(socket=orders.runtime_folder / "keeper.sock", slot=post.slot, topics=topics)

    async def attend(server: Server) -> None:
        await attend_worker(
            post,
            calls=lambda: server.calls_under_way,
            tell_health=lambda is_healthy: server.set_health(is_serving=is_healthy),
        )

    # Named by slot: whoever comes after this process in it counts on where it ended.
    share_metrics(orders.runtime_folder / "metrics", str(post.slot))
    cache = SharedCache(orders.runtime_folder / "cache" if settings.shared_cache else None)
    metrics = Metrics()
    if log is not None:
        metrics.follow_counts(
            "annserve_log_dropped", "Lines that did not fit.", "process", {str(post.slot): lambda: log.dropped_count}
        )
    follow_process(metrics, str(post.slot))
    opening = opened_service(
        snapshot,
        settings,
        source,
        keeper,
        metrics,
        cache,
        PlacementSet if placements is None else placements.known,
    )
    opened = _knowing(placements, opening)
    try:
        serve(
            server_settings,
            opened,
            attend=attend,
            cache=cache,
            metrics=metrics,
            hot_requests=lambda: hot.requests,
            traces=_traces(settings, post.slot),
        )
    finally:
        logging.shutdown()
