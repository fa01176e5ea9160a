"""The parent of an instance: one port, one keeper, and as many workers of the live snapshot as are wanted."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from annserve.domain.errors import InstanceRefusedError, UnknownWorkerError
from annserve.supervisor.activation import Activations, Swap
from annserve.supervisor.board import WORKERS_MAX, Board, SlotState
from annserve.supervisor.children import KeptChild, Nursery
from annserve.supervisor.control import ControlServer, Handlers, Reply
from annserve.supervisor.counters import Counters
from annserve.supervisor.generation import Generation, Slots
from annserve.supervisor.ops import OpsServer, View, WorkerView
from annserve.supervisor.orders import KeeperOrders, LoaderOrders
from annserve.supervisor.port import PortReservation
from annserve.supervisor.prctl import adopt_orphans
from annserve.supervisor.runtime import RuntimeFolder
from annserve.supervisor.settings import SupervisorSettings

HELD_UP_SECONDS: Final = 1.0
"""A supervisor that was itself held up for so long judges nobody's silence at that moment."""

POINT_SECONDS: Final = 2.0
"""Within this time after a snapshot was activated through AdminService, it has become the live one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What the supervisor starts; each is given what it has to know by `orders`."""

    loader: Sequence[str]
    keeper: Sequence[str] | None = None
    """None for an instance without one."""


