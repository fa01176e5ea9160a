"""The loader's program: what a loader is made of is imported out of the way of whoever answers calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from annserve.cli.background import LOADING_NICENESS, in_background

if TYPE_CHECKING:
    from annserve.cli.snapshot_loading import SnapshotLoader


def _made() -> SnapshotLoader:
    # Read as grpc is imported. Workers fork nobody, and its own handling of forks costs a lock a call.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # With it comes all that workers are made of.
    from annserve.cli.snapshot_loading import snapshot_loader

    return snapshot_loader()


if __name__ == "__main__":
    code = in_background(_made, LOADING_NICENESS).run()
    # Nothing is left to do, and much to take apart.
    os._exit(code)
