"""How a supervisor is spoken to: a Unix socket of its user's, a line of JSON for a question and one for its answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from annserve.domain.errors import (
    ActivationRefusedError,
    AnnserveError,
    InstanceRefusedError,
    InstanceUnavailableError,
    UnknownWorkerError,
)

Reply: TypeAlias = dict[str, Any]
Handlers: TypeAlias = Mapping[str, Callable[..., Awaitable[Reply]]]

CALL_SECONDS: Final = 600.0
"""How long a call may take: that of an activation, which loads a snapshot."""

_log = logging.getLogger(__name__)


class ControlServer:
    """Answers questions by ``handlers``, which are called with a question's fields by name."""

    def __init__(self, path: Path, handlers: Handlers) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Let everybody go."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (this is a coroutine)
        self._connections.add(task)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass  # It has gone, or we go.
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _answer(self, line: bytes) -> Reply:
        try:
            question = json.loads(line)
            handler = self._handlers[question.pop("do")]
            # Nobody waits for the answer any longer than that.
            async with asyncio.timeout(CALL_SECONDS):
                return {"ok": True, **await handler(**question)}
        except AnnserveError as error:
            return {
                "ok": False,
                "reason": error.reason,
                "fields": {key: str(value) for key, value in error.metadata.items()},
            }
        except Exception:  # noqa: BLE001 - whatever it is, who asked is told, and the supervisor goes on
            _log.exception("a question to the supervisor failed: %.200r", line)
            return {"ok": False, "reason": "UNKNOWN_QUESTION", "fields": {}}


class ControlClient:
    """Asks the supervisor whose socket is at ``path``, over a connection for each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def call(self, name: str, **fields: object) -> Reply:
        """Return what the supervisor answers to ``name``.

        Raises:
            InstanceUnavailableError: it does not answer.
            ActivationRefusedError, InstanceRefusedError, UnknownWorkerError: it will not do it.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(json.dumps({"do": name, **fields}).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError) as error:
            raise InstanceUnavailableError(f"the supervisor does not answer ({type(error).__name__})") from error
        if not line:
            raise InstanceUnavailableError("the supervisor is leaving")
        reply: Reply = json.loads(line)
        if reply.pop("ok"):
            return reply
        raise _error_of(reply["reason"], reply["fields"])


def _error_of(reason: str, fields: Mapping[str, str]) -> AnnserveError:
    if reason == ActivationRefusedError.reason:
        return ActivationRefusedError(fields["snapshot_id"], fields["cause"], fields["problem"])
    if reason == UnknownWorkerError.reason:
        return UnknownWorkerError(int(fields["slot"]))
    if reason == InstanceRefusedError.reason:
        return InstanceRefusedError(fields["cause"], fields["problem"])
    return InstanceUnavailableError(f"the supervisor does not understand ({reason})")
