"""``annserve doctor``: is this machine, and what is on it, fit to serve?"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer

from annserve.cli.catalog_source import catalog_source
from annserve.cli.options import SnapshotsOption, live_id, misspelt, open_store, settings
from annserve.cli.output import JsonOption, print_rows
from annserve.cli.placement_source import check_placements, has_placements
from annserve.cli.securing import security_of
from annserve.domain.errors import AnnserveError, InputError, NoSnapshotError
from annserve.service.access_keys import read_keys
from annserve.service.transport import chosen
from annserve.supervisor.cgroups import cgroup_limits, usable_cpus
from annserve.supervisor.runtime import SHARED_MEMORY

OPEN_FILES_MIN: Final = 4_096
PROCESSES_MIN: Final = 256
MEMORY_BYTES_MIN: Final = 512 << 20
BESIDE_CACHE_BYTES: Final = 32 << 20
"""What an instance keeps in shared memory beside its cache: metrics, the board, sockets."""

_FORK_SAFETY: Final = """
import importlib, pkgutil, sys
import annserve.supervisor as supervisor
for module in pkgutil.iter_modules(supervisor.__path__, "annserve.supervisor."):
    importlib.import_module(module.name)
print(*sorted({"grpc", "numpy", "pyarrow", "pymongo"} & set(sys.modules)))
"""
_FORK_SAFETY_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw: ``ok``, ``warning`` (works, but not well) or ``failure`` (will not serve)."""

    check: str
    state: str
    detail: str


def doctor(snapshots: SnapshotsOption = None, as_json: JsonOption = False) -> None:
    """Check the machine, the libraries, settings and what they name, and the live snapshot; exit 1 on a failure."""
    findings = list(_findings(snapshots))
    rows = [{"check": found.check, "state": found.state, "detail": found.detail} for found in findings]
    print_rows(rows, as_json=as_json)
    if any(found.state == "failure" for found in findings):
        raise typer.Exit(1)


def _findings(snapshots: Path | None) -> Iterator[Finding]:
    yield Finding(check="python", state="ok", detail=f"{platform.python_version()} on {platform.platform()}")
    checks: dict[str, Callable[[], tuple[str, str]]] = {
        # First: of what is wrong here much else would fail, and tell it again.
        "settings": _settings,
        "processors": _processors,
        "memory": _memory,
        "shared memory": lambda: shared_memory(SHARED_MEMORY, settings().shared_cache_bytes + BESIDE_CACHE_BYTES),
        "open files": lambda: _at_least(resource.RLIMIT_NOFILE, OPEN_FILES_MIN, "ulimit -n", "a connection takes one"),
        "processes": lambda: _at_least(resource.RLIMIT_NPROC, PROCESSES_MIN, "ulimit -u", "threads count too"),
        "hnswlib": _hnswlib,
        "lmdb": _lmdb,
        "protobuf": _protobuf,
        "fork safety": fork_safety,
        "address": lambda: _free(settings().address),
        "admin address": lambda: _free(settings().admin_address),
        "ops address": lambda: _free(settings().ops_address),
        # Before what follows: it tells of the memory that this process has come to take.
        "snapshot": lambda: _snapshot(snapshots),
        "TLS": _tls,
        "API keys": _api_keys,
        "catalogue": _catalogue,
        "placements": _placements,
    }
    told: dict[str, str] = {}
    for check, look in checks.items():
        found = _checked(check, look)
        if found.state == "failure" and told.setdefault(found.detail, check) != check:
            found = replace(found, detail=f"see {told[found.detail]}")
        yield found


def _checked(check: str, look: Callable[[], tuple[str, str]]) -> Finding:
    try:
        state, detail = look()
    except (AnnserveError, ImportError, OSError, RuntimeError) as error:
        state, detail = "failure", str(error)
    return Finding(check=check, state=state, detail=detail)


def _processors() -> tuple[str, str]:
    quota = cgroup_limits().processors
    limit = "" if quota is None else f"; the container may use the time of {quota:.3g}"
    return "ok", f"{usable_cpus()} usable of {os.cpu_count()}, each for one worker unless told otherwise{limit}"


def _memory() -> tuple[str, str]:
    import psutil

    memory, limit = psutil.virtual_memory(), cgroup_limits().memory_bytes
    room = memory.available if limit is None else min(memory.available, limit)
    detail = f"{room / 1e9:,.1f} GB can be had of {memory.total / 1e9:,.1f}"
    if limit is not None:
        detail += f"; the container may use {limit / 1e9:,.1f}"
    if room < MEMORY_BYTES_MIN:
        return "warning", f"{detail}; a swap of snapshots holds two of them for a moment"
    return "ok", detail


