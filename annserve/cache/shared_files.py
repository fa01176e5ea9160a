"""The folder that the processes of an instance share their cache in.

It holds two LMDB environments, ``a`` and ``b``; ``state``, words that say how to read them; ``writer.sock``, where
entries are sent; and ``flights``, a file of no content whose bytes are locked. All of it is meant for memory.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from pathlib import Path
from typing import Final

import lmdb

ENVIRONMENTS: Final = ("a", "b")
SOCKET: Final = "writer.sock"
FLIGHTS: Final = "flights"

_STATE: Final = "state"
_MAGIC: Final = struct.unpack("=Q", b"annsvc01")[0]
_WORDS: Final = 4
_READERS_MAX: Final = 1_024


class State:
    """Words of shared memory, written by the writer and read by all; a word is read and written as a whole."""

    def __init__(self, path: Path, flags: int) -> None:
        file = os.open(path, flags)
        try:
            self._mapped = mmap.mmap(file, _WORDS * 8, prot=mmap.PROT_READ | (mmap.PROT_WRITE if flags else 0))
        finally:
            os.close(file)
        self._words = memoryview(self._mapped).cast("Q")

    @classmethod
    def create(cls, folder: Path, environment_bytes: int) -> State:
        """Open the state of ``folder`` for writing, anew unless it is there and of that size."""
        path = folder / _STATE
        if not path.exists() or path.read_bytes()[:16] != struct.pack("=QQ", _MAGIC, environment_bytes):
            for name in ENVIRONMENTS:
                shutil.rmtree(folder / name, ignore_errors=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(struct.pack("=QQQQ", _MAGIC, environment_bytes, 0, 0))
            fresh.replace(path)
        return cls(path, os.O_RDWR)

    @classmethod
    def open(cls, folder: Path) -> State:
        """Open the state of ``folder``.

        Raises:
            OSError, ValueError: there is none, or it is not of this version.
        """
        state = cls(folder / _STATE, os.O_RDONLY)
        if state._words[0] != _MAGIC:
            raise ValueError("the cache's state is of another version")
        return state

    @property
    def environment_bytes(self) -> int:
        """How large either environment may grow."""
        return self._words[1]

    @property
    def generation(self) -> int:
        """How often the environments have changed places; the young one is `ENVIRONMENTS` at its last bit."""
        return self._words[2]

    @generation.setter
    def generation(self, generation: int) -> None:
        self._words[2] = generation

    @property
    def flushes(self) -> int:
        """How often the cache was flushed; entries from before another flush are none."""
        return self._words[3]

    @flushes.setter
    def flushes(self, flushes: int) -> None:
        self._words[3] = flushes

    def close(self) -> None:
        """Unmap the words."""
        self._words.release()
        self._mapped.close()


def open_environment(folder: Path, name: str, size_bytes: int, *, readonly: bool) -> lmdb.Environment:
    """Open one of `ENVIRONMENTS`; after a fork, not before.

    Raises:
        lmdb.Error: it cannot be opened.
    """
    # Nothing is to outlast the machine, so nothing is synced; what a killed process wrote is whole or not there.
    return lmdb.open(
        str(folder / name),
        map_size=size_bytes,
        readonly=readonly,
        create=not readonly,
        sync=False,
        metasync=False,
        readahead=False,
        max_readers=_READERS_MAX,
        max_spare_txns=1,
    )
