"""What a loader holds when it forks."""

from __future__ import annotations

import subprocess
import sys

_LOOK = """
import sys, threading
from annserve.cli.loading import _imported
_imported()
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "pymongo", "bson"}), threading.active_count())
"""


def test_a_loader_has_one_thread_and_neither_grpc_nor_pymongo_when_it_forks() -> None:
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["1"]
