"""Snapshots fetched from where they are published: a shared folder, or object storage, through fsspec.

::

    <source>/20261123T200102Z-1a2b3c4d/   a snapshot, as in a store
    <source>/CURRENT                      the id that every instance takes, on the first line
    <source>/CANARY                       the id that instances of the first stage take in its place, where there is one

A source is laid out as a store is, so that the folder of another store will do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

from annserve.domain.errors import (
    InputError,
    SnapshotChecksumError,
    SnapshotFormatError,
    SnapshotIncompleteError,
    SnapshotRefusedError,
    SnapshotSchemaError,
)
from annserve.snapshot.files import sync
from annserve.snapshot.layout import FOLDERS, expected_files
from annserve.snapshot.manifest import MANIFEST, Manifest, read_manifest
from annserve.snapshot.store import SnapshotStore, is_id
from annserve.snapshot.verify import verify

CURRENT = "CURRENT"
CANARY = "CANARY"

_POINTER_BYTES_MAX = 4_096


class SnapshotSource:
    """Where snapshots are published. It blocks: an event loop uses it in a thread."""

    __slots__ = ("_files", "_root")

    def __init__(self, url: str) -> None:
        """Use ``url`` in fsspec's notation: a folder, ``file:///shared/snapshots``, ``s3://bucket/snapshots``, …

        Raises:
            InputError: nothing that is installed here understands it.
        """
        self._files: fsspec.AbstractFileSystem
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InputError(f"snapshots cannot be pulled from there: {error}") from error

    def wanted_id(self, *, is_canary: bool = False) -> str | None:
        """Return the id that an instance is to serve, None while nothing is published.

        Raises:
            OSError: the source cannot be read.
        """
        staged = self._pointed_id(CANARY) if is_canary else None
        return staged or self._pointed_id(CURRENT)

    def pull(self, snapshot_id: str, store: SnapshotStore) -> bool:
        """Fetch a snapshot, verify it, and publish it in ``store``, where it is not live yet.

        What is there already is not fetched again. A failure at any point leaves the store as it was.

        Returns:
            Whether it had to be fetched.

        Raises:
            InputError: no snapshot can have this id, or the disk has no room for it.
            SnapshotRefusedError: it is not at the source, or not whole; it may be later, if it is being written.
            OSError: the source cannot be read, or the store not be written.
        """
        if not is_id(snapshot_id):
            raise InputError(f"{snapshot_id!r} is no snapshot's id; they are like 20261123T200102Z-1a2b3c4d")
        if snapshot_id in store.ids():
            return False
        with store.draft() as folder:
            with _told_of(snapshot_id):
                self._fetch(snapshot_id, folder)
            try:
                store.publish(folder, snapshot_id, activate=False)
            except OSError:
                # Another process pulled it meanwhile: a folder that is not empty is not replaced.
                if snapshot_id not in store.ids():
                    raise
                return False
        return True

    def _fetch(self, snapshot_id: str, folder: Path) -> None:
        self._files.get_file(self._path(snapshot_id, MANIFEST), str(folder / MANIFEST))
        manifest = read_manifest(folder)
        if manifest.snapshot_id != snapshot_id:
            raise SnapshotSchemaError(folder, f"it calls itself {manifest.snapshot_id}")
        # Before any is asked for: no name leads out of the folder.
        if set(manifest.files) != expected_files(manifest):
            raise SnapshotFormatError(folder, "its files are not what its own counts and spaces imply")
        _check_room(manifest, folder)
        for name in FOLDERS:
            (folder / name).mkdir()
        for name, entry in manifest.files.items():
            source = self._path(snapshot_id, name)
            size_bytes = self._files.size(source)
            if size_bytes != entry.size_bytes:
                problem = f"{name} is {size_bytes} bytes long at the source, expected {entry.size_bytes}"
                raise SnapshotChecksumError(folder, problem)
            self._files.get_file(source, str(folder / name))
        verify(folder)
        for path in (*folder.rglob("*"), folder):
            sync(path)

    def _pointed_id(self, name: str) -> str | None:
        try:
            text = self._files.cat_file(self._path(name), start=0, end=_POINTER_BYTES_MAX)
        except FileNotFoundError:
            return None
        lines = text.decode("ascii", errors="replace").splitlines()
        return next((line for line in map(str.strip, lines) if is_id(line)), None)

    def _path(self, *names: str) -> str:
        return "/".join((self._root.rstrip("/"), *names))


def _check_room(manifest: Manifest, folder: Path) -> None:
    needed = sum(file.size_bytes for file in manifest.files.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"snapshot {manifest.snapshot_id} takes {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} are free in "
            f"{folder.parent.parent}: `annserve snapshots prune` makes room"
        )


@contextmanager
def _told_of(snapshot_id: str) -> Iterator[None]:
    """Have refusals name the snapshot, and not the draft that nobody will find."""
    try:
        yield
    except FileNotFoundError as error:
        raise SnapshotIncompleteError(snapshot_id, f"not all of it is at the source: {error}") from error
    except SnapshotRefusedError as error:
        raise type(error)(snapshot_id, error.problem) from error
