"""A worker: one process of an instance that answers calls."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable

from setproctitle import setproctitle

from annserve.cli.background import NICENESS, in_background
from annserve.domain.errors import AnnserveError
from annserve.settings import Settings
from annserve.snapshot.snapshot import Snapshot
from annserve.supervisor.loader import Post


def _imported() -> Callable[[Snapshot, Post, Settings], None]:
    # Only after the fork: grpc and pymongo have threads, which none carries over.
    from annserve.cli.serving_worker import serve_worker

    return serve_worker


def work(snapshot: Snapshot, post: Post, settings: Settings) -> None:
    """Answer from ``snapshot``, which was loaded before the fork, until told to leave."""
    setproctitle(f"annserve: worker {post.slot}, {snapshot.id}")
    # One that hangs is told to abort, and says where it hung.
    faulthandler.enable()
    # The worker forks nobody; grpc's own handling of forks costs a lock a call.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # Others may be answering calls on the same processors: half a second of imports is more than they should feel.
    serve_worker = in_background(_imported, NICENESS)
    try:
        serve_worker(snapshot, post, settings)
    except (AnnserveError, OSError) as error:
        sys.stderr.write(f"annserve: worker {post.slot} cannot serve: {error}\n")
        sys.exit(1)
