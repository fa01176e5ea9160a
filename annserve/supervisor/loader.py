"""A loader: it loads a snapshot once and forks the workers that share its memory.

The supervisor says ``fork`` (a slot), ``signal`` (a slot and a number) and ``end``; the loader says ``loaded`` or
``refused``, then ``forked`` or ``not_forked``, and ``exited``. Its loop is plain and has one thread: a process with
threads is not safe to fork.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from annserve.supervisor.board import Board
from annserve.supervisor.messages import Message, receive, send, shortened
from annserve.supervisor.orders import LoaderOrders
from annserve.supervisor.prctl import die_with_parent

ORPHAN_SECONDS: Final = 1.5
"""How long workers may take to finish when the supervisor has gone."""

_TOLD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals of terminals and service managers: for the supervisor, which tells its children itself."""

Held = TypeVar("Held")


class LoadRefusedError(Exception):
    """What was to be loaded must not be served."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason
        """A reason in capitals, as errors have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A worker's place in its instance."""

    orders: LoaderOrders
    board: Board
    slot: int


class Loader(Generic[Held]):
    """The life of a loader's process."""

    def __init__(
        self,
        orders: LoaderOrders,
        load: Callable[[LoaderOrders], tuple[Held, Message]],
        work: Callable[[Held, Post], None],
    ) -> None:
        """Be the loader of ``orders``.

        Args:
            orders: What the supervisor wants.
            load: Returns what workers share, and what to report of it: ``snapshot_id``, and whatever else is worth
                knowing; leaves no garbage, which would never be collected. It raises LoadRefusedError.
            work: What a worker does, in a process of its own, until it is told to leave.
        """
        self._orders = orders
        self._load = load
        self._work = work
        self._board = Board(orders.board_fd)
        self._control = socket.socket(fileno=orders.control_fd)
        self._slots: dict[int, int] = {}
        """The slot of each worker, by process id."""
        self._ending = False

    def run(self) -> int:
        """Load, then do as told; returns the exit code."""
        for number in _TOLD:
            signal.signal(number, signal.SIG_IGN)
        started = time.monotonic()
        # It does not look at its lifeline while it loads, and has nobody to take care of.
        die_with_parent(wanted=True)
        try:
            held, report = self._load(self._orders)
        except LoadRefusedError as refusal:
            self._tell({"event": "refused", "reason": refusal.reason, "problem": shortened(str(refusal))})
            return 1
        # What is here now is shared: the collector must not touch its pages in every worker, and so copy them.
        gc.freeze()
        die_with_parent(wanted=False)
        self._tell({"event": "loaded", **report, "seconds": time.monotonic() - started})
        return self._attend(held)

    def _attend(self, held: Held) -> int:
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        poll = select.poll()
        for fd in (woken, self._control.fileno(), self._orders.lifeline_fd):
            poll.register(fd, select.POLLIN)
        self._reap()
        while not (self._ending and not self._slots):
            ready = {fd for fd, _ in poll.poll()}
            if woken in ready:
                os.read(woken, 4_096)
                self._reap()
            if self._orders.lifeline_fd in ready:
                return self._leave()
            if self._control.fileno() in ready:
                order = receive(self._control)
                if order is None:
                    return self._leave()
                self._obey(order, held, (woken, waker))
        return 0

    def _obey(self, order: Message, held: Held, fds: tuple[int, int]) -> None:
        match order:
            case {"do": "fork", "slot": int(slot)}:
                self._fork(held, slot, fds)
            case {"do": "signal", "slot": int(slot), "signal": int(number)}:
                for pid in [pid for pid, theirs in self._slots.items() if theirs == slot]:
                    os.kill(pid, number)
            case {"do": "end"}:
                self._ending = True

    def _fork(self, held: Held, slot: int, fds: tuple[int, int]) -> None:
        _flush()
        loader = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            # A limit of processes or of memory, which may be over soon. Other workers serve on.
            self._tell({"event": "not_forked", "slot": slot, "problem": error.strerror or str(error)})
            return
        if pid == 0:
            self._be_worker(held, slot, fds, loader)
        self._slots[pid] = slot
        self._tell({"event": "forked", "slot": slot, "pid": pid})

    def _be_worker(self, held: Held, slot: int, fds: tuple[int, int], loader: int) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*_TOLD, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for fd in fds:
                os.close(fd)
            self._control.close()
            self._board.take(slot, self._orders.generation)
            if os.getppid() != loader:
                # It died before anybody could read whom it had forked: the supervisor may not know of this one.
                sys.exit(1)
            self._work(held, Post(orders=self._orders, board=self._board, slot=slot))
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - nothing of the loader's own may run on in a worker
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._slots:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            # What the loading itself may have started is nobody's worker.
            if (slot := self._slots.pop(pid, None)) is not None:
                self._tell({"event": "exited", "slot": slot, "pid": pid, "status": status})

    def _leave(self) -> int:
        """Let the workers finish, as their own lifelines tell them to; there is no instance without a supervisor."""
        give_up = time.monotonic() + ORPHAN_SECONDS
        while self._slots and time.monotonic() < give_up:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            self._slots.pop(pid, None)
            time.sleep(0.01)
        for pid in self._slots:
            os.kill(pid, signal.SIGKILL)
        return 1

    def _tell(self, message: Message) -> None:
        with suppress(OSError):  # The supervisor has gone, as the lifeline says too.
            send(self._control, message)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
