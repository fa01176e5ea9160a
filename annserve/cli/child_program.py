"""What a child process of the supervisor reads of its one argument, and how it begins."""

from __future__ import annotations

import logging
import os
import sys
from typing import TypeVar

from setproctitle import setproctitle

from annserve.settings import Settings
from annserve.supervisor.orders import FLAG, KeeperOrders

Orders = TypeVar("Orders", bound=KeeperOrders)


def begun(kind: type[Orders], name: str) -> tuple[Orders, Settings]:
    """Return what the supervisor wants of this process, and the settings, which it inherits."""
    if len(sys.argv) != 3 or sys.argv[1] != FLAG:
        sys.exit(f"annserve's {name} is started by `annserve serve`, not by hand")
    setproctitle(f"annserve: {name}")
    # One thread of mathematics in each of several processes; and no threads before a fork.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format=f"%(asctime)s %(levelname)s {name} %(name)s: %(message)s")
    return kind.of(sys.argv[2]), settings
