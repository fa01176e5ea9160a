"""Child processes: how they are started, how their ends are learnt, and the keeper, which is to be there always."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from annserve.supervisor.backoff import BackOff

STOP_SECONDS: Final = 2.0
"""How long a keeper or a loader may take to end when told to."""

_LIVED_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Nursery:
    """The supervisor's own children, and the orphans that came to it.

    Not `subprocess`: it would take the exits of children it does not know for its own, or the other way round.
    """

    def __init__(self) -> None:
        self._ended: dict[int, Callable[[int], None]] = {}

    def spawn(self, command: Sequence[str], fds: Sequence[int], ended: Callable[[int], None]) -> int:
        """Start ``command`` and return its process id.

        Args:
            command: A program, found on the path, and its arguments.
            fds: The descriptors it inherits besides the standard ones, under their own numbers.
            ended: Called with its status, as waitpid(2) gives it, when it has ended.
        """
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                # A descriptor laid upon itself loses its close-on-exec mark, in the child only.
                *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in fds),
            ],
            # A group of its own: what is typed at a terminal is for the supervisor, which tells its children itself.
            setpgroup=0,
            setsigmask=[],
            setsigdef=[number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)],
        )
        self._ended[pid] = ended
        return pid

    def adopt(self, pid: int, ended: Callable[[int], None]) -> bool:
        """Take over a child that was its dead parent's; returns whether it is there to be taken over."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        self._ended[pid] = ended
        return True

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one of these; one that has ended already is left in peace."""
        if pid in self._ended:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def reap(self) -> None:
        """Take note of everyone who has ended; also of those nobody knows, so that they do not stay as zombies."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if ended := self._ended.pop(pid, None):
                ended(status)


class KeptChild:
    """A child that is started again whenever it ends, until `stop`."""

    def __init__(
        self,
        name: str,
        nursery: Nursery,
        start: Callable[[Callable[[int], None]], int],
        heartbeat: Callable[[], float],
        start_seconds_max: float,
        heartbeat_seconds_max: float,
        abort_seconds: float,
    ) -> None:
        """Start nothing yet; ``start`` is given what to call at the end, and returns the process id."""
        self._name = name
        self._nursery = nursery
        self._start = start
        self._heartbeat = heartbeat
        self._start_seconds_max = start_seconds_max
        self._heartbeat_seconds_max = heartbeat_seconds_max
        self._abort_seconds = abort_seconds
        self._backoff = BackOff()
        self._is_wanted = True
        self._started = 0.0
        self._kill_at: float | None = None
        self.pid: int | None = None
        self.start_count = 0

    def tick(self, now: float, *, may_judge: bool) -> None:
        """Start it if it is due; end it if it hangs, which ``may_judge`` allows to be concluded from its silence."""
        if self.pid is None:
            if self._is_wanted and self._backoff.is_due(now):
                self._started = now
                self.start_count += 1
                try:
                    self.pid = self._start(self._on_end)
                except OSError:
                    _log.exception("the %s cannot be started", self._name)
                    self._backoff.failed(now)
        elif self._kill_at is not None:
            if now >= self._kill_at:
                self._nursery.signal(self.pid, signal.SIGKILL)
        elif may_judge and now - self._last_sign() > self._heartbeat_seconds_max:
            _log.error("the %s (pid %d) hangs", self._name, self.pid)
            self._nursery.signal(self.pid, signal.SIGABRT)
            self._kill_at = now + self._abort_seconds

    def _last_sign(self) -> float:
        """Return when it last showed that it lives; before the first time, when it should at the latest."""
        return self._heartbeat() or self._started + self._start_seconds_max

    def restart(self) -> None:
        """Have it end, to be started again from the program as it is now."""
        if self.pid is not None:
            self._nursery.signal(self.pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + STOP_SECONDS
            self._backoff.lived()

    def stop(self) -> None:
        """Have it end, and not be started again."""
        self._is_wanted = False
        self.restart()

    def _on_end(self, status: int) -> None:
        now = time.monotonic()
        _log.log(
            logging.WARNING if self._is_wanted else logging.INFO,
            "the %s (pid %s) ended: %s",
            self._name,
            self.pid,
            cause_of(status),
        )
        self.pid = None
        if self._kill_at is None and now - self._started < _LIVED_SECONDS:
            self._backoff.failed(now)
        else:
            self._backoff.lived()
        self._kill_at = None


def cause_of(status: int) -> str:
    """Return why a process ended, from its status: ``done``, ``failed``, or the name of a signal."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
        return "signal"
    return "failed" if code else "done"
