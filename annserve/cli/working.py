"""A worker: one process of an instance that answers calls."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

from setproctitle import setproctitle

from annserve.cli.catalog_source import MONGODB_SCHEMES
from annserve.cli.serving_worker import serve_worker
from annserve.domain.errors import AnnserveError
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot
from annserve.supervisor.loader import Post


def import_parts(settings: Settings) -> None:
    """Import what ``settings`` make a worker consist of besides."""
    if settings.catalog is not None:
        is_mongodb = settings.catalog.get_secret_value().startswith(MONGODB_SCHEMES)
        importlib.import_module(f"annserve.catalog.{'mongo' if is_mongodb else 'file'}_store")
    if settings.transport != "grpcio" and find_spec("pygrpc_native") is not None:
        importlib.import_module("annserve.service.native_transport")
    if settings.traces:
        importlib.import_module("annserve.service.traces")


def work(snapshot: Snapshot, post: Post, settings: Settings) -> None:
    """Answer from ``snapshot``, which was loaded before the fork, until told to leave."""
    setproctitle(f"annserve: worker {post.slot}, {snapshot.id}")
    try:
        serve_worker(snapshot, post, settings)
    except (AnnserveError, OSError) as error:
        sys.stderr.write(f"annserve: worker {post.slot} cannot serve: {error}\n")
        sys.exit(1)
