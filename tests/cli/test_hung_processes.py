"""What the supervisor takes for hung is told to abort, and its last words say where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from checked_traffic import two_snapshots
from instances import instance, until

REPLACED_SECONDS = 20.0


@pytest.mark.parametrize("title", ["annserve: keeper", "annserve: worker 0", "annserve: loader"])
def test_a_process_that_is_told_to_abort_says_where_it_was(tmp_path: Path, title: str) -> None:
    root = tmp_path / "snapshots"
    two_snapshots(root, 1_000)
    with instance(root, tmp_path, workers=1) as running:
        (pid,) = running.pids_titled(title)
        os.kill(pid, signal.SIGABRT)
        until(lambda: bool(found := running.pids_titled(title)) and found != [pid], REPLACED_SECONDS)
        said = running.said.read_text()
    assert "Fatal Python error: Aborted" in said
    assert "most recent call first" in said
