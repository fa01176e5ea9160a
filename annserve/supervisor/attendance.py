"""What a worker and the keeper do beside their work: show that they live, say what they are told, leave in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from annserve.supervisor.board import Board, SlotState
from annserve.supervisor.loader import ORPHAN_SECONDS, Post
from annserve.supervisor.orders import KeeperOrders

BEAT_SECONDS: Final = 0.25


async def attend_worker(
    post: Post, *, calls: Callable[[], int], tell_health: Callable[[bool], Awaitable[None]]
) -> None:
    """Say that the worker serves, and from then on that it lives; tell it the instance's health. Ends when cancelled.

    When the supervisor has gone it sends this process TERM, and has the kernel end it if that takes too long.

    Args:
        post: The worker's.
        calls: How many calls are under way.
        tell_health: Called first, and whenever the instance's health changes.
    """
    board, slot = post.board, post.slot
    leave_with_supervisor(post.orders.lifeline_fd)
    told = board.is_healthy
    await tell_health(told)
    board.beat(slot, calls())
    board.set_state(slot, SlotState.SERVING)
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        board.beat(slot, calls())
        if told != board.is_healthy:
            told = not told
            await tell_health(told)


async def attend_keeper(orders: KeeperOrders, board: Board) -> None:
    """Say that the keeper lives, until cancelled. When the supervisor has gone it sends this process TERM."""
    leave_with_supervisor(orders.lifeline_fd)
    while True:
        board.beat_keeper()
        await asyncio.sleep(BEAT_SECONDS)


def leave_with_supervisor(lifeline_fd: int) -> None:
    """Have the running event loop send this process TERM once the supervisor has gone; soon after, it is ended."""
    loop = asyncio.get_running_loop()

    def leave() -> None:
        loop.remove_reader(lifeline_fd)
        # The kernel's own timer and its own way to end a process: they work however busy this loop may be.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(lifeline_fd, leave)
