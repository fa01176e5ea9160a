"""A loader and its workers, as the supervisor sees them: as many as wanted, none that hangs."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from annserve.domain.errors import ActivationRefusedError
from annserve.supervisor.backoff import BackOff
from annserve.supervisor.board import SLOTS, Board, SlotState
from annserve.supervisor.children import STOP_SECONDS, Nursery, cause_of
from annserve.supervisor.counters import Counters
from annserve.supervisor.messages import Message, pair, receive, send
from annserve.supervisor.orders import LoaderOrders
from annserve.supervisor.settings import SupervisorSettings

BOOT_FAILURES_MAX: Final = 3
"""A snapshot whose workers fail so often before all of them serve is not taken into service."""

LIVED_SECONDS: Final = 1.0
"""A worker that served for so long was started well."""

FROM_OUTSIDE: Final = frozenset({"SIGKILL", "SIGTERM", "SIGINT"})
"""Ends that say nothing of how well a worker that served was started."""

_FORK_SECONDS: Final = 10.0
_KILL_SECONDS: Final = 2.0
_GENTLE_PARTS: Final = 4
"""While others answer, workers are started in about so many parts."""

_log = logging.getLogger(__name__)


class Stage(IntEnum):
    """How far a worker is; the board says it of itself, this is what the supervisor did and saw."""

    FORKING = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3
    ABORTED = 4
    """Told to say where it hangs, by SIGABRT."""
    KILLED = 5


_SIGNALS: Final = {
    Stage.DRAINING: signal.SIGTERM,
    Stage.ABORTED: signal.SIGABRT,
    Stage.KILLED: signal.SIGKILL,
}


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker."""

    slot: int
    stage: Stage = Stage.FORKING
    since: float
    """When the stage began, on the monotonic clock."""
    pid: int = 0
    served_since: float | None = None
    is_leaving: bool = False
    """It is one too many, or is to be replaced: it is drained once enough others serve."""
    is_proven: bool = False
    """It served for `LIVED_SECONDS`."""
    hung: bool = False

    def enter(self, stage: Stage, now: float) -> None:
        """Begin ``stage``."""
        self.stage = stage
        self.since = now


@dataclass(slots=True, kw_only=True)
class Slots:
    """Which slots are in use. A slot is free again when its process has ended, not before."""

    taken: set[int] = field(default_factory=set)

    @property
    def are_all_taken(self) -> bool:
        """Whether somebody must end before another can begin: many generations may be leaving slowly."""
        return len(self.taken) == SLOTS

    def take(self, preferred: Sequence[int]) -> int:
        """Take the first of ``preferred`` that is free, or else the lowest that is."""
        slot: int = next(slot for slot in (*preferred, *range(SLOTS)) if slot not in self.taken)
        self.taken.add(slot)
        return slot


