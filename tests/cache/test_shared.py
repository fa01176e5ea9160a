"""The cache of an instance, by processes as they are in one: a writer, workers, and signals that end them."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cache_process import CacheProcess

from annserve.cache.shared_writer import BYTES_MIN, CacheWriter
from annserve.domain.errors import InputError

PATIENCE_SECONDS = 10.0
ROUNDS = 8
TTL_SECONDS = 0.2
ON_TIME_SECONDS = 0.8 * TTL_SECONDS


@pytest.fixture
def folder() -> Iterator[Path]:
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="annserve-test-") as name:
        yield Path(name)


@pytest.fixture
def processes() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def start(folder: Path, processes: contextlib.ExitStack) -> Callable[..., CacheProcess]:
    def started(role: str = "worker", bytes_max: int = BYTES_MIN) -> CacheProcess:
        return processes.enter_context(CacheProcess(role, folder, *([bytes_max] if role == "writer" else [])))

    return started


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def test_what_one_worker_made_another_finds_and_then_has_itself(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    maker, asker = start(), start()

    assert maker.tell(do="ask", key="k", value="made")["sources"] == ["none"]

    eventually(lambda: asker.tell(do="get", key="k") == ["made", "instance"])
    assert asker.tell(do="get", key="k") == ["made", "worker"]
    assert asker.tell(do="ask", key="k", value="other") | {"ms": 0} == {
        "values": ["made"],
        "sources": ["worker"],
        "stale": 0,
        "computed": 0,
        "ms": 0,
    }


def test_what_has_expired_is_nowhere(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    maker, asker = start(), start()
    maker.tell(do="put", key="lasting", value="v")
    maker.tell(do="put", key="brief", value="v", ttl=1.0)
    eventually(lambda: asker.tell(do="get", key="brief"))
    eventually(lambda: asker.tell(do="get", key="brief") is None)
    eventually(lambda: maker.tell(do="get", key="brief") is None)
    assert asker.tell(do="get", key="lasting") == ["v", "instance"]
    assert maker.tell(do="get", key="lasting") == ["v", "worker"]


def test_a_flush_makes_everything_void_in_every_worker_at_once(start: Callable[..., CacheProcess]) -> None:
    writer = start("writer")
    maker, asker = start(), start()
    maker.tell(do="put", key="k", value="v")
    eventually(lambda: asker.tell(do="get", key="k"))

    writer.tell(do="flush")

    assert maker.tell(do="get", key="k") is None
    assert asker.tell(do="get", key="k") is None
    maker.tell(do="put", key="k", value="new")
    eventually(lambda: asker.tell(do="get", key="k") == ["new", "instance"])


def test_what_is_asked_for_outlasts_what_is_not_and_the_memory_reserved_is_enough(
    start: Callable[..., CacheProcess], folder: Path
) -> None:
    writer = start("writer")
    worker = start()
    worker.tell(do="put", key="cold", value="v")
    worker.tell(do="put", key="hot", value="v")
    reserved = _allocated_bytes(folder)
    for seed in range(15):
        worker.tell(do="fill", count=100, size=8_000, seed=seed)
        with CacheProcess("worker", folder) as other:  # One that has nothing of its own.
            eventually(partial(_gets, other, "hot", "v"))
    entries, used, most, failed = writer.tell(do="stored")
    assert most == BYTES_MIN
    assert used <= most
    assert failed == 0
    assert 200 < entries < 1_000
    assert _allocated_bytes(folder) == reserved
    with CacheProcess("worker", folder) as other:
        other.tell(do="get", key="hot")
        assert other.tell(do="get", key="cold") is None


def test_too_large_a_value_is_kept_by_its_worker_alone(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    maker, asker = start(), start()
    maker.tell(do="put", key="large", value="x" * 70_000)
    maker.tell(do="put", key="small", value="x" * 60_000)
    eventually(lambda: asker.tell(do="get", key="small"))
    assert asker.tell(do="get", key="large") is None
    assert maker.tell(do="get", key="large")[1] == "worker"
    assert maker.tell(do="dropped") == 1


def test_without_a_writer_a_worker_keeps_to_itself_and_joins_in_when_there_is_one(
    start: Callable[..., CacheProcess],
) -> None:
    maker, asker = start(), start()
    assert maker.tell(do="ask", key="k", clients=8)["computed"] == 1
    assert maker.tell(do="get", key="k") == ["v", "worker"]
    assert asker.tell(do="get", key="k") is None

    start("writer")
    eventually(lambda: maker.tell(do="put", key="k", value="v") or asker.tell(do="get", key="k"))


def test_a_worker_told_to_keep_to_itself_has_the_same_door(processes: contextlib.ExitStack) -> None:
    worker = processes.enter_context(CacheProcess("worker", Path("none")))
    assert worker.tell(do="ask", key="k", clients=8)["computed"] == 1
    assert worker.tell(do="get", key="k") == ["v", "worker"]


def test_a_value_that_expires_is_made_once_by_all_workers_together(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    workers = [start() for _ in range(4)]
    for worker in workers:
        worker.tell(do="be_patient", seconds=PATIENCE_SECONDS)
    times_made: list[int] = []
    end = time.monotonic() + 60.0
    while len(times_made) < ROUNDS:
        assert time.monotonic() < end, f"only {len(times_made)} rounds were on time"
        begin = time.monotonic() + 0.3
        asked = {"do": "rounds", "key": f"k{begin}", "clients": 64, "ttl": TTL_SECONDS}
        for worker in workers:
            worker.begin(**asked, start=begin, count=ROUNDS + 1, period=2 * TTL_SECONDS)
        rounds = list(zip(*(worker.heard() for worker in workers), strict=True))
        # Whom the machine holds up asks when the value has expired again, or makes one that lasts into the next round.
        times_made += [
            sum(times for times, _ in this)
            for last, this in itertools.pairwise(rounds)
            if all(seconds < ON_TIME_SECONDS for _, seconds in (*last, *this))
        ]
    assert set(times_made) == {1}


def test_a_stale_value_is_handed_out_at_once_while_one_worker_makes_it_anew(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    workers = [start(), start()]
    for worker in workers:
        worker.tell(do="be_patient", seconds=PATIENCE_SECONDS)
    workers[0].tell(do="put", key="k", value="old", ttl=0.001, stale=60.0)
    eventually(lambda: workers[1].tell(do="ask", key="k", value="old", ttl=0.001, stale=60.0)["stale"])
    eventually(lambda: workers[0].tell(do="ask", key="k", value="old", ttl=0.001, stale=60.0)["stale"])
    eventually(lambda: not any(worker.tell(do="refreshes") for worker in workers))
    before = sum(worker.tell(do="computed") for worker in workers)

    for worker in workers:
        worker.begin(do="ask", key="k", value="new", clients=64, ttl=60.0, compute_ms=1_500.0)
    outcomes = [worker.heard() for worker in workers]

    assert [outcome["values"] for outcome in outcomes] == [["old"], ["old"]]
    assert max(outcome["ms"] for outcome in outcomes) < 1_000.0, "somebody waited for it to be made"
    for worker in workers:
        eventually(partial(_gets, worker, "k", "new"))
    assert sum(worker.tell(do="computed") for worker in workers) - before == 1


def test_a_value_is_made_at_once_by_the_worker_whose_turn_it_is(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    slow, quick = start(), start()
    assert quick.tell(do="put", key="other", value="v") is None  # Both know the writer by now.
    eventually(lambda: slow.tell(do="get", key="other"))
    slow.begin(do="ask", key="k", value="slow", compute_ms=1_000.0)
    eventually(lambda: quick.tell(do="is_locked", key="k"))

    assert quick.tell(do="make_now", key="k") == "not now"
    assert slow.heard()["values"] == ["slow"]
    eventually(lambda: quick.tell(do="make_now", key="k") == "slow")

    # Asked again before others see it, who has it keeps the lock.
    assert quick.tell(do="make_now", key="m", again=True) == ["made", "v", True]

    assert quick.tell(do="make_now", key="l", gives_up=True) == "given up"
    assert quick.tell(do="make_now", key="l", value="quick") == "made"
    eventually(lambda: slow.tell(do="make_now", key="l") == "quick")
    eventually(lambda: not slow.tell(do="is_locked", key="l"))


def test_another_takes_over_at_once_from_one_that_is_killed_while_it_makes_a_value(
    start: Callable[..., CacheProcess],
) -> None:
    start("writer")
    leader, follower = start(), start()
    follower.tell(do="be_patient", seconds=PATIENCE_SECONDS)
    leader.begin(do="ask", key="k", compute_ms=60_000)
    eventually(lambda: follower.tell(do="is_locked", key="k"))
    follower.begin(do="ask", key="k", value="taken over", clients=8)
    time.sleep(0.05)

    killed = time.monotonic()
    leader.kill()
    outcome = follower.heard()

    assert outcome["values"] == ["taken over"]
    assert outcome["computed"] == 1
    assert time.monotonic() - killed < 0.2 * PATIENCE_SECONDS


def test_nobody_waits_long_for_one_that_is_stopped(start: Callable[..., CacheProcess]) -> None:
    start("writer")
    leader, follower = start(), start()
    follower.tell(do="be_patient", seconds=1.0)
    leader.begin(do="ask", key="k", compute_ms=60_000)
    eventually(lambda: follower.tell(do="is_locked", key="k"))
    leader.signal(signal.SIGSTOP)
    outcome = follower.tell(do="ask", key="k", clients=8)
    assert outcome["values"] == ["v"]
    # Once, and not one after the other.
    assert 960 <= outcome["ms"] < 1_900


def test_nothing_is_torn_and_nothing_stuck_however_often_writer_and_workers_are_killed(
    start: Callable[..., CacheProcess],
) -> None:
    seeded = random.Random(4)
    witness = start()
    witness.begin(do="churn", seconds=5.0, keys=200, size=20_000)
    running = {"writer": start("writer"), "worker": start()}
    running["worker"].begin(do="churn", seconds=60.0, keys=200, size=20_000)
    for _ in range(14):
        time.sleep(seeded.uniform(0.0, 0.1))
        role = seeded.choice(("writer", "writer", "worker"))
        running[role].end()
        running[role] = start(role)
        if role == "worker":
            running[role].begin(do="churn", seconds=60.0, keys=200, size=20_000)
    read, torn = witness.heard()
    assert read > 100
    assert torn == 0

    maker = start()
    eventually(lambda: maker.tell(do="put", key="after", value="v") or witness.tell(do="get", key="after"))


def test_too_little_room_is_told_at_once_and_with_a_way_out(folder: Path) -> None:
    with pytest.raises(InputError, match=r"cannot reserve .* are free: .*--no-shared-cache"):
        CacheWriter(folder, 4 * shutil.disk_usage(folder).total)
    assert _allocated_bytes(folder) < BYTES_MIN


def _gets(worker: CacheProcess, key: str, value: str) -> bool:
    found = worker.tell(do="get", key=key)
    return found is not None and found[0] == value


def _allocated_bytes(folder: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in folder.rglob("data.mdb"))
