"""The folder that snapshots live in: published by rename, pointed to by ``CURRENT``, rolled back, pruned.

::

    <root>/20261123T200102Z-1a2b3c4d/    a snapshot; never changed once it has this name
    <root>/CURRENT                       the live id on the first line, the ids live before it below
    <root>/.building-*/                  a build in progress, swept once its builder is gone
    <root>/.removed-*/                   a snapshot being removed
    <root>/.lock                         held while names or CURRENT change
    <root>/.refresh                      held by whoever trains what is live anew, and what he was about to make live
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from annserve.domain.errors import (
    InvalidArgumentError,
    NoSnapshotError,
    SnapshotIncompleteError,
    SnapshotRefusedError,
    SnapshotSchemaError,
)
from annserve.snapshot.files import is_locked, is_plain_folder, locked, locked_if_free, sync
from annserve.snapshot.manifest import Manifest, read_manifest
from annserve.snapshot.verify import verify

HISTORY_MAX = 20
"""How many ids ``CURRENT`` remembers, the live one included."""

_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}", re.ASCII)
_ID_TIME = "%Y%m%dT%H%M%SZ"
_CURRENT_BYTES_MAX = 4096


def is_id(text: str) -> bool:
    """Return whether a snapshot can have this id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """A snapshot as a listing shows it: its manifest was read, its files were not."""

    snapshot_id: str
    path: Path
    is_current: bool
    manifest: Manifest | None
    """None when it cannot be read; `problem` then says why."""
    problem: str | None = None


