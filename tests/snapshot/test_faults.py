"""Half a write is no write: builds that are killed, or that the disk fails, at every change they make to the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BUILDS = Path(__file__).with_name("build_under_faults.py")


def test_no_fault_during_a_build_harms_the_store(tmp_path: Path) -> None:
    # A process of its own, with one thread: it forks, limits its file sizes, and its audit hooks stay for ever.
    run = subprocess.run(
        [sys.executable, BUILDS, tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["broken"] == []
    assert found["left"] == []
    assert found["changes"] > 50
    assert found["ends"] == {
        "killed_at: killed": found["changes"],
        "killed_at: built": 1,
        # The first change is to make the root, which is there already.
        "failing_at: built": 1,
        "failing_at: refused": found["changes"] - 1,
        "full_from: refused": found["changes"],
        "cut_off_at: refused": 8,
        "killed_at_byte: killed": 8,
    }
