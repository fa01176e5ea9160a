"""The one process that writes the cache the instance's workers share, in a thread of its own."""

from __future__ import annotations

import json
import logging
import os
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from annserve.cache.entries import ENTRY_BYTES_MAX, NAME_BYTES, PUT, REPORT
from annserve.cache.shared_files import ENVIRONMENTS, SOCKET, State, open_environment
from annserve.domain.errors import InputError

BYTES_MIN = 8 << 20

_FULL = 0.8
"""The part of an environment that entries may take."""
_WRITTEN_AT_ONCE = 1 / 32
"""The part that is written at once. LMDB writes copies, and uses what it frees again two writes later: the rest of an
environment is room for those."""
_PAGE_BYTES = 4_096
_PACKET_BYTES_MAX = 2 * ENTRY_BYTES_MAX
_BATCH = 256
"""How many packets of one worker are taken before it is the next one's turn."""
_GATHER_SECONDS = 0.002
_CHECK_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is in shared memory."""

    entry_count: int
    size_bytes: int
    size_bytes_max: int
    failed_count: int
    """Entries that came and could not be kept."""


class CacheWriter:
    """Takes what workers send and writes it, many entries at once, to the younger of two LMDB environments.

    When that is full they change places, and the older one, forgotten, becomes the young one: what was not asked for
    since the change before last is gone. A writer that takes over the folder of another goes on where that one ended.
    """

    def __init__(
        self, folder: Path, bytes_max: int, on_report: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        """Reserve the memory.

        Args:
            folder: Where; made if it is not there, on a memory file system if that is to be quick.
            bytes_max: How much to reserve, at least `BYTES_MIN`.
            on_report: Is given what workers report, in the writer's thread.

        Raises:
            InputError: there is not that much room, or the folder cannot be used; the message says what to do.
        """
        environment_bytes = max(bytes_max, BYTES_MIN) // 2 // _PAGE_BYTES * _PAGE_BYTES
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._on_report = on_report
        self._state = State.create(folder, environment_bytes)
        try:
            self._environments = [self._reserved(name, environment_bytes) for name in ENVIRONMENTS]
        except (OSError, lmdb.Error) as error:
            for name in ENVIRONMENTS:
                shutil.rmtree(folder / name, ignore_errors=True)
            free = shutil.disk_usage(folder).free
            raise InputError(
                f"cannot reserve {2 * environment_bytes:,} bytes for the cache in {folder}, where {free:,} are free: "
                f"{error}; give it less (ANNSERVE_SHARED_CACHE_BYTES), give /dev/shm more (docker run "
                "--shm-size), or go without (--no-shared-cache)",
                bytes=2 * environment_bytes,
                free=free,
                folder=str(folder),
            ) from error
        self._listener = _listening(folder / SOCKET)
        self._flushes = self._state.flushes
        self._failed_count = 0
        self._problem: lmdb.Error | None = None
        """What went wrong last, until it is told."""
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="annserve-cache-writer", daemon=True)

    @property
    def stored(self) -> Stored:
        """What is in shared memory now."""
        return Stored(
            entry_count=sum(environment.stat()["entries"] for environment in self._environments),
            size_bytes=sum(map(_size_bytes, self._environments)),
            size_bytes_max=2 * self._state.environment_bytes,
            failed_count=self._failed_count,
        )

    def start(self) -> None:
        """Begin to take what is sent."""
        self._thread.start()

    def flush(self) -> None:
        """Make every entry void, in every worker, at once, those on their way included."""
        self._state.flushes += 1
        self._waker.send(b"!")

    def stop(self) -> None:
        """Write what has come, and end. Workers go on reading what is there."""
        self._stopping = True
        self._waker.send(b"!")
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        for environment in self._environments:
            environment.close()
        self._waker.close()
        self._woken.close()
        self._state.close()

    def _reserved(self, name: str, size_bytes: int) -> lmdb.Environment:
        environment = open_environment(self._folder, name, size_bytes, readonly=False)
        # Without it, memory that runs out later would end processes in the middle of reading (SIGBUS).
        file = os.open(self._folder / name / "data.mdb", os.O_RDWR)
        try:
            os.posix_fallocate(file, 0, size_bytes)
        except OSError:
            environment.close()
            raise
        finally:
            os.close(file)
        return environment

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            check_at = time.monotonic()
            while not self._stopping:
                ready = [key.fileobj for key, _ in selector.select(_CHECK_SECONDS)]
                try:
                    self._take(selector, [one for one in ready if isinstance(one, socket.socket)])
                except Exception:
                    _logger.exception("something sent to the cache is lost")
                # To be woken costs whoever sends more than to send: while there is work, what comes is gathered.
                time.sleep(_GATHER_SECONDS)
                if time.monotonic() >= check_at:
                    check_at = time.monotonic() + _CHECK_SECONDS
                    self._check()
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._woken:
                    key.fileobj.close()

    def _check(self) -> None:
        if self._problem is not None:
            _logger.warning("%d entries in all could not be cached: %s", self._failed_count, self._problem)
            self._problem = None
        for environment in self._environments:
            # The pages that a reader was looking at when it was killed are let go of.
            environment.reader_check()

    def _take(self, selector: selectors.BaseSelector, ready: list[socket.socket]) -> None:
        packets: list[bytes] = []
        for connection in ready:
            if connection is self._listener:
                with suppress(OSError):
                    worker, _ = connection.accept()
                    worker.setblocking(False)
                    selector.register(worker, selectors.EVENT_READ)
            elif connection is self._woken:
                connection.recv(4_096)
            else:
                came, has_gone = _packets(connection)
                packets += came
                if has_gone:
                    selector.unregister(connection)
                    connection.close()
        if self._flushes != self._state.flushes:
            self._flushes = self._state.flushes
            for which in range(len(ENVIRONMENTS)):
                self._clear(which)
        puts = [packet for packet in packets if packet.startswith(PUT)]
        for part in _parts(puts, int(_WRITTEN_AT_ONCE * self._state.environment_bytes)):
            self._write(part)
        for packet in packets:
            if packet.startswith(REPORT):
                self._on_report(json.loads(packet[len(REPORT) :]))

    def _write(self, puts: list[bytes]) -> None:
        """Write all of ``puts``, or none, and make room for the next ones."""
        young = self._environments[self._state.generation & 1]
        value_at = len(PUT) + NAME_BYTES
        try:
            with young.begin(write=True) as transaction:
                for packet in puts:
                    view = memoryview(packet)
                    transaction.put(view[len(PUT) : value_at], view[value_at:])
            used_bytes = _size_bytes(young)
        except lmdb.Error as error:
            # A reader that was stopped in the middle of a look keeps pages in use, until it goes on or is killed.
            self._failed_count += len(puts)
            self._problem = error
            young.reader_check()
            used_bytes = self._state.environment_bytes
        if used_bytes >= _FULL * self._state.environment_bytes:
            old = 1 - (self._state.generation & 1)
            self._clear(old)
            self._state.generation += 1

    def _clear(self, which: int) -> None:
        environment = self._environments[which]
        try:
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(None, transaction), delete=False)
        except lmdb.Error as error:
            self._problem = error


def _parts(packets: list[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    """Yield ``packets`` in lists of at most ``bytes_max`` bytes, or of one."""
    part: list[bytes] = []
    size_bytes = 0
    for packet in packets:
        if part and size_bytes + len(packet) > bytes_max:
            yield part
            part, size_bytes = [], 0
        part.append(packet)
        size_bytes += len(packet)
    if part:
        yield part


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {path}: {error}", path=str(path)) from error
    listener.setblocking(False)
    return listener


def _packets(connection: socket.socket) -> tuple[list[bytes], bool]:
    """Return what is there to read, and whether that was the last."""
    packets: list[bytes] = []
    while len(packets) < _BATCH:
        try:
            packet = connection.recv(_PACKET_BYTES_MAX)
        except BlockingIOError:
            return packets, False
        except OSError:
            packet = b""
        if not packet:
            return packets, True
        packets.append(packet)
    return packets, False


def _size_bytes(environment: lmdb.Environment) -> int:
    stat = environment.stat()
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages * stat["psize"]