class Generation:
    """One loader's life: it loads, forks as many workers as `want` says, and ends after the last when none is wanted.

    `loaded` and `staffed` say how the beginning went; both fail with ActivationRefusedError.
    """

    def __init__(
        self,
        number: int,
        snapshot_id: str | None,
        settings: SupervisorSettings,
        board: Board,
        slots: Slots,
        nursery: Nursery,
        counters: Counters,
        slot_left: Callable[[int], None],
        *,
        is_gentle: bool = False,
    ) -> None:
        self.number = number
        self.snapshot_id = snapshot_id
        """What it is to load; what it has loaded once `loaded` is done."""
        self.workers: dict[int, Worker] = {}
        self.loader_pid: int | None = None
        self.report: Message = {}
        self.loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.staffed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when as many workers serve as were wanted, for the first time."""
        self.is_retired = False
        self._settings = settings
        self._board = board
        self._slots = slots
        self._nursery = nursery
        self._counters = counters
        self._slot_left = slot_left
        self._is_gentle = is_gentle
        """Whether others answer calls meanwhile, on processors that the start of a worker keeps busy."""
        self._backoff = BackOff()
        self._boot_failures = 0
        self._wanted = 0
        self._vacated: list[int] = []
        self._control: socket.socket | None = None
        self._loader_since = 0.0
        self._ending_since: float | None = None
        for future in (self.loaded, self.staffed):
            # Whether anybody waits for it is not this one's business.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    # Its beginning.

    def start(self, orders: Callable[[int], LoaderOrders], command: Sequence[str]) -> None:
        """Start the loader; ``orders`` makes what it is told, given the descriptor of its end of the conversation."""
        ours, theirs = pair()
        ours.setblocking(False)
        told = orders(theirs.fileno())
        fds = (told.control_fd, told.board_fd, told.lifeline_fd)
        try:
            self.loader_pid = self._nursery.spawn([*command, *told.arguments()], fds, self._loader_ended)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        self._loader_since = time.monotonic()
        asyncio.get_running_loop().add_reader(ours, self._listen)

    @property
    def has_loader(self) -> bool:
        """Whether it can have workers forked."""
        return self.loader_pid is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return self.loader_pid is None and not self.workers

    @property
    def serving_count(self) -> int:
        """How many workers answer calls, those that are leaving included."""
        return sum(worker.stage is Stage.SERVING for worker in self.workers.values())

    # What is wanted of it.

    def want(self, count: int) -> None:
        """Have ``count`` workers from now on."""
        self._wanted = count
        self.tick(time.monotonic(), may_judge=False)

    def replace(self, slot: int) -> None:
        """Have another worker take over from the one in ``slot``, which then drains."""
        self.workers[slot].is_leaving = True
        self.tick(time.monotonic(), may_judge=False)

    def retire(self) -> None:
        """Drain all workers and end."""
        self.is_retired = True
        if not self.loaded.done() or self.loaded.exception() is not None:
            # Nothing is lost with a loader that has forked nobody, and it does not listen while it loads.
            self.kill_loader()
        self.want(0)

    def hurry(self) -> None:
        """Tell all that drain once more: for a server that means at once."""
        for worker in self.workers.values():
            self._signal(worker, signal.SIGTERM)

    def kill(self) -> None:
        """Kill what is left."""
        for worker in self.workers.values():
            self._end(worker, Stage.KILLED, time.monotonic())
        self.kill_loader()

    def kill_loader(self) -> None:
        """Kill the loader; its workers serve on, as children of the supervisor."""
        if self.loader_pid is not None:
            self._nursery.signal(self.loader_pid, signal.SIGKILL)

    # What happens to it.

    def tick(self, now: float, *, may_judge: bool) -> None:
        """Look at every process, end what hangs, and fork or drain until what is there is what is wanted.

        Args:
            now: The monotonic clock.
            may_judge: Whether a silent worker may be taken for hung; not when the supervisor itself was held up.
        """
        for worker in list(self.workers.values()):
            self._look_at(worker, now, may_judge=may_judge)
        if not self.loaded.done() and self.has_loader and now - self._loader_since > self._settings.load_seconds_max:
            self._refuse("TIMEOUT", f"loading took more than {self._settings.load_seconds_max:g} s")
            self.kill_loader()
        self._adjust(now)
        self._end_loader_when_over(now)

    def _look_at(self, worker: Worker, now: float, *, may_judge: bool) -> None:
        entry = self._board.entry(worker.slot)
        spent = now - worker.since
        silent = now - max(entry.heartbeat, worker.served_since or 0.0)
        match worker.stage:
            case Stage.FORKING:
                self._look_at_fork(worker, entry.pid, now, spent)
            case Stage.STARTING:
                if entry.state is SlotState.SERVING:
                    worker.enter(Stage.SERVING, now)
                    worker.served_since = now
                elif spent > self._settings.start_seconds_max:
                    self._abort(worker, now, f"did not answer after {self._settings.start_seconds_max:g} s")
            case Stage.SERVING if may_judge and silent > self._settings.heartbeat_seconds_max:
                self._abort(worker, now, f"has not shown for {silent:.1f} s that it lives")
            case Stage.SERVING:
                if entry.state is SlotState.DRAINING:
                    # Told by somebody else. It is replaced now, not when it has ended.
                    worker.is_leaving = True
                    worker.enter(Stage.DRAINING, now)
                elif spent > LIVED_SECONDS and not worker.is_proven:
                    worker.is_proven = True
                    self._backoff.lived()
            case Stage.DRAINING:
                # A second more than the worker itself takes to cut off what is left.
                if spent > self._settings.drain_grace_ms / 1_000 + 1.0:
                    _log.warning("the worker in slot %d (pid %d) is killed: it does not end", worker.slot, worker.pid)
                    self._end(worker, Stage.KILLED, now)
            case Stage.ABORTED:
                if spent > self._settings.abort_seconds:
                    self._end(worker, Stage.KILLED, now)
            case Stage.KILLED:
                if spent > _KILL_SECONDS and self.has_loader:
                    _log.error("the loader (pid %s) does not do as it is told", self.loader_pid)
                    self.kill_loader()

    def _look_at_fork(self, worker: Worker, pid: int, now: float, spent: float) -> None:
        if self.has_loader:
            if spent > _FORK_SECONDS:
                _log.error("the loader (pid %s) does not fork", self.loader_pid)
                self.kill_loader()
        elif pid:
            self._adopt(worker, pid, now)
        elif spent > LIVED_SECONDS:
            self._left(worker, "lost")

    def _abort(self, worker: Worker, now: float, problem: str) -> None:
        _log.error("the worker in slot %d (pid %d) hangs: it %s", worker.slot, worker.pid, problem)
        worker.hung = True
        self._end(worker, Stage.ABORTED, now)

    def _end(self, worker: Worker, stage: Stage, now: float) -> None:
        worker.enter(stage, now)
        self._signal(worker, _SIGNALS[stage])

    def _adjust(self, now: float) -> None:
        """Fork and drain. New ones come first: a worker leaves when those that stay serve."""
        staying = [worker for worker in self.workers.values() if not worker.is_leaving]
        for worker in sorted(staying, key=lambda worker: worker.slot)[self._wanted :]:
            worker.is_leaving = True
            staying.remove(worker)
        missing = self._wanted - len(staying)
        if self.loaded.done() and self.has_loader:
            # After failures one by one, so that a fault they all share is met once, not by every worker.
            one_by_one = self._backoff.streak > 1
            if one_by_one or (self._is_gentle and not self.staffed.done()):
                starting = sum(worker.stage < Stage.SERVING for worker in staying)
                at_once = 1 if one_by_one else max(1, self._wanted // _GENTLE_PARTS)
                missing = min(missing, at_once - starting)
            while missing > 0 and self._backoff.is_due(now) and not self._slots.are_all_taken:
                self._fork(now)
                missing -= 1
        serving = sum(worker.stage is Stage.SERVING for worker in staying)
        if serving < self._wanted:
            return
        if self._wanted and not self.staffed.done():
            self.staffed.set_result(None)
        for worker in self.workers.values():
            # Who is being forked cannot be told yet.
            if worker.is_leaving and worker.pid and worker.stage < Stage.DRAINING:
                self._end(worker, Stage.DRAINING, now)

    def _fork(self, now: float) -> None:
        slot = self._slots.take(self._vacated)
        if slot in self._vacated:
            self._vacated.remove(slot)
        self.workers[slot] = Worker(slot=slot, since=now)
        self._tell({"do": "fork", "slot": slot})

    def _signal(self, worker: Worker, number: int) -> None:
        if self.has_loader:
            self._tell({"do": "signal", "slot": worker.slot, "signal": number})
        elif worker.pid:
            self._nursery.signal(worker.pid, number)

    def _tell(self, order: Message) -> None:
        if self._control is not None:
            try:
                send(self._control, order)
            except BlockingIOError:
                _log.error("the loader (pid %s) does not listen", self.loader_pid)
                self.kill_loader()
            except OSError:
                # It has gone; its end is on its way to here.
                return

    def _end_loader_when_over(self, now: float) -> None:
        if not self.is_retired or self.workers or not self.has_loader:
            return
        if self._ending_since is None:
            self._ending_since = now
            self._tell({"do": "end"})
        elif now - self._ending_since > STOP_SECONDS:
            self.kill_loader()

    # What the loader says.

    def _listen(self) -> None:
        """Take in everything the loader has said."""
        while self._control is not None:
            try:
                message = receive(self._control)
            except BlockingIOError:
                return
            except ValueError:
                _log.exception("the loader (pid %s) talks nonsense", self.loader_pid)
                self.kill_loader()
                message = None
            if message is None:
                self._hang_up()
            else:
                self._heard(message)

    def _heard(self, message: Message) -> None:
        now = time.monotonic()
        match message:
            case {"event": "loaded", "snapshot_id": str(snapshot_id)}:
                self.report = message
                self.snapshot_id = snapshot_id
                if not self.loaded.done():
                    self.loaded.set_result(None)
            case {"event": "refused", "reason": str(reason), "problem": str(problem)}:
                self._refuse(reason, problem)
            case {"event": "forked", "slot": int(slot), "pid": int(pid)} if slot in self.workers:
                self.workers[slot].pid = pid
                self.workers[slot].enter(Stage.STARTING, now)
                if self.workers[slot].is_leaving:
                    self._adjust(now)
            case {"event": "exited", "slot": int(slot), "status": int(status)} if slot in self.workers:
                self._left(self.workers[slot], cause_of(status))
            case {"event": "not_forked", "slot": int(slot), "problem": str(problem)} if slot in self.workers:
                _log.error("the loader (pid %s) cannot fork: %s", self.loader_pid, problem)
                self._left(self.workers[slot], "not_forked")
            case _:
                _log.error("the loader (pid %s) said what is not understood: %s", self.loader_pid, message)

    def _left(self, worker: Worker, cause: str) -> None:
        """Take note that a worker has ended, and have another take its place if it was wanted."""
        now = time.monotonic()
        cause = "hung" if worker.hung else cause
        del self.workers[worker.slot]
        self._board.clear(worker.slot)
        self._slots.taken.discard(worker.slot)
        self._slot_left(worker.slot)
        self._counters.exits[cause] += 1
        if worker.is_leaving:
            _log.info("the worker in slot %d (pid %d) has left: %s", worker.slot, worker.pid, cause)
        else:
            _log.warning("the worker in slot %d (pid %d) ended: %s", worker.slot, worker.pid, cause)
            self._vacated.append(worker.slot)
            self._count_failure(worker, cause, now)
        self._adjust(now)
        self._end_loader_when_over(now)

    def _count_failure(self, worker: Worker, cause: str, now: float) -> None:
        if worker.served_since is None:
            self._counters.boot_failures += 1
        if worker.served_since is None or cause not in FROM_OUTSIDE:
            # Also of those that served: where one falls before the next has begun, all never serve at once.
            self._boot_failures += 1
            if self._boot_failures >= BOOT_FAILURES_MAX:
                problem = f"{self._boot_failures} workers ended before all of them served, the last: {cause}"
                self._refuse_staff("WORKERS_NOT_SERVING", problem)
        if worker.served_since is None or (now - worker.served_since < LIVED_SECONDS and cause not in FROM_OUTSIDE):
            self._backoff.failed(now)

    def _refuse(self, cause: str, problem: str) -> None:
        error = ActivationRefusedError(self.snapshot_id or "", cause, problem)
        if not self.loaded.done():
            self.loaded.set_exception(error)
        self._refuse_staff(cause, problem)

    def _refuse_staff(self, cause: str, problem: str) -> None:
        if not self.staffed.done():
            self.staffed.set_exception(ActivationRefusedError(self.snapshot_id or "", cause, problem))

    def _hang_up(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None

    def _loader_ended(self, status: int) -> None:
        # Its last words first: whom it forked, who ended.
        self._listen()
        self._hang_up()
        cause = cause_of(status)
        level = logging.INFO if self.is_retired else logging.ERROR
        _log.log(
            level, "the loader (pid %s) of %s ended: %s", self.loader_pid, self.snapshot_id or "the live one", cause
        )
        self.loader_pid = None
        self._refuse("LOADER_CRASHED", f"the loader ended: {cause}")
        now = time.monotonic()
        for worker in list(self.workers.values()):
            if worker.pid:
                self._adopt(worker, worker.pid, now)
            else:
                worker.since = now

    def _adopt(self, worker: Worker, pid: int, now: float) -> None:
        worker.pid = pid
        if worker.stage is Stage.FORKING:
            worker.enter(Stage.STARTING, now)
        if not self._nursery.adopt(pid, lambda status: self._left(worker, cause_of(status))):
            self._left(worker, "lost")
        elif worker.stage in _SIGNALS:
            # The loader may have died before it passed this on.
            self._nursery.signal(pid, _SIGNALS[worker.stage])
