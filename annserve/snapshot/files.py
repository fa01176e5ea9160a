"""The file operations of a snapshot: arrays written in chunks, mapped read-only, made durable, hashed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayHeader:
    """What the header of a ``.npy`` file says of the array behind it."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's notation, byte order included: ``<f4``."""


def write_array(path: Path, header: ArrayHeader, chunks: Iterable[npt.NDArray[Any]]) -> None:
    """Write a C-ordered ``.npy`` file (format 1.0) whose rows come in ``chunks``, so never all in memory.

    Raises:
        OSError: the disk is full or fails; the file is then incomplete.
        ValueError: the chunks do not add up to the header's shape.
    """
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": header.dtype, "fortran_order": False, "shape": header.shape}
        )
        start = file.tell()
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=header.dtype).data)
        written = file.tell() - start
    if written != _byte_count(header):
        raise ValueError(f"{path}: {written} bytes were written for {header}")


def read_header(path: Path) -> ArrayHeader:
    """Return the header of a C-ordered ``.npy`` file that holds exactly the bytes it announces.

    Nothing is unpickled, and no memory is reserved for what a header merely claims.

    Raises:
        ValueError: it is not such a file; the text says what is wrong.
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not a .npy file of format 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    header = ArrayHeader(shape=shape, dtype=dtype.str)
    if fortran_order or dtype.hasobject:
        raise ValueError(f"holds {dtype} in {'Fortran' if fortran_order else 'C'} order")
    if path.stat().st_size != start + _byte_count(header):
        raise ValueError(f"is not the {start + _byte_count(header)} bytes long that its header announces")
    return header


def map_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of a ``.npy`` file, memory-mapped and read-only."""
    # A plain view: np.memmap pays for its subclass on every slice of a request.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_plain_file(path: Path) -> bool:
    """Return whether ``path`` is a regular file itself, neither a symbolic link to one nor a pipe that would block.

    Raises:
        FileNotFoundError: nothing is there.
    """
    return stat.S_ISREG(path.lstat().st_mode)


def is_plain_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder itself; raises as `is_plain_file` does."""
    return stat.S_ISDIR(path.lstat().st_mode)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk.

    Raises:
        OSError: they never will be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for it; the kernel lets go of it when its holder dies."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path`` if nobody else does, and say whether; see `locked`."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the lock file ``path``; one that does not exist is held by nobody."""
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _byte_count(header: ArrayHeader) -> int:
    # Python's integers: a damaged shape must not overflow into a plausible size.
    count = np.dtype(header.dtype).itemsize
    for extent in header.shape:
        count *= extent
    return count
