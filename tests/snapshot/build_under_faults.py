"""Builds that fail on purpose: the process that `test_faults` starts.

Each fault strikes a build of its own, in a forked child, at the n-th change to the store, or at the n-th byte of a
file. The parent then looks at what is left, and prints one JSON object with every broken promise it found.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

from snapshot_models import FIXED_COST, make_model

from annserve.domain.errors import AnnserveError
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

MODEL = make_model(16, 6, dimension=3)
BYTE_POINTS = 8

_CHANGES = {"os.rename", "os.mkdir", "os.chmod", "fcntl.flock"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def on_each_change(strike: Callable[[int], None]) -> None:
    """Call ``strike(n)`` before the n-th change to the disk, in this process from now on."""
    numbers = count(1)

    def change() -> None:
        strike(next(numbers))

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if event in _CHANGES or writes:
            change()

    # What audit hooks see can also be failed by them; fsync they do not see.
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        change()
        real_fsync(descriptor)

    vars(os)["fsync"] = fsync
    sys.addaudithook(hook)


def killed_at(point: int) -> None:
    def strike(number: int) -> None:
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    on_each_change(strike)


def failing_at(point: int) -> None:
    def strike(number: int) -> None:
        if number == point:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    on_each_change(strike)


def full_from(point: int) -> None:
    def strike(number: int) -> None:
        if number >= point:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    on_each_change(strike)


def cut_off_at(size_bytes: int) -> None:
    """Let no file grow beyond a size, as if the disk were full: hnswlib's own writes included."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def killed_at_byte(size_bytes: int) -> None:
    """Kill the process, in the middle of whatever write, when a file grows beyond a size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    cut_off_at(size_bytes)


def build_in_child(store: SnapshotStore, fault: Callable[[], None]) -> str:
    """Build in a forked child with a fault prepared; return how it ended: built, refused or killed."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            fault()
            build_snapshot(MODEL, store, threads=1)
            code = 0
        except (OSError, AnnserveError):
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return ("built", "refused", "crashed")[os.WEXITSTATUS(status)]


def broken_promises(store: SnapshotStore, before: set[str], live_id: str | None, end: str) -> list[str]:
    """Return what must not be found after a build that ended so, in a store that held ``before``."""
    broken = []
    loaded = load_current(store, cost=FIXED_COST)
    new = set(store.ids()) - before
    if loaded.refusals or loaded.snapshot.id not in {live_id, *new}:
        broken.append(f"{loaded.snapshot.id} is loaded: {loaded.refusals}")
    if end == "crashed" or (end == "built" and loaded.snapshot.id not in new):
        broken.append(f"{end}, and {loaded.snapshot.id} is live")
    if end == "killed":
        with store.draft():  # Whatever builds next sweeps what the dead left.
            pass
    if list(store.root.glob(".building-*")):
        broken.append("the draft was left behind")
    for snapshot_id in new:
        try:
            store.verify(snapshot_id)
        except AnnserveError as error:
            broken.append(f"half a snapshot was published: {error}")
    return broken


def main(folder: Path) -> dict[str, object]:
    """Strike at every change and at sizes up to the largest file's; return what came of it."""
    store = SnapshotStore(folder)
    manifest = build_snapshot(MODEL, store, threads=1).manifest
    assert manifest is not None
    largest = max(entry.size_bytes for entry in manifest.files.values())
    ends: Counter[str] = Counter()
    broken: list[str] = []

    def strike(fault: Callable[[int], None], point: int) -> str:
        before, live_id = set(store.ids()), store.current_id()
        end = build_in_child(store, lambda: fault(point))
        ends[f"{fault.__name__}: {end}"] += 1
        broken.extend(
            f"{fault.__name__}({point}): {promise}" for promise in broken_promises(store, before, live_id, end)
        )
        return end

    # The first build that is not killed has fewer changes than that.
    change_count = next(point for point in count(1) if strike(killed_at, point) == "built") - 1
    for point in range(1, change_count + 1):
        strike(failing_at, point)
        strike(full_from, point)
    for point in range(BYTE_POINTS):
        strike(cut_off_at, largest * point // BYTE_POINTS)
        strike(killed_at_byte, largest * point // BYTE_POINTS)
    build_snapshot(MODEL, store, threads=1)
    known = {*store.ids(), "CURRENT", ".lock"}
    left = sorted(path.name for path in store.root.iterdir() if path.name not in known)
    return {"changes": change_count, "ends": ends, "broken": broken, "left": left}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
