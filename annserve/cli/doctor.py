"""``annserve doctor``: is this machine, and what is on it, fit to serve?"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from annserve.cli.options import SnapshotsOption, live_id, open_store, settings
from annserve.cli.output import JsonOption, print_rows
from annserve.domain.errors import AnnserveError, InputError, NoSnapshotError

OPEN_FILES_MIN = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw: ``ok``, ``warning`` (works, but not well) or ``failure`` (will not serve)."""

    check: str
    state: str
    detail: str


def doctor(snapshots: SnapshotsOption = None, as_json: JsonOption = False) -> None:
    """Check Python, the native libraries, limits, memory, the port and the live snapshot; exit 1 on a failure."""
    findings = list(_findings(snapshots))
    rows = [{"check": found.check, "state": found.state, "detail": found.detail} for found in findings]
    print_rows(rows, as_json=as_json)
    if any(found.state == "failure" for found in findings):
        raise typer.Exit(1)


def _findings(snapshots: Path | None) -> Iterator[Finding]:
    yield Finding(check="python", state="ok", detail=f"{platform.python_version()} on {platform.platform()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(check="processors", state="ok", detail=f"{cores} usable; one serves, another helps with long scans")
    yield _checked("hnswlib", _hnswlib)
    yield _checked("protobuf", _protobuf)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(
        check="open files",
        state="ok" if soft >= OPEN_FILES_MIN else "warning",
        detail=f"limit {soft}"
        + ("" if soft >= OPEN_FILES_MIN else f"; a connection takes one each: raise it, `ulimit -n {OPEN_FILES_MIN}`"),
    )
    yield _checked("address", _address)
    yield _checked("snapshot", lambda: _snapshot(snapshots))


def _checked(check: str, look: Callable[[], tuple[str, str]]) -> Finding:
    try:
        state, detail = look()
    except (AnnserveError, ImportError, OSError) as error:
        state, detail = "failure", str(error)
    return Finding(check=check, state=state, detail=detail)


def _hnswlib() -> tuple[str, str]:
    import hnswlib
    import numpy as np

    index = hnswlib.Index(space="ip", dim=4)
    index.init_index(max_elements=1)
    index.add_items(np.ones((1, 4), dtype=np.float32))
    return "ok", "compiled, and answers"


def _protobuf() -> tuple[str, str]:
    import google.protobuf
    from google.protobuf.internal import api_implementation

    backend = api_implementation.Type()
    state = "ok" if backend == "upb" else "failure"
    advice = "" if state == "ok" else "; any other is slow, and unsafe with hostile input: reinstall protobuf"
    return state, f"{google.protobuf.__version__}, backend {backend}{advice}"


def _address() -> tuple[str, str]:
    from annserve.service.server import bindable

    try:
        bindable(settings().address)
    except InputError as error:
        return "warning", str(error)
    return "ok", f"{settings().address} is free"


def _snapshot(folder: Path | None) -> tuple[str, str]:
    from annserve.snapshot.snapshot import load_snapshot

    store = open_store(folder)
    try:
        snapshot_id = live_id(store)
    except NoSnapshotError as error:
        return "warning", str(error)
    snapshot = load_snapshot(store.path(snapshot_id))
    resident_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return "ok", f"{snapshot_id}: {len(snapshot.items):,} items, whole, loads in {resident_mb:,.0f} MB of memory"
