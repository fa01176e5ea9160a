"""Whole instances in processes of their own, as an operator starts them, and probes of them: for chaos tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from threads import beside

from annserve_client.admin import AdminClient, Worker, WorkerState
from annserve_client.errors import AnnserveError

START_SECONDS = 300.0
"""Long, for load tests start instances of gigabytes; one that ends is not waited for."""
STOP_SECONDS = 30.0
PROBE_SECONDS = 1.0
"""How long a probe may take, as Kubernetes has it by default."""

_HEALTH_RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.02s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A running instance."""

    process: subprocess.Popen[bytes]
    address: str
    ops_address: str
    admin_address: str
    said: Path
    """What it has written to standard error so far."""

    def serving(self, admin: AdminClient) -> list[Worker]:
        """Return the workers that serve."""
        return [worker for worker in admin.workers() if worker.state is WorkerState.SERVING]

    def keeper_pid(self) -> int | None:
        """Return the process id of its keeper, None while there is none."""
        return next(iter(self.pids_titled("annserve: keeper")), None)

    def pids_titled(self, title: str) -> list[int]:
        """Return the ids of its processes whose title begins with ``title``."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def instance(snapshots: Path, folder: Path, *options: str, workers: int = 2, **environment: str) -> Iterator[Instance]:
    """Run `annserve serve` on free ports; leaves nothing running.

    Args:
        snapshots: A store with a live snapshot.
        folder: For what it says.
        options: More options of `annserve serve`.
        workers: How many.
        environment: Settings, by the names of their environment variables.
    """
    _leave_blocks_at_term()
    said = folder / f"said-{time.monotonic_ns()}.log"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        admin_address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "annserve.cli", "serve", "--snapshots", str(snapshots), "--workers", str(workers)]
    command += ["--address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0", "--admin-address", admin_address, *options]
    with said.open("w") as log, subprocess.Popen(command, stderr=log, env=os.environ | environment) as process:
        try:
            address, ops_address = _bound(process, said)
            yield Instance(
                process=process, address=address, ops_address=ops_address, admin_address=admin_address, said=said
            )
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Its children go with it: they hold the other end of a pipe.
                process.kill()
                raise


def _leave_blocks_at_term() -> None:
    """Have TERM end this process as Ctrl-C does: a load test that is told to end takes its instance with it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _bound(process: subprocess.Popen[bytes], said: Path) -> tuple[str, str]:
    until = time.monotonic() + START_SECONDS
    pattern = re.compile(r"^serving .* on (127\.0\.0\.1:\d+)\n.*probes and metrics on http://(\S+)$", re.MULTILINE)
    while time.monotonic() < until and process.poll() is None:
        if match := pattern.search(said.read_text()):
            return match[1], match[2]
        time.sleep(0.02)
    raise RuntimeError(f"annserve did not start:\n{said.read_text()}")


def until(holds: Callable[[], bool], seconds: float) -> float:
    """Wait until ``holds``, which may fail while the admin port is away, and return how many seconds that took.

    Raises:
        TimeoutError: it did not come about in ``seconds``.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        try:
            if holds():
                return time.monotonic() - begun
        except AnnserveError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"it did not come about in {seconds} s")


@dataclass(slots=True)
class Probes:
    """Probes of an instance, each a few times a second as an orchestrator makes them, while a block runs."""

    instance: Instance
    http: Sequence[str] = ("/livez", "/readyz", "/metrics")
    interval_seconds: float = 0.1
    timeout_seconds: float = PROBE_SECONDS
    count: int = 0
    failures: list[str] = field(default_factory=list)
    seconds_max: float = 0.0

    @contextmanager
    def going(self) -> Iterator[Probes]:
        """Probe for the time of a block."""
        with beside((self._http, self._grpc)):
            yield self

    def _http(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.interval_seconds):
            for path in self.http:
                self._note(path, lambda path=path: self._get(path))  # type: ignore[misc]

    def _get(self, path: str) -> str | None:
        try:
            address = f"http://{self.instance.ops_address}{path}"
            with urllib.request.urlopen(address, timeout=self.timeout_seconds) as answer:
                return None if answer.read() else "nothing was said"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code}: {error.read().decode().strip()}"
        except OSError as error:
            return repr(error)

    def _grpc(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.interval_seconds):
            self._note("grpc health", self._check)

    def _check(self) -> str | None:
        options = (
            ("grpc.service_config", _HEALTH_RETRIES),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
        )
        with grpc.insecure_channel(self.instance.address, options) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=self.timeout_seconds
                )
            except grpc.RpcError as error:
                return repr(error)
        return None if answer.status == health_pb2.HealthCheckResponse.SERVING else f"status {answer.status}"

    def _note(self, name: str, probe: Callable[[], str | None]) -> None:
        begun = time.monotonic()
        problem = probe()
        seconds = time.monotonic() - begun
        self.count += 1
        self.seconds_max = max(self.seconds_max, seconds)
        if problem is not None:
            self.failures.append(f"{name}: {problem}")
