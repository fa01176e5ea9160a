"""A worker that has stopped, seen by clients: `loadtest/hedging.py` in short."""

from __future__ import annotations

from pathlib import Path

from hedging_trial import Outcome, calls_beside_a_stopped_worker
from instances import Instance, instance

from annserve_client import Hedging

TIMEOUT_SECONDS = 5.0
HEDGING = Hedging(after_seconds=0.3)
"""Both are long beside what a machine busy with tests may take for a call; the load test has the clients' own."""
RATE = 100.0
SECONDS = 4.0
"""Long enough that the first second attempts, on each connection to the stopped worker, are few beside the calls."""
ROUNDS_MAX = 6
"""Others on the machine may hold up any call: hedging that works shows it in some round, a broken one in none."""


async def test_hedging_cuts_the_tail_that_a_stopped_worker_makes(
    built: tuple[Path, tuple[str, str]], tmp_path: Path
) -> None:
    rounds: list[tuple[Outcome, Outcome]] = []
    with instance(built[0], tmp_path, workers=4) as running:
        while len(rounds) < ROUNDS_MAX and not (rounds and _is_cut(*rounds[-1])):
            rounds.append((await _outcome(running, None), await _outcome(running, HEDGING)))

    assert _is_cut(*rounds[-1]), rounds


def _is_cut(plain: Outcome, hedged: Outcome) -> bool:
    """Return whether the tail is five times shorter for at most one call in twenty more, and no call fails."""
    is_shorter = plain.p999_ms >= 5 * hedged.p999_ms
    return plain.failed_count > 0 and hedged.failed_count == 0 and is_shorter and hedged.extra_share <= 0.05


async def _outcome(running: Instance, hedging: Hedging | None) -> Outcome:
    return await calls_beside_a_stopped_worker(
        running, hedging, rate=RATE, seconds=SECONDS, timeout_seconds=TIMEOUT_SECONDS
    )
