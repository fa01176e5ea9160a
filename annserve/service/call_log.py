"""What the log says of single calls: of those that failed everything but their content, of the others a sample."""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Final

from annserve.domain.errors import AnnserveError, OverloadedError
from annserve.service.logs import EVENTS_PER_SECOND

_log: Final = logging.getLogger("annserve.calls")


class CallLog:
    """Writes about the calls that end. Nothing that a caller sent is repeated, but for its request id."""

    def __init__(self, snapshot_id: str, sample_share: float = 0.0) -> None:
        """Write about failed calls, and about ``sample_share``, 0 to 1, of those that did not fail."""
        self._snapshot_id = snapshot_id
        self._sample_share = sample_share
        self._overloaded_count = 0
        """How many were turned away since a line said so."""
        self._overloaded_due_at = 0.0

    def is_sampled(self) -> bool:
        """Return whether the call that is ending is one to write about."""
        return random.random() < self._sample_share  # noqa: S311 - a sample, not a secret

    def answered(self, method: str, request_id: str, seconds: float) -> None:
        """Write about a call that was answered."""
        _log.info("answered", extra=self._fields("call_answered", method, "OK", request_id, seconds))

    def failed(self, method: str, code: str, request_id: str, seconds: float, error: Exception) -> None:
        """Write about a call that ended as ``code``; as an error, with its traceback, only where that is our fault."""
        reason = error.reason if isinstance(error, AnnserveError) and code != "INTERNAL" else "INTERNAL"
        fields = {**self._fields("call_failed", method, code, request_id, seconds), "reason": reason}
        if code == "INTERNAL":
            _log.error("call failed, request id %s", request_id, exc_info=error, extra=fields)
        else:
            _log.info("call refused: %s", reason, extra={**fields, "event": f"call_refused_{reason.lower()}"})

    def overloaded(self, method: str, seconds: float, error: OverloadedError) -> None:
        """Write about a call that was turned away, whose request id nobody has looked for."""
        # Thousands a second come here, and a record that is dropped costs a third of a refusal: ten a second are made.
        now = time.monotonic()
        if now < self._overloaded_due_at:
            self._overloaded_count += 1
            return
        fields = self._fields("call_overloaded", method, "UNAVAILABLE", None, seconds)
        fields |= {"reason": error.reason, "suppressed": self._overloaded_count or None}
        _log.warning("overloaded: short of %s", error.metadata["cause"], extra=fields)
        self._overloaded_count, self._overloaded_due_at = 0, now + 1.0 / EVENTS_PER_SECOND

    def _fields(self, event: str, method: str, code: str, request_id: str | None, seconds: float) -> dict[str, Any]:
        return {
            "event": event,
            "method": method,
            "code": code,
            "request_id": request_id,
            "dur_ms": round(seconds * 1e3, 3),
            "snapshot_id": self._snapshot_id,
        }
