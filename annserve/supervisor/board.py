"""What the processes of an instance show each other at every moment: words of shared memory, each with one writer."""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SLOTS: Final = 256
"""Workers of all generations, those that are leaving included."""

WORKERS_MAX: Final = 64
"""How many workers an instance may have: two generations, and what is slow to leave, fit into the slots."""

_MAGIC: Final = b"ANNBOARD"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("=8sII")
_HEALTH: Final = struct.Struct("=B")
_BEAT: Final = struct.Struct("=d")
_WORD: Final = struct.Struct("=I")
_ENTRY: Final = struct.Struct("=IIIId")
_HEALTH_AT: Final = 64
_KEEPER_AT: Final = 72
_ENTRIES_AT: Final = 128
_ENTRY_BYTES: Final = 64
_STATE_AT, _CALLS_AT, _HEARTBEAT_AT = 4, 12, 16
_SIZE: Final = _ENTRIES_AT + SLOTS * _ENTRY_BYTES


class SlotState(IntEnum):
    """What a worker says it does."""

    EMPTY = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the worker in a slot said last; its words may be of different moments."""

    pid: int
    state: SlotState
    generation: int
    calls_under_way: int
    heartbeat: float
    """When it last showed that it lives, on the monotonic clock, which all processes share; 0 before the first time."""


class Board:
    """The supervisor writes the instance's health and clears slots, a worker its own slot, the keeper its beat."""

    def __init__(self, fd: int) -> None:
        """Map the board behind ``fd``, which was inherited.

        Raises:
            ValueError: it is no board, or one of another version.
        """
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE)
        if _HEADER.unpack_from(self._memory) != (_MAGIC, _VERSION, SLOTS):
            raise ValueError("this is no board of this version")

    @classmethod
    def create(cls) -> Board:
        """Return an empty one."""
        fd = os.memfd_create("annserve-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
        os.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, SLOTS), 0)
        return cls(fd)

    def close(self) -> None:
        """Let go of the memory and of the descriptor."""
        self._memory.close()
        os.close(self.fd)

    @property
    def is_healthy(self) -> bool:
        """Whether the instance wants calls: what health says in every worker."""
        return bool(_HEALTH.unpack_from(self._memory, _HEALTH_AT)[0])

    @is_healthy.setter
    def is_healthy(self, is_healthy: bool) -> None:
        _HEALTH.pack_into(self._memory, _HEALTH_AT, is_healthy)

    @property
    def keeper_heartbeat(self) -> float:
        """When the keeper last showed that it lives; 0 before the first time."""
        return float(_BEAT.unpack_from(self._memory, _KEEPER_AT)[0])

    def beat_keeper(self) -> None:
        """Show that the keeper lives."""
        _BEAT.pack_into(self._memory, _KEEPER_AT, time.monotonic())

    def clear_keeper(self) -> None:
        """Note that there is no keeper, or a new one that has not shown yet that it lives."""
        _BEAT.pack_into(self._memory, _KEEPER_AT, 0.0)

    def entry(self, slot: int) -> Entry:
        """Return what the worker in ``slot`` said last."""
        pid, state, generation, calls, heartbeat = _ENTRY.unpack_from(self._memory, _at(slot))
        return Entry(pid=pid, state=SlotState(state), generation=generation, calls_under_way=calls, heartbeat=heartbeat)

    def take(self, slot: int, generation: int) -> None:
        """Say that this process starts in ``slot``."""
        now = time.monotonic()
        _ENTRY.pack_into(self._memory, _at(slot), os.getpid(), SlotState.STARTING, generation, 0, now)

    def beat(self, slot: int, calls_under_way: int) -> None:
        """Show that this process, which took ``slot``, lives, and how many calls it answers."""
        _WORD.pack_into(self._memory, _at(slot) + _CALLS_AT, calls_under_way)
        _BEAT.pack_into(self._memory, _at(slot) + _HEARTBEAT_AT, time.monotonic())

    def set_state(self, slot: int, state: SlotState) -> None:
        """Say what this process, which took ``slot``, does."""
        _WORD.pack_into(self._memory, _at(slot) + _STATE_AT, state)

    def clear(self, slot: int) -> None:
        """Note that nobody is in ``slot`` any more."""
        _ENTRY.pack_into(self._memory, _at(slot), 0, SlotState.EMPTY, 0, 0, 0.0)


def _at(slot: int) -> int:
    if not 0 <= slot < SLOTS:
        raise ValueError(f"there is no slot {slot}: slots are 0 to {SLOTS - 1}")
    return _ENTRIES_AT + slot * _ENTRY_BYTES
