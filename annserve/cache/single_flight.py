"""One look-up under way for each key, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Joins equal look-ups; one event loop uses it."""

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, look_up: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Return what the look-up of ``key`` that is under way returns, or raise what it raises; else begin one.

        It goes on when a caller leaves: another may be waiting, and what it finds is worth keeping.
        """
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(look_up())
            task.add_done_callback(lambda _task: self._under_way.pop(key, None))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Whoever is left, or nobody, takes the outcome; an error nobody waits for is no event.
            task.add_done_callback(_retrieve)
            raise


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
