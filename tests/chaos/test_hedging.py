"""A worker that has stopped, seen by clients: `loadtest/hedging.py` in short."""

from __future__ import annotations

from pathlib import Path

from hedging_trial import calls_beside_a_stopped_worker
from instances import instance

from annserve_client import Hedging

TIMEOUT_SECONDS = 10.0
HEDGING = Hedging(after_seconds=0.1)
"""Both are long beside what a machine that is busy with tests may take for a call; the load test has shorter ones."""
RATE = 100.0
SECONDS = 6.0


async def test_hedging_cuts_the_tail_that_a_stopped_worker_makes(
    built: tuple[Path, tuple[str, str]], tmp_path: Path
) -> None:
    with instance(built[0], tmp_path, workers=4) as running:
        plain, hedged = [
            await calls_beside_a_stopped_worker(
                running, hedging, rate=RATE, seconds=SECONDS, timeout_seconds=TIMEOUT_SECONDS
            )
            for hedging in (None, HEDGING)
        ]

    assert plain.failed_count > 0
    assert hedged.failed_count == 0
    assert plain.p999_ms >= 5 * hedged.p999_ms
    # Ten second attempts are there before calls have earned any.
    assert hedged.hedge_count <= 0.05 * hedged.call_count + 10
