"""A loader of nothing, whose workers answer nobody; files in its folder say what goes wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from pathlib import Path

from annserve.supervisor.attendance import attend_worker
from annserve.supervisor.loader import Loader, LoadRefusedError, Post
from annserve.supervisor.messages import Message
from annserve.supervisor.orders import LoaderOrders

FALL_SECONDS = 0.3
"""How long workers that are to fall take to start, and then serve."""

_fork = os.fork
FOLDER = Path(sys.argv[1])


def note(name: str, text: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(text + "\n")


def load(orders: LoaderOrders) -> tuple[None, Message]:
    note("loads", f"{os.getpid()} {orders.snapshot_id}")
    chosen = orders.snapshot_id or (FOLDER / "CURRENT").read_text().strip()
    while (FOLDER / "slow").exists():
        time.sleep(0.02)
    if (FOLDER / f"crash-{chosen}").exists():
        os._exit(9)
    if (FOLDER / f"refuse-{chosen}").exists():
        raise LoadRefusedError("SNAPSHOT_CHECKSUM", "a byte is wrong")
    os.fork = fork
    return None, {"snapshot_id": chosen, "items": 3, "users": 2}


def fork() -> int:
    """Fork, unless the limit of processes is to be reached."""
    if (FOLDER / "no-processes").exists():
        raise BlockingIOError(errno.EAGAIN, "no process to be had")
    return _fork()


def work(_: None, post: Post) -> None:
    note("forks", f"{os.getpid()} {post.slot} {post.orders.generation} {time.monotonic():.3f}")
    if (FOLDER / f"fail-slot-{post.slot}").exists() or (FOLDER / f"fail-generation-{post.orders.generation}").exists():
        os._exit(3)
    falls = (FOLDER / f"fall-generation-{post.orders.generation}").exists()
    if falls:
        time.sleep(FALL_SECONDS)
    asyncio.run(attend(post, falls=falls))


async def attend(post: Post, *, falls: bool) -> None:
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)

    async def tell_health(is_healthy: bool) -> None:
        note("health", f"{post.slot} {is_healthy}")

    attending = asyncio.create_task(attend_worker(post, calls=lambda: 7, tell_health=tell_health))
    if falls:
        await asyncio.sleep(FALL_SECONDS)
        os._exit(3)
    await leaving.wait()
    while (FOLDER / "busy").exists():
        await asyncio.sleep(0.02)
    attending.cancel()


if __name__ == "__main__":
    _, _, _, argument = sys.argv
    sys.exit(Loader(LoaderOrders.of(argument), load, work).run())
