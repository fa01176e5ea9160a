"""A TCP proxy that stands between a client and a server, and misbehaves when told to; and a count of connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Self

_counting: list[tuple[int, list[float]]] = []
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""`SO_LINGER` for no seconds: closing throws away what is under way and says so (RST)."""


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _counting:
        address = arguments[1]
        for port, attempts in _counting:
            if isinstance(address, tuple) and address[1] == port:
                attempts.append(time.monotonic())


# Cannot be taken away again, so there is one for all tests. It sees refused attempts too, which no server does.
sys.addaudithook(_count)


@contextlib.contextmanager
def counted_connections(port: int) -> Iterator[list[float]]:
    """Note the moments, on the monotonic clock, at which this process tries to connect to ``port``."""
    attempts: list[float] = []
    _counting.append((port, attempts))
    try:
        yield attempts
    finally:
        _counting.remove((port, attempts))


def most_in_a_second(moments: list[float]) -> int:
    """Return the largest number of ``moments`` within one second."""
    return max((sum(start <= moment < start + 1.0 for moment in moments) for start in moments), default=0)


class Proxy:
    """Passes bytes on: replies after ``delay_seconds``, half of one where ``resets``, nothing when ``silent``."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay_seconds = 0.0
        self.silent = False
        self.resets = False
        """Whether a connection breaks in the middle of its next reply."""

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Take connections, always on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept(self._listener))

    def refuse(self) -> None:
        """Break all connections and refuse new ones until `listen`."""
        self._stop_listening()
        for writer in self._writers:
            _reset(writer)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        # Not by asyncio's server: closed at the moment at which somebody comes, it leaves their socket open.
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                serving = self._start(self._serve(connection))
                serving.add_done_callback(lambda done, its=connection: its.close() if done.cancelled() else None)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection(
                "127.0.0.1", self._to_port, family=socket.AF_INET
            )
            await asyncio.gather(
                self._pass(reader, there_writer, is_reply=False), self._pass(there_reader, writer, is_reply=True)
            )
        except (OSError, asyncio.CancelledError):
            pass  # Whoever cancels leaves the block; asyncio complains of handlers that end so.
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        try:
            while data := await reader.read(65_536):
                if self.silent:
                    continue
                if is_reply and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if is_reply and self.resets:
                    writer.write(data[: len(data) // 2])
                    _reset(writer)
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