def shared_memory(folder: Path, needed_bytes: int) -> tuple[str, str]:
    """Return whether ``folder`` has room for what the processes of an instance share."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return "warning", f"{folder} cannot be written to: the temporary folder is used, which may be a disk"
    usage = shutil.disk_usage(folder)
    detail = f"{usage.free / 1e6:,.0f} MB free of {usage.total / 1e6:,.0f} in {folder}"
    if usage.free < needed_bytes:
        return "warning", f"{detail}, {needed_bytes / 1e6:,.0f} are needed: give the container more, with --shm-size"
    return "ok", detail


def _at_least(limit: int, least: int, command: str, why: str) -> tuple[str, str]:
    soft, _ = resource.getrlimit(limit)
    if soft == resource.RLIM_INFINITY:
        return "ok", "no limit"
    if soft < least:
        return "warning", f"limit {soft:,}; {why}: raise it, `{command} {least}`"
    return "ok", f"limit {soft:,}"


def _hnswlib() -> tuple[str, str]:
    import hnswlib
    import numpy as np

    index = hnswlib.Index(space="ip", dim=4)
    index.init_index(max_elements=1)
    index.add_items(np.ones((1, 4), dtype=np.float32))
    return "ok", "compiled, and answers"


def _lmdb() -> tuple[str, str]:
    import lmdb

    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".annserve-doctor-", dir=parent) as folder:
        try:
            with lmdb.open(folder, map_size=1 << 20) as environment:
                with environment.begin(write=True) as transaction:
                    transaction.put(b"key", b"value")
                with environment.begin() as transaction:
                    if transaction.get(b"key") != b"value":
                        return "failure", "does not find what was written"
        except lmdb.Error as error:
            return "failure", f"does not work in {folder}: {error}"
        return "ok", f"{'.'.join(map(str, lmdb.version()))}, writes and reads in {Path(folder).parent}"


def _protobuf() -> tuple[str, str]:
    import google.protobuf
    from google.protobuf.internal import api_implementation

    backend = api_implementation.Type()
    state = "ok" if backend == "upb" else "failure"
    advice = "" if state == "ok" else "; any other is slow, and unsafe with hostile input: reinstall protobuf"
    return state, f"{google.protobuf.__version__}, backend {backend}{advice}"


def fork_safety(program: str = _FORK_SAFETY) -> tuple[str, str]:
    """Return whether a supervisor, in a Python of its own, stays free of what must not be there before a fork."""
    done = subprocess.run(  # noqa: S603 - this Python, and a program of ours
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=_FORK_SAFETY_SECONDS, check=False
    )
    if done.returncode != 0:
        return "failure", f"the supervisor cannot be imported: {done.stderr.strip().splitlines()[-1]}"
    if loaded := done.stdout.split():
        return "failure", f"the supervisor imports {', '.join(loaded)}, whose threads do not live through a fork"
    return "ok", "the supervisor imports nothing with threads"


def _free(address: str) -> tuple[str, str]:
    from annserve.service.server import bindable

    try:
        bindable(address)
    except InputError as error:
        return "warning", str(error)
    return "ok", f"{address} is free"


def _settings() -> tuple[str, str]:
    if wrong := misspelt():
        return "warning", "; ".join(wrong)
    return "ok", f"{len(settings().model_fields_set)} are set"


def _tls() -> tuple[str, str]:
    known = settings()
    security = replace(security_of(known), api_keys=None)  # Of keys another check tells.
    security.check(known.address)
    chosen(known.transport, known.address, security)
    return "ok", "none, plain text is spoken" if security.tls is None else f"{security.tls.certificate} and its key"


def _api_keys() -> tuple[str, str]:
    path = settings().api_keys
    if path is None:
        return "ok", "nobody is asked for one"
    return "ok", f"{len(read_keys(path)):,} in {path}"


def _catalogue() -> tuple[str, str]:
    source = catalog_source(None, None)
    if source is None:
        return "ok", "none is set"
    source.check()
    fields = ", ".join(source.schema().fields) or "none"
    return "ok", f"{source}; the fields are {fields}; `annserve catalog check` looks at all of it"


def _placements() -> tuple[str, str]:
    if not has_placements(settings()):
        return "ok", "none are set"
    if not check_placements(settings(), catalog_source(None, None)):
        return "warning", "not checked: the catalogue, which has them, does not answer"
    return "ok", "all are right"


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