class SnapshotStore:
    """The snapshots under one root. Any number of processes may read it, build into it and point it elsewhere."""

    __slots__ = ("root",)

    def __init__(self, root: Path) -> None:
        """Use ``root``, which the first build creates. Reading needs no right to write."""
        self.root = root

    def ids(self) -> list[str]:
        """Return the ids of the snapshots that are here, newest first; an id sorts by the time it was given."""
        try:
            names = [entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return sorted(filter(_ID.fullmatch, names), reverse=True)

    def snapshots(self) -> list[SnapshotInfo]:
        """Return what is here, newest first; one whose manifest is refused is listed with the problem."""
        return [self.info(snapshot_id) for snapshot_id in self.ids()]

    def info(self, snapshot_id: str) -> SnapshotInfo:
        """Return what a listing shows of one snapshot; raises as `path` does."""
        path = self.path(snapshot_id)
        manifest, problem = None, None
        try:
            manifest = read_manifest(path)
        except SnapshotRefusedError as error:
            problem = error.problem
        is_current = snapshot_id == self.current_id()
        return SnapshotInfo(
            snapshot_id=snapshot_id, path=path, is_current=is_current, manifest=manifest, problem=problem
        )

    def path(self, snapshot_id: str) -> Path:
        """Return the folder of ``snapshot_id``, which is a folder in the root itself, never a link out of it.

        Raises:
            InvalidArgumentError: no snapshot can have this id.
            SnapshotIncompleteError: it is not here.
            SnapshotSchemaError: the name is there, but is no folder.
        """
        if not is_id(snapshot_id):
            raise InvalidArgumentError.of("snapshot_id", "must be a snapshot's id, like 20261123T200102Z-1a2b3c4d")
        path = self.root / snapshot_id
        try:
            if not is_plain_folder(path):
                raise SnapshotSchemaError(path, "is not a folder of its own")
        except FileNotFoundError as error:
            raise SnapshotIncompleteError(path, "there is no such snapshot") from error
        return path

    def verify(self, snapshot_id: str) -> Manifest:
        """Verify every file of a snapshot, and that it is the one its folder's name says.

        Raises:
            InvalidArgumentError: as `path`.
            SnapshotRefusedError: it must not be loaded.
        """
        path = self.path(snapshot_id)
        manifest = verify(path)
        if manifest.snapshot_id != snapshot_id:
            raise SnapshotSchemaError(path, f"it calls itself {manifest.snapshot_id}")
        return manifest

    def current_id(self) -> str | None:
        """Return the live id, or None before the first activation. Whether it is here and sound is not looked at."""
        return next(iter(self.history()), None)

    def history(self) -> tuple[str, ...]:
        """Return the live id and those live before it, latest first; lines that are no ids do not count."""
        try:
            with (self.root / "CURRENT").open("rb") as file:
                lines = file.read(_CURRENT_BYTES_MAX).decode("ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(filter(_ID.fullmatch, lines))

    def activate(self, snapshot_id: str) -> None:
        """Verify a snapshot and make it the live one.

        Raises:
            InvalidArgumentError: as `path`.
            SnapshotRefusedError: it must not be loaded; the live one stays.
        """
        with self._locked():
            self.verify(snapshot_id)
            self._point_to(snapshot_id)

    def roll_back(self) -> str:
        """Make the snapshot live that was live before, and return its id; rolling back again goes further back.

        Snapshots that are gone or refused by now are passed over.

        Raises:
            NoSnapshotError: there is none left.
        """
        with self._locked():
            snapshot_id = self.earlier_id()
            history = self.history()
            self._write_current(history[history.index(snapshot_id, 1) :])
        return snapshot_id

    def earlier_id(self) -> str:
        """Return the id of the snapshot that `roll_back` goes to, verified; raises as it does."""
        refusal: SnapshotRefusedError | None = None
        for snapshot_id in self.history()[1:]:
            try:
                self.verify(snapshot_id)
            except SnapshotRefusedError as error:
                refusal = error
            else:
                return snapshot_id
        raise NoSnapshotError("there is no earlier snapshot to roll back to") from refusal

    def prune(self, keep: int) -> list[str]:
        """Remove all but the ``keep`` newest, the live one and the one a roll back would go to; return what went.

        A process that has one of them loaded keeps it: its mapped pages outlive their names.

        Raises:
            InvalidArgumentError: ``keep`` is negative.
        """
        if keep < 0:
            raise InvalidArgumentError.of("keep", f"must be at least 0, got {keep}")
        if not self.root.exists():
            return []
        with self._locked():
            ids = self.ids()
            live = [snapshot_id for snapshot_id in self.history() if snapshot_id in ids]
            removed = [snapshot_id for snapshot_id in ids[keep:] if snapshot_id not in live[:2]]
            for snapshot_id in removed:
                # Renamed first: a snapshot that is half removed must not be found under its id.
                (self.root / snapshot_id).rename(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
            self._sweep()
        return removed

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty folder to build a snapshot in; what was not published from it is removed afterwards.

        What builders that were killed left behind is swept first.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with self._locked():
                self._sweep()
                workshop = Path(tempfile.mkdtemp(prefix=".building-", dir=self.root))
                stack.callback(shutil.rmtree, workshop, ignore_errors=True)
                # Held as long as the builder lives, so that no other sweeps its work away.
                stack.enter_context(locked(workshop / "lock"))
            folder = workshop / "snapshot"
            folder.mkdir()
            yield folder

    @contextmanager
    def refreshing(self) -> Iterator[bool]:
        """Give True to one process at a time, until it is done or gone, and False to the others."""
        self.root.mkdir(parents=True, exist_ok=True)
        with locked_if_free(self.root / ".refresh") as is_alone:
            yield is_alone

    def begin_publishing(self, what: str) -> None:
        """Remember, beyond the death of this process, that ``what`` is about to be made live; "" when that is over."""
        self.root.mkdir(parents=True, exist_ok=True)
        note = self.root / ".refresh"
        note.write_text(what, encoding="utf-8")
        sync(note)

    def unfinished(self) -> str:
        """Return what was about to be made live when a refresh was cut off, "" if none was."""
        try:
            return (self.root / ".refresh").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def new_id(self, content_sha256: str, created_time: datetime) -> str:
        """Return an id for a snapshot made at ``created_time`` (UTC), or a second after the newest one that is here.

        So ids sort in the order they were given, even if the clock was set back.
        """
        # A folder may be named like an id without being a time, and one at the end of time has none after it.
        with suppress(IndexError, ValueError, OverflowError):
            newest = datetime.strptime(self.ids()[0].split("-")[0], _ID_TIME).replace(tzinfo=UTC)
            created_time = max(created_time, newest + timedelta(seconds=1))
        return f"{created_time.strftime(_ID_TIME)}-{content_sha256[:8]}"

    def publish(self, folder: Path, snapshot_id: str, *, activate: bool) -> None:
        """Give a finished, durable and verified draft its name, and make it the live snapshot if told to.

        Raises:
            OSError: the disk failed. The draft was renamed or was not, `CURRENT` was replaced or was not; each is
                as whole as before.
        """
        with self._locked():
            folder.rename(self.root / snapshot_id)
            sync(self.root)
            if activate:
                self._point_to(snapshot_id)

    def _point_to(self, snapshot_id: str) -> None:
        earlier = [other for other in self.history() if other != snapshot_id]
        self._write_current([snapshot_id, *earlier[: HISTORY_MAX - 1]])

    def _write_current(self, ids: Sequence[str]) -> None:
        # Under the lock, so one name for the draft is enough; a dead writer's is overwritten.
        draft = self.root / ".CURRENT"
        draft.write_text("".join(f"{snapshot_id}\n" for snapshot_id in ids), encoding="ascii")
        sync(draft)
        draft.replace(self.root / "CURRENT")
        sync(self.root)

    def _sweep(self) -> None:
        for abandoned in self.root.glob(".removed-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        for workshop in self.root.glob(".building-*"):
            if not is_locked(workshop / "lock"):
                shutil.rmtree(workshop, ignore_errors=True)

    def _locked(self) -> AbstractContextManager[None]:
        if not self.root.is_dir():
            raise NoSnapshotError(f"there is no folder of snapshots at {self.root}", root=self.root)
        return locked(self.root / ".lock")
