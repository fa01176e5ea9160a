"""What a process says while it runs: one JSON object a line, never more than it should, and never waited for.

Imports no grpc: every process of an instance speaks this way, the supervisor too.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import IO, Any, Final, Literal

from pythonjsonlogger.json import JsonFormatter

Format = Literal["auto", "json", "text"]

EVENTS_PER_SECOND: Final = 10
"""Of one kind, in one process; how many more there were is said with the next."""

QUEUED_MAX: Final = 1_000
"""Lines that wait for a standard error that takes none; more are dropped and counted."""

_FIELDS: Final = ("event", "request_id", "method", "code", "reason", "dur_ms", "snapshot_id", "suppressed", "dropped")
_CLOSE_SECONDS: Final = 0.5
# A password in the address of a database or a store, as it may be quoted in what a driver says.
_PASSWORD: Final = re.compile(r"(\w+://[^\s:/@]*):[^\s@]+@")
_KEY: Final = re.compile(
    r"(?i)\b(bearer\s+|(?:authorization|x-api-key)['\"]?\s*[:=,]\s*['\"]?(?:bearer\s+)?)[^\s'\",;]+"
)


class DroppingHandler(QueueHandler):
    """Puts records into a bounded queue, and drops those that do not fit."""

    def __init__(self, writing: logging.Handler) -> None:
        """Have another thread hand records on to ``writing``, which makes the text of them too."""
        records: queue.Queue[Any] = queue.Queue(QUEUED_MAX)
        super().__init__(records)
        self.dropped_count = 0
        self._writer: QueueListener | None = QueueListener(records, writing)
        self._writer.start()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return ``record`` as it is: nobody changes it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put ``record`` into the queue, or drop it; the next that fits says how many were."""
        record.dropped = self.dropped_count or None
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped_count += 1

    def close(self) -> None:
        """Have what is left written, without waiting for a standard error that takes nothing."""
        writer, self._writer = self._writer, None
        thread = None if writer is None else writer._thread  # noqa: SLF001 - its own `stop` would wait for ever
        if writer is not None and thread is not None:
            with suppress(queue.Full):
                writer.enqueue_sentinel()
                thread.join(_CLOSE_SECONDS)
        super().close()


class RateLimit(logging.Filter):
    """Lets through so many records of an event a second; an event is what a record says it is, or its unfilled text."""

    def __init__(self, per_second: int = EVENTS_PER_SECOND) -> None:
        super().__init__()
        self._per_second = per_second
        self._seen: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is written; it is told how many like it were not."""
        event = getattr(record, "event", None) or (record.name, record.msg if isinstance(record.msg, str) else "")
        now = time.monotonic()
        began_at, count = self._seen.get(event, (now, 0))
        if now - began_at >= 1.0:
            if count > self._per_second:
                record.suppressed = count - self._per_second
            began_at, count = now, 0
        self._seen[event] = (began_at, count + 1)
        return count < self._per_second


class _StandardError:
    """Standard error without a buffer and without a lock, so that nobody waits for whoever waits to write."""

    def write(self, text: str) -> None:
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(2, left) :]

    def flush(self) -> None:
        """Do nothing: nothing is kept."""


class _Json(JsonFormatter):
    def __init__(self, process: str) -> None:
        super().__init__("%(message)s", json_ensure_ascii=False)
        self._process = process

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in log_data.items() if value is not None}

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        ts = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        log_data.update(ts=ts, level=record.levelname, process=self._process, logger=record.name)
        log_data.update({name: getattr(record, name, None) for name in _FIELDS})
        exception = message_dict.get("exc_info")
        log_data["message"] = without_secrets(record.getMessage())
        log_data["exception"] = None if exception is None else without_secrets(exception)


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def without_secrets(text: str) -> str:
    """Return ``text`` without the passwords of addresses and the keys of headers."""
    return _KEY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def configure_logs(
    process: str, level: str, log_format: Format = "auto", *, in_thread: bool, stream: IO[str] | None = None
) -> DroppingHandler | None:
    """Have this process write its log to standard error from now on.

    Args:
        process: What it is called in each line, such as ``worker 3``.
        level: The least severe that is written.
        log_format: JSON, text for people, or text only where standard error is a terminal.
        in_thread: Whether another thread does the writing, so that nobody ever waits for it; not before a fork.
        stream: Instead of standard error.

    Returns:
        What counts the lines that were dropped, where there is a thread. `logging.shutdown` has the rest written.
    """
    is_text = log_format == "text" or (log_format == "auto" and (stream or sys.stderr).isatty())
    writing = logging.StreamHandler(stream or _StandardError())
    writing.setFormatter(_Text(process) if is_text else _Json(process))
    handler: logging.Handler = writing
    dropping: DroppingHandler | None = None
    if in_thread:
        writing.lock = None  # One thread uses it, and may have to wait: `logging.shutdown` shall not.
        handler = dropping = DroppingHandler(writing)
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    return dropping
