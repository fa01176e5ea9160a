"""What a child process of the supervisor reads of its one argument, and how it begins."""

from __future__ import annotations

import faulthandler
import sys
from typing import TypeVar

from setproctitle import setproctitle

from annserve.cli.options import settings
from annserve.service.logs import configure_logs
from annserve.settings import Settings
from annserve.supervisor.orders import FLAG, KeeperOrders

Orders = TypeVar("Orders", bound=KeeperOrders)


def begun(kind: type[Orders], name: str) -> tuple[Orders, Settings]:
    """Return what the supervisor wants of this process, and the settings, which it inherits."""
    if len(sys.argv) != 3 or sys.argv[1] != FLAG:
        sys.exit(f"annserve's {name} is started by `annserve serve`, not by hand")
    setproctitle(f"annserve: {name}")
    # What hangs is told to abort, and says where it hung: workers too, which inherit it through their fork.
    faulthandler.enable()
    # Kept for whoever asks next, in a worker too.
    known = settings()
    # A loader has no threads: it forks.
    configure_logs(name, known.log_level, known.log_format, in_thread=name == "keeper")
    return kind.of(sys.argv[2]), known
