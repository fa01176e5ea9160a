"""Probes and metrics over HTTP, from threads of the supervisor: overload in the workers cannot make them fail."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, ClassVar, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from annserve.domain.errors import InputError

DEAD_SECONDS: Final = 5.0
"""An instance whose supervisor has not looked around for so long is not alive."""

_READ_SECONDS: Final = 1.0
"""How long a client may take to say what it wants."""

_LOOKS: Final = 5
_LOOK_SECONDS: Final = 0.02
"""How often, and how far apart, metrics are looked at: a process that begins has a file before anything is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker as others see it."""

    slot: int
    pid: int
    state: str
    snapshot_id: str | None
    call_count: int
    heartbeat_age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An instance as it was a moment ago."""

    at: float
    """When, on the monotonic clock."""
    is_healthy: bool = False
    has_served: bool = False
    snapshot_id: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """What the loader told of what it loaded."""
    wanted: int = 0
    workers: tuple[WorkerView, ...] = ()
    exits: Mapping[str, int] = field(default_factory=dict)
    swaps: Mapping[str, int] = field(default_factory=dict)
    boot_failures: int = 0
    keeper_starts: int = 0


class OpsServer:
    """Answers ``/livez``, ``/readyz``, ``/startupz``, ``/metrics`` and ``/version``."""

    def __init__(self, address: str | None, metrics: Path, version: str) -> None:
        """Listen on ``address``, port 0 for a free one; None for nowhere.

        Raises:
            InputError: the address cannot be listened on.
        """
        self._view = View(at=time.monotonic())
        self._server: ThreadingHTTPServer | None = None
        self.address: str | None = None
        """With the port that was taken."""
        if address is None:
            return
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        registry.register(_InstanceCollector(self, version))
        MultiProcessCollector(registry, path=str(metrics))  # type: ignore[no-untyped-call]
        handler = type("Handler", (_Handler,), {"ops": self, "registry": registry, "version_text": version})
        try:
            self._server = _Server((host.strip("[]"), int(port)), handler)
        except (OSError, ValueError, OverflowError) as error:
            problem = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(
                f"cannot serve probes and metrics on {address}: {problem}; choose another --ops-address "
                "(port 0 takes a free one)",
                address=address,
            ) from error
        self.address = f"{host}:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to answer."""
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="annserve-ops", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def show(self, view: View) -> None:
        """Answer from ``view`` from now on."""
        self._view = view

    @property
    def view(self) -> View:
        """What is answered from."""
        return self._view

    def problem(self, probe: str) -> str | None:
        """Return why ``probe`` fails, None when it does not."""
        view = self._view
        silent = time.monotonic() - view.at
        if silent > DEAD_SECONDS:
            return f"the supervisor has not looked around for {silent:.1f} s"
        if probe == "/startupz" and not view.has_served:
            return "no snapshot is served yet"
        if probe == "/readyz" and not view.is_healthy:
            serving = sum(worker.state == "serving" for worker in view.workers)
            return f"{serving} of {view.wanted} workers serve, or it drains"
        if (
            probe == "/livez"
            and view.workers
            and all(
                worker.state == "serving" and worker.heartbeat_age_seconds > 2 * DEAD_SECONDS for worker in view.workers
            )
        ):
            return "every worker hangs"
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A port that another instance listens on is no port to share.
    allow_reuse_port = False

    def server_bind(self) -> None:
        """Look up no name for the address, as the base class does: that takes long where there is no DNS."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves early is no event."""


class _Handler(BaseHTTPRequestHandler):
    ops: ClassVar[OpsServer]
    registry: ClassVar[CollectorRegistry]
    version_text: ClassVar[str]
    timeout = _READ_SECONDS
    server_version = "annserve"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/livez", "/readyz", "/startupz"):
            problem = self.ops.problem(path)
            self._say(HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE, f"{problem or 'ok'}\n")
        elif path == "/version":
            self._say(HTTPStatus.OK, f"{self.version_text}\n")
        elif path == "/metrics":
            self._send_metrics()
        else:
            self._say(HTTPStatus.NOT_FOUND, "/livez /readyz /startupz /metrics /version\n")

    def _send_metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        for _ in range(_LOOKS):
            try:
                body = encode(self.registry)
            except (FileNotFoundError, struct.error):
                time.sleep(_LOOK_SECONDS)
            else:
                self._send(HTTPStatus.OK, body, content_type)
                return
        self._say(HTTPStatus.SERVICE_UNAVAILABLE, "a worker's counts cannot be read\n")

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(status, text.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Log nothing: probes come every second."""


class _InstanceCollector:
    """What only the supervisor knows."""

    def __init__(self, ops: OpsServer, version: str) -> None:
        self._ops = ops
        self._version = version

    def describe(self) -> list[Metric]:
        """Name nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the supervisor's own metrics."""
        view = self._ops.view
        yield InfoMetricFamily("annserve_build", "The program.", value={"version": self._version})
        workers = GaugeMetricFamily("annserve_workers", "Workers by state.", labels=["state"])
        counted = Counter(worker.state for worker in view.workers)
        for state in ("starting", "serving", "draining"):
            workers.add_metric([state], counted[state])
        yield workers
        beats = GaugeMetricFamily("annserve_worker_heartbeat_age_seconds", "Since it last beat.", labels=["slot"])
        for worker in view.workers:
            beats.add_metric([str(worker.slot)], worker.heartbeat_age_seconds)
        yield beats
        exits = CounterMetricFamily("annserve_worker_exits", "Workers that ended, by cause.", labels=["cause"])
        for cause, count in view.exits.items():
            exits.add_metric([cause], count)
        yield exits
        swaps = CounterMetricFamily("annserve_index_swaps", "Changes of snapshots, by outcome.", labels=["outcome"])
        for outcome in ("succeeded", "refused"):
            swaps.add_metric([outcome], view.swaps.get(outcome, 0))
        yield swaps
        yield CounterMetricFamily(
            "annserve_worker_boot_failures", "Workers that ended before they served.", value=view.boot_failures
        )
        yield CounterMetricFamily("annserve_keeper_starts", "Starts of the keeper.", value=view.keeper_starts)
        yield GaugeMetricFamily("annserve_ready", "Whether calls are welcome.", value=float(view.is_healthy))
        if view.snapshot_id is not None:
            yield InfoMetricFamily("annserve_index", "What is served.", value={"snapshot_id": view.snapshot_id})
            for name in ("items", "users"):
                if name in view.report:
                    yield GaugeMetricFamily(f"annserve_index_{name}", f"The {name} of it.", value=view.report[name])
            if (created := view.report.get("created_seconds")) is not None:
                yield GaugeMetricFamily("annserve_index_created_timestamp_seconds", "When it was built.", value=created)
            yield GaugeMetricFamily(
                "annserve_index_load_seconds", "How long it took to load.", value=view.report.get("seconds", 0.0)
            )
