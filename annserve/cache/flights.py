"""One maker of a value at a time among the processes of an instance."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from annserve.cache.shared_files import FLIGHTS


class FlightLocks:
    """Locks by name, each a byte of a file: the system frees those of a process that dies, however it dies.

    POSIX locks belong to the process: it can take one that it has again, and loses all when it closes the file. So a
    process makes one of these, after the fork, and sees to it itself that it makes a value once.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(folder / FLIGHTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, name: bytes) -> bool:
        """Take the lock of ``name``, at least 8 bytes, unless another process has it, and return whether that went."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def free(self, name: bytes) -> None:
        """Free the lock of ``name``."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(name))

    def close(self) -> None:
        """Free all locks."""
        os.close(self._file)


def _place(name: bytes) -> int:
    # Two names with one place wait for each other now and then, and that is all.
    return int.from_bytes(name[:8], "big") >> 2
