from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from open_loop import Outcomes
from overload import timed


@pytest.fixture
def only_processor() -> Iterator[int]:
    """Leave this thread one processor, which another process keeps busy for as long as it is let."""
    before = os.sched_getaffinity(0)
    processor = min(before)
    os.sched_setaffinity(0, {processor})
    busy = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert busy.stdout is not None
    busy.stdout.readline()
    yield processor
    busy.kill()
    busy.wait()
    busy.stdout.close()
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("only_processor")
async def test_time_without_a_processor_is_told() -> None:
    async def spin() -> Outcomes:
        end_at = time.monotonic() + 0.3
        while time.monotonic() < end_at:
            pass
        return Outcomes()

    _, waited = await timed(spin())

    assert 0.1 < waited < 1.0
