"""Threads that do something again and again while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(tasks: Iterable[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Run each task in a thread of its own for the time of a block; each ends when its event is set."""
    stopping = threading.Event()
    threads = [threading.Thread(target=task, args=(stopping,)) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
