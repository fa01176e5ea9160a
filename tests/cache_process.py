"""A process with a part in a shared cache, the writer's or a worker's, told over pipes what to do, in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from annserve.cache import shared
from annserve.cache.entries import name_of
from annserve.cache.shared import Found, Made, SharedCache
from annserve.cache.shared_writer import CacheWriter


class CacheProcess:
    """The other end of the pipes."""

    def __init__(self, role: str, folder: Path, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, role, str(folder), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )
        self.pid = self._process.pid
        assert self.heard() == {"ready": True}

    def tell(self, **command: Any) -> Any:
        """Have a command done and return what came of it."""
        self.begin(**command)
        return self.heard()

    def begin(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill it, and keep nothing of it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


def sealed(size: int, seed: int) -> str:
    """Return about ``size`` characters that `is_whole` knows."""
    body = f"{seed}-" * (size // (len(str(seed)) + 1) + 1)
    return hashlib.sha256(body.encode()).hexdigest() + body


def is_whole(text: str) -> bool:
    return hashlib.sha256(text[64:].encode()).hexdigest() == text[:64]


def _say(reply: Any) -> None:
    print(json.dumps(reply), flush=True)  # noqa: T201 - the pipe


def _write(folder: Path, bytes_max: int) -> None:
    reports: list[Any] = []
    writer = CacheWriter(folder, bytes_max, on_report=reports.append)
    writer.start()
    _say({"ready": True})
    for line in sys.stdin:
        match json.loads(line)["do"]:
            case "stored":
                stored = writer.stored
                _say([stored.entry_count, stored.size_bytes, stored.size_bytes_max, stored.failed_count])
            case "reports":
                _say(reports)
            case "flush":
                writer.flush()
                _say(True)
            case "stop":
                writer.stop()
                _say(True)
                return


class _Worker:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._cache = SharedCache(folder)
        self._computed = 0
        self._wait_seconds = shared.WAIT_SECONDS

    async def serve(self) -> None:
        _say({"ready": True})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            _say(await getattr(self, command.pop("do"))(**command))
        self._cache.close()

    async def be_patient(self, seconds: float) -> Any:
        """Wait so long for what others make, and until they see what is made here: longer than any machine stalls."""
        shared.WAIT_SECONDS = shared._SHOWN_SECONDS = self._wait_seconds = seconds

    async def get(self, key: str) -> Any:
        found = self._cache.get(key.encode())
        return None if found is None else [found.value.decode(), found.source.value]

    async def put(self, key: str, value: str, ttl: float = 60.0, stale: float = 0.0) -> Any:
        self._cache.put(key.encode(), value.encode(), time.monotonic(), ttl, stale)

    async def fill(self, count: int, size: int, seed: int) -> Any:
        for number in range(count):
            self._cache.put(f"{seed}-{number}".encode(), sealed(size, number).encode(), time.monotonic(), 60.0)
            if number % 8 == 0:
                await asyncio.sleep(0.001)

    async def churn(self, seconds: float, keys: int, size: int) -> Any:
        """Read and write entries that are sealed, until the end, and return how many there were of each kind."""
        end, read, torn, number = time.monotonic() + seconds, 0, 0, os.getpid()
        store = self._cache._store
        assert store is not None
        while time.monotonic() < end:
            number += 1
            key = f"churn-{number % keys}".encode()
            entry = store.get(key)
            if entry is not None:
                read += 1
                torn += not is_whole(entry.value.decode())
            self._cache.put(key, sealed(number % size, number).encode(), time.monotonic(), 60.0)
            await asyncio.sleep(0)
        return [read, torn]

    async def ask(
        self,
        key: str,
        value: str = "v",
        clients: int = 1,
        ttl: float = 60.0,
        stale: float = 0.0,
        compute_ms: float = 1.0,
    ) -> Any:
        """Return what each of ``clients`` got, how often it was made here, and how long the slowest took, in ms."""
        before, began = self._computed, time.monotonic()
        found = await asyncio.gather(*(self._one(key, value, ttl, stale, compute_ms) for _ in range(clients)))
        return {
            "values": sorted({one.value.decode() for one in found}),
            "sources": sorted({one.source.value for one in found}),
            "stale": sum(one.stale for one in found),
            "computed": self._computed - before,
            "ms": (time.monotonic() - began) * 1e3,
        }

    async def rounds(self, key: str, start: float, count: int, period: float, clients: int, ttl: float) -> Any:
        """Have many clients ask for what has just expired, again and again.

        Return for each time how often it was made, and how long after its moment all had been answered.
        """
        rounds = []
        for number in range(count):
            due = start + number * period
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            computed = (await self.ask(key, clients=clients, ttl=ttl, compute_ms=2.0))["computed"]
            rounds.append([computed, time.monotonic() - due])
        return rounds

    async def make_now(self, key: str, value: str = "v", *, gives_up: bool = False, again: bool = False) -> Any:
        """Make the value at once, if it is this worker's turn; return what `begin` said.

        Asked ``again`` at once, whether the lock is kept still as well.
        """
        if again:
            said = [await self.make_now(key, value), await self.make_now(key, value)]
            return [*said, key.encode() in self._cache._unseen and _is_locked_elsewhere(self._folder, key)]
        turn = self._cache.begin(key.encode())
        if isinstance(turn, Found):
            return turn.value.decode()
        if turn is None:
            return "not now"
        if gives_up:
            self._cache.give_up(turn)
            return "given up"
        self._cache.complete(turn, value.encode(), 60.0, 0.0)
        self._cache.give_up(turn)  # As whoever has many turns does at the end, and to no effect.
        return "made"

    async def is_locked(self, key: str) -> Any:
        """Return whether another process makes the value of ``key``."""
        locks = self._cache._locks
        assert locks is not None
        if locks.take(name_of(key.encode())):
            locks.free(name_of(key.encode()))
            return False
        return True

    async def refreshes(self) -> Any:
        """Return whether a value is being made anew here."""
        return bool(self._cache._refreshing)

    async def computed(self) -> Any:
        return self._computed

    async def dropped(self) -> Any:
        return self._cache.dropped_count

    async def _one(self, key: str, value: str, ttl: float, stale: float, compute_ms: float) -> Found:
        async def compute() -> Made:
            self._computed += 1
            await asyncio.sleep(compute_ms / 1e3)
            return Made(value.encode())

        return await self._cache.get_or_compute(key.encode(), compute, ttl, stale, self._wait_seconds)


def _is_locked_elsewhere(folder: Path | None, key: str) -> bool:
    """Return whether a process of its own cannot take the lock of ``key``."""
    assert folder is not None
    look = (
        "import sys; from pathlib import Path; from annserve.cache.entries import name_of; "
        "from annserve.cache.flights import FlightLocks; "
        "print(FlightLocks(Path(sys.argv[1])).take(name_of(sys.argv[2].encode())))"
    )
    done = subprocess.run([sys.executable, "-c", look, str(folder), key], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "False"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1] == "writer":
        _write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        asyncio.run(_Worker(None if sys.argv[2] == "none" else Path(sys.argv[2])).serve())
