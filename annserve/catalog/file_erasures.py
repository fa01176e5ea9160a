"""Erasures in a file: a log of JSON Lines."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from annserve.domain.erasure import Erasure
from annserve.domain.errors import CatalogUnavailableError
from annserve.snapshot.files import locked, sync


class FileErasureStore:
    """The log at ``path``, which need not be there yet; implements `domain.erasure.ErasureStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def add(self, erasure: Erasure) -> None:
        """Remember ``erasure``."""
        await asyncio.to_thread(self._add, erasure)

    async def since(self, erased_ms: int) -> Sequence[Erasure]:
        """Return the erasures of ``erased_ms`` or later."""
        return await asyncio.to_thread(self._since, erased_ms)

    async def close(self) -> None:
        """Nothing is held open."""

    def _add(self, erasure: Erasure) -> None:
        line = json.dumps({"digest": erasure.digest, "erased_ms": erasure.erased_ms}).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._path.with_name(f".{self._path.name}.lock")), self._path.open("ab") as file:
                # On a line of its own, whatever a writer that was cut off has left.
                file.write(b"\n" + line + b"\n")
                file.flush()
                os.fsync(file.fileno())
                sync(self._path.parent)
        except OSError as error:
            raise CatalogUnavailableError(f"erasures cannot be written: {error.strerror}") from error

    def _since(self, erased_ms: int) -> list[Erasure]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CatalogUnavailableError(f"erasures cannot be read: {error.strerror}") from error
        last: dict[str, int] = {}
        for erasure in map(_parsed, lines):
            if erasure is not None and erasure.erased_ms >= erased_ms:
                last[erasure.digest] = max(last.get(erasure.digest, 0), erasure.erased_ms)
        return [Erasure(digest=digest, erased_ms=erased) for digest, erased in last.items()]


def _parsed(line: bytes) -> Erasure | None:
    try:
        value = json.loads(line)
        return Erasure(digest=str(value["digest"]), erased_ms=int(value["erased_ms"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
