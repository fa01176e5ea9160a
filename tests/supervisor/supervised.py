"""A toy instance, in processes of its own, for one test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from annserve.supervisor.control import ControlClient

TIMEOUT_SECONDS = 15.0
_PROGRAM = Path(__file__).with_name("toy_supervisor.py")


class Supervised:
    """What it does is in files of ``folder``, which also say what is to go wrong; see `toy_loader`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "CURRENT").write_text("A")

    def start(self, workers: int = 2, address: str = "127.0.0.1:0", *keeper: str) -> None:
        (self.folder / "ready").unlink(missing_ok=True)
        command = [sys.executable, str(_PROGRAM), str(self.folder), address, str(workers), *keeper]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        family = [self.process.pid, *self.pids("loads"), *self.pids("forks")]
        for pid in family:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.wait(TIMEOUT_SECONDS)

    def set(self, flag: str) -> None:
        (self.folder / flag).touch()

    def clear(self, flag: str) -> None:
        (self.folder / flag).unlink()

    def ready(self) -> dict[str, Any]:
        self.until((self.folder / "ready").exists)
        answer: dict[str, Any] = json.loads((self.folder / "ready").read_text())
        return answer

    def lines(self, name: str) -> list[list[str]]:
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self, name: str) -> list[int]:
        return [int(line[0]) for line in self.lines(name)]

    def forks(self) -> int:
        return len(self.lines("forks"))

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, holds: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> float:
        """Wait until ``holds``, and return how long that took."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, self.log()
            time.sleep(0.01)
        return time.monotonic() - began

    def exit_code(self) -> int:
        return self.process.wait(TIMEOUT_SECONDS)

    def get(self, path: str, accept: str = "") -> tuple[int, str]:
        """Return status and text of what the ops port answers."""
        request = Request(f"http://{self.ready()['ops']}{path}", headers={"Accept": accept})
        try:
            with urlopen(request, timeout=5) as response:  # noqa: S310
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    async def ask(self, name: str, **fields: object) -> dict[str, Any]:
        (socket,) = self.folder.glob("annserve-*/control.sock")
        return await ControlClient(socket).call(name, **fields)


def lives(pid: int) -> bool:
    """Return whether ``pid`` is a process that has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
