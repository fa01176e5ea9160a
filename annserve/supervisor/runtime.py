"""The folder of one instance: sockets, cache, metrics. It goes with the instance; a killed one leaves it behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from annserve.domain.errors import InputError

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder is made in it, by mkdtemp

_PREFIX: Final = "annserve-"
_DRAFT_PREFIX: Final = ".annserve-"
_MEBIBYTE: Final = 1 << 20


class RuntimeFolder:
    """A folder that is locked as long as this process lives."""

    def __init__(self, parent: Path | None, room_bytes: int) -> None:
        """Sweep what dead instances left, and make a folder in ``parent``, or in shared memory where it has room.

        Raises:
            InputError: there is not enough room, or no right to write; the message says where.
        """
        parents = [parent] if parent is not None else [SHARED_MEMORY, Path(tempfile.gettempdir())]
        for candidate in parents:
            _sweep(candidate)
        problems = [f"{candidate}: {problem}" for candidate in parents if (problem := _problem(candidate, room_bytes))]
        if len(problems) == len(parents):
            raise InputError(f"there is no place for the instance's files: {'; '.join(problems)}")
        chosen = next(candidate for candidate in parents if not _problem(candidate, room_bytes))
        # Locked before it has its name, for whoever sweeps meanwhile.
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=chosen))
        self._lock_fd = os.open(draft / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        self.path = draft.rename(chosen / draft.name.removeprefix("."))
        for name in ("cache", "metrics"):
            (self.path / name).mkdir()

    @property
    def control_socket(self) -> Path:
        """Where the supervisor is spoken to."""
        return self.path / "control.sock"

    @property
    def metrics(self) -> Path:
        """Where workers keep their metrics, for the supervisor to add up."""
        return self.path / "metrics"

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)


def _problem(folder: Path, room_bytes: int) -> str | None:
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return "not a folder that can be written to"
    free = shutil.disk_usage(folder).free
    if free < room_bytes:
        return f"{free // _MEBIBYTE} MiB are free, {-(-room_bytes // _MEBIBYTE)} MiB are needed"
    return None


def _sweep(folder: Path) -> None:
    for lock in folder.glob(f"{_PREFIX}*/lock"):
        with suppress(OSError):
            fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(fd)