class Supervisor:
    """Runs an instance from `run` until a signal ends it."""

    def __init__(
        self,
        settings: SupervisorSettings,
        programs: Programs,
        current_id: Callable[[], str | None],
        version: str,
        started: Callable[[str, str | None, Generation], None] = lambda *_: None,
    ) -> None:
        """Prepare an instance.

        Args:
            settings: How to run it.
            programs: What to run.
            current_id: Looks up which snapshot is live.
            version: Of the program.
            started: Called once, when calls are answered: with the address of the service, that of the probes, and
                the generation that answers.
        """
        self._settings = settings
        self._programs = programs
        self._current_id = current_id
        self._version = version
        self._started = started
        self._wanted = settings.workers
        self._counters = Counters()
        self._nursery = Nursery()
        self._slots = Slots()
        self._generations: list[Generation] = []
        self._is_draining = False
        self._stopping = False
        self._has_served = False
        self._keeper: KeptChild | None = None
        self._changes_asked = 0
        """Changes of snapshots that AdminService waits for."""
        self._changed_at = -math.inf
        """When the last of those ended."""
        self._began_at = time.time()
        self._stops: asyncio.Queue[signal.Signals] = asyncio.Queue()

    def run(self) -> int:
        """Run until told to stop, and return the exit code.

        Raises:
            InputError: the port is taken, or there is no room for the instance's files.
            ActivationRefusedError: there is nothing to serve, and nothing has been served.
        """
        adopt_orphans()
        self._port = PortReservation(self._settings.address)
        self._board = Board.create()
        self._lifeline, lifeline_end = os.pipe2(os.O_CLOEXEC)
        self._runtime = RuntimeFolder(self._settings.runtime_parent, self._settings.runtime_bytes)
        try:
            return asyncio.run(self._run())
        finally:
            os.close(lifeline_end)
            os.close(self._lifeline)
            self._runtime.remove()
            self._port.release()
            self._board.close()

    async def _run(self) -> int:
        self._watch_signals()
        self._activations = Activations(self._begin, self._counters)
        ops = OpsServer(self._settings.ops_address, self._runtime.metrics, self._version)
        control = ControlServer(self._runtime.control_socket, self._handlers())
        ticking = asyncio.create_task(self._tick_on(ops))
        try:
            ops.start()
            await control.start()
            self._start_keeper()
            current = await asyncio.to_thread(self._current_id)
            activating = asyncio.create_task(self._activations.activate(None))
            stopping = asyncio.create_task(self._stops.get())
            await asyncio.wait({activating, stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
            watching: asyncio.Task[None] | None = None
            if activating.done():
                activating.result()
                self._has_served = True
                ops.show(self._view(time.monotonic()))
                self._started(self._port.address, ops.address, self._generations[-1])
                watching = asyncio.create_task(self._watch_current(current))
            await asyncio.wait({stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
            for task in filter(None, (watching, activating)):
                task.cancel()
            if ticking.done():
                # Nobody looks after the processes any more: better no instance than that.
                ticking.result()
            await self._drain(hurried=stopping.result() is not signal.SIGTERM)
            return 0
        finally:
            await self._end()
            ticking.cancel()
            await control.stop()
            ops.stop()

    # The instance's processes.

    def _begin(self, snapshot_id: str | None) -> Generation:
        """Start a loader of ``snapshot_id``, None for the best that can be had."""
        generation = Generation(
            1 + max((one.number for one in self._generations), default=0),
            snapshot_id,
            self._settings,
            self._board,
            self._slots,
            self._nursery,
            self._counters,
            self._slot_left,
            is_gentle=any(one.serving_count for one in self._generations),
        )
        generation.start(
            lambda control_fd: LoaderOrders(
                runtime=str(self._runtime.path),
                address=self._port.address,
                board_fd=self._board.fd,
                lifeline_fd=self._lifeline,
                generation=generation.number,
                snapshot_id=snapshot_id,
                control_fd=control_fd,
            ),
            self._programs.loader,
        )
        self._generations.append(generation)
        generation.loaded.add_done_callback(
            lambda loaded: None if loaded.cancelled() or loaded.exception() else generation.want(self._wanted)
        )
        generation.staffed.add_done_callback(lambda staffed: self._staffed(generation, staffed))
        return generation

    def _staffed(self, generation: Generation, staffed: asyncio.Future[None]) -> None:
        """Let the others go when all workers of a new generation serve; or the new one when they do not."""
        if staffed.cancelled() or staffed.exception() is not None:
            generation.retire()
        else:
            for other in self._generations:
                if other is not generation:
                    other.retire()

    def _start_keeper(self) -> None:
        command = self._programs.keeper
        if command is None:
            return
        orders = KeeperOrders(
            runtime=str(self._runtime.path),
            address=self._port.address,
            board_fd=self._board.fd,
            lifeline_fd=self._lifeline,
        )

        def start(ended: Callable[[int], None]) -> int:
            self._board.clear_keeper()
            fds = (orders.board_fd, orders.lifeline_fd)
            return self._nursery.spawn([*command, *orders.arguments()], fds, ended)

        self._keeper = KeptChild(
            "keeper",
            self._nursery,
            start,
            lambda: self._board.keeper_heartbeat,
            self._settings.start_seconds_max,
            self._settings.heartbeat_seconds_max,
            self._settings.abort_seconds,
        )

    async def _tick_on(self, ops: OpsServer) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.tick_seconds)
            now = time.monotonic()
            self._tick(now, may_judge=now - last < HELD_UP_SECONDS)
            last = now
            ops.show(self._view(now))

    def _tick(self, now: float, *, may_judge: bool) -> None:
        self._nursery.reap()
        for generation in self._generations:
            generation.tick(now, may_judge=may_judge)
        if self._keeper is not None:
            self._keeper.tick(now, may_judge=may_judge)
        self._generations = [one for one in self._generations if not (one.is_over and one.loaded.done())]
        serving = sum(one.serving_count for one in self._generations)
        self._board.is_healthy = not self._is_draining and serving >= max(1, math.ceil(self._wanted / 2))
        latest = self._latest()
        if self._has_served and not self._stopping and (latest is None or not latest.has_loader):
            # Its workers, if any, serve on; they cannot be replaced without a loader.
            self._activations.revive(None if latest is None else latest.snapshot_id, now)

    def _latest(self) -> Generation | None:
        """Return the generation that serves, or None."""
        staying = [one for one in self._generations if not one.is_retired and one.loaded.done()]
        served = [one for one in staying if one.staffed.done() and one.staffed.exception() is None]
        return served[-1] if served else None

    def _heading_for(self) -> str | None:
        """Return which snapshot is served when what is under way has come about."""
        latest, coming = self._latest(), self._activations.heading_for
        return coming if coming is not None or latest is None else latest.snapshot_id

    def _slot_left(self, slot: int) -> None:
        """Forget the gauges of a worker that has ended; what it counted stays."""
        for path in self._runtime.metrics.glob(f"gauge_live*_{slot}.db"):
            path.unlink(missing_ok=True)

    async def _watch_current(self, known: str | None) -> None:
        """Follow which snapshot is live, ``known`` before the first was loaded.

        One that was refused is not tried again until another is live, or HUP.
        """
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            # Whoever has a snapshot activated through AdminService makes it the live one afterwards: until then what is
            # live may be the one before, and is no wish.
            if self._changes_asked or time.monotonic() < self._changed_at + POINT_SECONDS:
                continue
            current = await asyncio.to_thread(self._current_id)
            if current is not None and current != known:
                known = current
                if self._heading_for() != current:
                    self._activations.wish(current)

    # Its end.

    async def _drain(self, *, hurried: bool) -> None:
        """Have health say that calls are not welcome, then let every worker finish; a second signal hurries them."""
        self._stopping = self._is_draining = True
        self._board.is_healthy = False
        hurry = asyncio.create_task(self._stops.get())
        if not hurried:
            await asyncio.wait({hurry}, timeout=self._settings.drain_delay_ms / 1_000)
        self._activations.cancel()
        for generation in self._generations:
            generation.retire()
        give_up = time.monotonic() + self._settings.drain_grace_ms / 1_000 + 2.0
        while self._generations and time.monotonic() < give_up:
            if hurry.done() or hurried:
                hurried = False
                for generation in self._generations:
                    generation.hurry()
                give_up = min(give_up, time.monotonic() + self._settings.fast_seconds)
                hurry = asyncio.create_task(self._stops.get())
            await asyncio.sleep(self._settings.tick_seconds / 2)
        hurry.cancel()

    async def _end(self) -> None:
        """End what is left."""
        self._stopping = True
        for generation in self._generations:
            generation.kill()
        if self._keeper is not None:
            self._keeper.stop()
        give_up = time.monotonic() + 5.0
        while (self._generations or (self._keeper and self._keeper.pid)) and time.monotonic() < give_up:
            await asyncio.sleep(self._settings.tick_seconds / 2)

    # What it is told.

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._nursery.reap)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stops.put_nowait, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR2, self._renew)
        loop.add_signal_handler(signal.SIGTTIN, lambda: self._scale(self._wanted + 1))
        loop.add_signal_handler(signal.SIGTTOU, lambda: self._scale(self._wanted - 1))

    def _reload(self) -> None:
        """Load the live snapshot anew, with the settings and files as they are now."""
        if not self._stopping:
            self._activations.wish(self._current_id())

    def _renew(self) -> None:
        """Start every other process anew, from the program as it is installed now."""
        if self._keeper is not None and not self._stopping:
            self._keeper.restart()
        self._reload()

    def _scale(self, workers: int) -> None:
        if self._stopping:
            return
        self._wanted = min(max(workers, 1), WORKERS_MAX)
        for generation in self._generations:
            if not generation.is_retired and generation.loaded.done():
                generation.want(self._wanted)

    def _handlers(self) -> Handlers:
        return {
            "status": self._on_status,
            "workers": self._on_workers,
            "activate": self._on_activate,
            "reload": self._on_reload,
            "scale": self._on_scale,
            "restart_worker": self._on_restart_worker,
            "drain": self._on_drain,
            "undrain": self._on_undrain,
        }

    async def _on_status(self) -> Reply:
        latest, swap = self._latest(), self._activations.last
        return {
            "version": self._version,
            "is_serving": self._board.is_healthy,
            "is_draining": self._is_draining,
            "snapshot_id": None if latest is None else latest.snapshot_id,
            "loading_snapshot_id": self._activations.loading_id,
            "wanted_worker_count": self._wanted,
            "serving_worker_count": sum(one.serving_count for one in self._generations),
            "started_at": self._began_at,
            "last_swap": None if swap is None else _as_reply(swap),
        }

    async def _on_workers(self) -> Reply:
        now = time.monotonic()
        return {
            "workers": [
                {
                    "slot": worker.slot,
                    "pid": worker.pid,
                    "state": worker.state,
                    "snapshot_id": worker.snapshot_id or "",
                    "call_count": worker.call_count,
                    "heartbeat_age_seconds": worker.heartbeat_age_seconds,
                }
                for worker in self._view(now).workers
            ]
        }

    async def _on_activate(self, snapshot_id: str) -> Reply:
        latest = self._latest()
        is_served = latest is not None and latest.has_loader and latest.snapshot_id == snapshot_id
        self._changes_asked += 1
        try:
            if not is_served or self._activations.heading_for is not None:
                self._refuse_when_stopping()
                await self._activations.activate(snapshot_id)
        finally:
            self._changes_asked -= 1
            self._changed_at = time.monotonic()
        return {}

    async def _on_reload(self) -> Reply:
        self._refuse_when_stopping()
        await self._activations.activate(self._current_id())
        return {}

    async def _on_scale(self, workers: int) -> Reply:
        if not 1 <= workers <= WORKERS_MAX:
            raise InstanceRefusedError("WORKERS", f"there can be 1 to {WORKERS_MAX}, not {workers}")
        self._scale(workers)
        while not self._stopping and (latest := self._latest()) and latest.serving_count != self._wanted:
            await asyncio.sleep(self._settings.tick_seconds)
        return {}

    async def _on_restart_worker(self, slot: int) -> Reply:
        for generation in self._generations:
            worker = generation.workers.get(slot)
            if worker is not None:
                pid = worker.pid
                generation.replace(slot)
                while (left := generation.workers.get(slot)) is not None and left.pid == pid:
                    await asyncio.sleep(self._settings.tick_seconds)
                return {}
        raise UnknownWorkerError(slot)

    async def _on_drain(self) -> Reply:
        self._is_draining = True
        self._board.is_healthy = False
        return {}

    async def _on_undrain(self) -> Reply:
        self._refuse_when_stopping()
        self._is_draining = False
        return {}

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise InstanceRefusedError("STOPPING", "it is being stopped")

    def _view(self, now: float) -> View:
        """Return how the instance is, for other threads to look at."""
        latest = self._latest()
        workers = []
        for generation in self._generations:
            for slot in sorted(generation.workers):
                entry = self._board.entry(slot)
                state = entry.state if entry.state is not SlotState.EMPTY else SlotState.STARTING
                if generation.workers[slot].is_leaving:
                    state = SlotState.DRAINING
                workers.append(
                    WorkerView(
                        slot=slot,
                        pid=entry.pid,
                        state=state.name.lower(),
                        snapshot_id=generation.snapshot_id,
                        call_count=entry.calls_under_way,
                        heartbeat_age_seconds=max(now - entry.heartbeat, 0.0) if entry.heartbeat else 0.0,
                    )
                )
        return View(
            at=now,
            is_healthy=self._board.is_healthy,
            has_served=self._has_served,
            snapshot_id=None if latest is None else latest.snapshot_id,
            report={} if latest is None else dict(latest.report),
            wanted=self._wanted,
            workers=tuple(workers),
            exits=dict(self._counters.exits),
            swaps=dict(self._counters.swaps),
            boot_failures=self._counters.boot_failures,
            keeper_starts=0 if self._keeper is None else self._keeper.start_count,
        )


def _as_reply(swap: Swap) -> Reply:
    return {
        "snapshot_id": swap.snapshot_id or "",
        "cause": swap.cause,
        "problem": swap.problem,
        "ended_at": swap.ended_at,
    }
