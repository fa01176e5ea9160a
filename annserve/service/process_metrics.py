"""What a process takes of the machine, under the names that every Prometheus client library gives it."""

from __future__ import annotations

import psutil
from prometheus_client import Counter, Gauge

from annserve.service.metrics import Metrics


def follow_process(metrics: Metrics, name: str) -> None:
    """Publish in ``metrics`` what this process takes, under its ``name``, such as its slot."""
    process, registry = psutil.Process(), metrics.registry

    def gauge(metric: str, documentation: str) -> Gauge:
        made = Gauge(metric, documentation, ("process",), multiprocess_mode="livesum", registry=registry)
        return made.labels(name)

    cpu = Counter("process_cpu_seconds", "Processor time, user and system.", ("process",), registry=registry)
    resident = gauge("process_resident_memory_bytes", "Memory, with what is shared between processes.")
    threads = gauge("process_threads", "Threads.")
    descriptors = gauge("process_open_fds", "Open file descriptors.")
    published_seconds = 0.0

    def publish() -> None:
        nonlocal published_seconds
        with process.oneshot():
            times = process.cpu_times()
            seconds = times.user + times.system
            cpu.labels(name).inc(max(seconds - published_seconds, 0.0))
            published_seconds = seconds
            resident.set(process.memory_info().rss)
            threads.set(process.num_threads())
            descriptors.set(process.num_fds())

    metrics.follow(publish)
