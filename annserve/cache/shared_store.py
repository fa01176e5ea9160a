"""A worker's way to the entries that all workers share: read from memory, written by sending to the one writer."""

from __future__ import annotations

import errno
import logging
import socket
import time
from pathlib import Path

import lmdb

from annserve.cache.entries import ENTRY_BYTES_MAX, PUT, Entry, decode_entry, encode_entry, name_of
from annserve.cache.shared_files import ENVIRONMENTS, SOCKET, State, open_environment

_RETRY_SECONDS = 0.25
_SEND_BYTES = 1 << 20
"""What may be on the way to the writer; the system grants less."""

_logger = logging.getLogger(__name__)


class SharedStore:
    """Reads without ever waiting, and sends without ever waiting. Make it after the fork; one thread uses it.

    A store whose writer is not there yet, or no longer, is one that holds nothing new.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state: State | None = None
        self._environments: tuple[lmdb.Environment, ...] = ()
        self._socket: socket.socket | None = None
        self._outdated = False
        """Whether there is another writer, which may have begun anew."""
        self._open_again_at = self._connect_again_at = -1.0
        self.dropped_count = 0
        """Entries that were not sent: too large, or the writer was behind or away."""

    @property
    def flushes(self) -> int:
        """How often the cache was flushed."""
        state = self._opened()
        return 0 if state is None else state.flushes

    @property
    def connected(self) -> bool:
        """Whether there is a writer to send to."""
        return self._connected() is not None

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of ``key``, fresh or not, unless it was flushed."""
        state = self._opened()
        if state is None:
            return None
        name, young = name_of(key), state.generation & 1
        try:
            entry = self._read(young, name, key)
            if entry is None and (entry := self._read(1 - young, name, key)) is not None:
                # What is still asked for moves on to where it outlasts the next change of places.
                self.put(entry)
        except lmdb.Error as error:
            _logger.warning("the shared cache cannot be read, and is opened anew: %s", error)
            self._close_files()
            return None
        return entry if entry is not None and entry.flushes == state.flushes else None

    def put(self, entry: Entry) -> bool:
        """Send ``entry`` to the writer, and return whether it is on its way."""
        is_small = len(entry.key) + len(entry.value) <= ENTRY_BYTES_MAX
        if is_small and self.send(PUT + name_of(entry.key) + encode_entry(entry)):
            return True
        self.dropped_count += 1
        return False

    def send(self, packet: bytes) -> bool:
        """Send ``packet`` to the writer, and return whether it is on its way."""
        connection = self._connected()
        if connection is None:
            return False
        try:
            connection.send(packet)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EMSGSIZE, errno.ENOBUFS):
                self._disconnect()
            return False
        return True

    def close(self) -> None:
        """Let go of everything; what was sent arrives."""
        self._close_files()
        self._disconnect()

    def _read(self, which: int, name: bytes, key: bytes) -> Entry | None:
        with self._environments[which].begin(buffers=True) as transaction:
            data = transaction.get(name)
            return None if data is None else decode_entry(key, memoryview(data))

    def _opened(self) -> State | None:
        if self._outdated:
            self._close_files()
            self._outdated, self._open_again_at = False, -1.0
        return self._state or self._open()

    def _open(self) -> State | None:
        now = time.monotonic()
        if now < self._open_again_at:
            return None
        self._open_again_at = now + _RETRY_SECONDS
        opened: list[lmdb.Environment] = []
        try:
            state = State.open(self._folder)
            for name in ENVIRONMENTS:
                opened.append(open_environment(self._folder, name, state.environment_bytes, readonly=True))  # noqa: PERF401 - those opened before a failure are closed
        except (OSError, ValueError, lmdb.Error):
            for environment in opened:
                environment.close()
            return None
        self._state, self._environments = state, tuple(opened)
        return state

    def _close_files(self) -> None:
        if self._state is not None:
            self._state.close()
        for environment in self._environments:
            environment.close()
        self._state, self._environments = None, ()

    def _connected(self) -> socket.socket | None:
        now = time.monotonic()
        if self._socket is not None or now < self._connect_again_at:
            return self._socket
        self._connect_again_at = now + _RETRY_SECONDS
        # Packets as a datagram socket has them; that one takes only net.unix.max_dgram_qlen of them, ten as a rule.
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            connection.connect(str(self._folder / SOCKET))
        except OSError:
            connection.close()
        else:
            self._socket = connection
            self._outdated = True
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
