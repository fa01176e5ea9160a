"""Whether a snapshot may be loaded: every byte is compared with its manifest before anything is interpreted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from annserve.domain.errors import (
    SnapshotChecksumError,
    SnapshotFormatError,
    SnapshotIncompleteError,
    SnapshotRefusedError,
    SnapshotSchemaError,
)
from annserve.snapshot.files import is_plain_file, is_plain_folder, read_header, sha256
from annserve.snapshot.layout import expected_arrays, expected_files
from annserve.snapshot.manifest import FileEntry, Manifest, read_manifest


def verify(path: Path) -> Manifest:
    """Read every file of the snapshot at ``path`` and return its manifest.

    The manifest comes first, and only files whose names format 1 knows are opened, so that no name leads out of
    the folder. Files that the manifest does not mention are ignored. Costs about a second per gigabyte.

    The checksums find damage, not malice: whoever can write to the folder can also write a manifest that fits.

    Raises:
        SnapshotIncompleteError: the manifest or a file is missing: copying or writing was not finished.
        SnapshotFormatError: the manifest is not of a format this annserve reads.
        SnapshotChecksumError: the manifest or a file is damaged.
        SnapshotSchemaError: a file is a link, or an array is not of the type and shape the manifest implies.
        SnapshotRefusedError: a file cannot be read.
    """
    try:
        manifest = read_manifest(path)
        if set(manifest.files) != expected_files(manifest):
            odd = min(set(manifest.files) ^ expected_files(manifest))
            raise SnapshotFormatError(path, f"files: {odd!r} is not what its own counts and spaces imply")
        for name, entry in manifest.files.items():
            _verify_file(path, name, entry)
        for name, expected in expected_arrays(manifest).items():
            try:
                found = read_header(path / name)
            except ValueError as error:
                raise SnapshotSchemaError(path, f"{name}: {error}") from error
            if found != expected:
                raise SnapshotSchemaError(path, f"{name}: holds {found}, expected {expected}")
    except OSError as error:
        raise SnapshotRefusedError(path, f"cannot be read: {error}") from error
    return manifest


def _verify_file(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    try:
        # The one folder between: a link there would lead every name below it elsewhere.
        plain = is_plain_folder(file.parent) if len(PurePosixPath(name).parts) > 1 else True
        if not (plain and is_plain_file(file)):
            raise SnapshotSchemaError(path, f"{name} is not a regular file of the snapshot's own")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SnapshotIncompleteError(path, f"{name} is missing") from error
    size_bytes = file.stat().st_size
    if size_bytes != entry.size_bytes:
        raise SnapshotChecksumError(path, f"{name} is {size_bytes} bytes long, expected {entry.size_bytes}")
    if sha256(file) != entry.sha256:
        raise SnapshotChecksumError(path, f"{name} does not have the SHA-256 its manifest states")
