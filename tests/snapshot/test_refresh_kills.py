"""A refresh that is killed, wherever that is, leaves what was live, or the new one, whole; the next goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REFRESHES = Path(__file__).with_name("refresh_under_kills.py")


def test_a_refresh_that_is_killed_harms_nothing_and_the_next_goes_through(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, REFRESHES, tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REFRESHES.parents[1])},
    )

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["broken"] == []
    assert found["ends"]["stage: killed"] == len(found["stages"]) > 5
    assert found["ends"]["change: killed"] > 14
    assert set(found["ends"]) == {"stage: killed", "change: killed", "change: live"}
