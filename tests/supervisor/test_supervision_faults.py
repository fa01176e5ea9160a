"""Faults that meet each other: minds changed during a change, no process to be had, orphans, a mute keeper."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import psutil
import pytest
from supervised import TIMEOUT_SECONDS, Supervised, lives

from annserve.domain.errors import ActivationRefusedError
from annserve.supervisor.supervisor import POINT_SECONDS


async def test_a_current_that_moves_back_while_the_other_is_loaded_is_what_is_served(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()
    toy.set("slow")
    (toy.folder / "CURRENT").write_text("B")
    toy.until(lambda: len(toy.lines("loads")) == 2)
    (toy.folder / "CURRENT").write_text("A")
    time.sleep(0.3)
    toy.clear("slow")

    toy.until(lambda: len(toy.lines("loads")) == 3 and toy.forks() == 3)
    last = toy.pids("forks")[-1]
    toy.until(lambda: all(pid == last or not lives(pid) for pid in toy.pids("forks")))
    assert (await toy.ask("status"))["snapshot_id"] == "A"


async def test_the_last_of_two_activations_is_what_is_served(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()
    toy.set("slow")
    first = asyncio.create_task(toy.ask("activate", snapshot_id="B"))
    while len(toy.lines("loads")) < 2:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(toy.ask("activate", snapshot_id="A"))
    await asyncio.sleep(0.2)
    assert not second.done()
    toy.clear("slow")

    await asyncio.gather(first, second)
    assert (await toy.ask("status"))["snapshot_id"] == "A"


def test_term_during_a_change_of_snapshots_leaves_nothing(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    toy.set("slow")
    (toy.folder / "CURRENT").write_text("B")
    toy.until(lambda: len(toy.lines("loads")) == 2)

    toy.process.send_signal(signal.SIGTERM)

    assert toy.exit_code() == 0
    assert not any(map(lives, [*toy.pids("loads"), *toy.pids("forks")]))
    assert not list(toy.folder.glob("annserve-*"))


def test_a_loader_that_may_not_fork_keeps_the_workers_it_has_and_forks_when_it_may(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    time.sleep(1.1)
    first, second = toy.pids("forks")
    toy.set("no-processes")

    os.kill(first, signal.SIGKILL)
    toy.until(lambda: "no process to be had" in toy.log())
    assert lives(second)
    assert toy.forks() == 2
    toy.clear("no-processes")

    toy.until(lambda: toy.forks() == 3)
    assert len(toy.lines("loads")) == 1


def test_orphans_do_not_stay_as_zombies(toy: Supervised) -> None:
    toy.start(1, "127.0.0.1:0", "/bin/sh", "-c", f"sleep 0.1 & echo $! >> {toy.folder}/orphans")
    toy.ready()
    toy.until(lambda: toy.lines("orphans"))
    orphan = toy.pids("orphans")[0]
    for pid in [*toy.pids("forks"), *toy.pids("loads")]:
        os.kill(pid, signal.SIGKILL)

    toy.until(lambda: not psutil.pid_exists(orphan))
    toy.until(lambda: len(toy.lines("loads")) == 2 and toy.forks() == 2)
    family = psutil.Process(toy.process.pid).children(recursive=True)
    toy.until(lambda: all(not one.is_running() or one.status() != psutil.STATUS_ZOMBIE for one in family))


def test_a_keeper_that_never_shows_that_it_lives_is_replaced(toy: Supervised) -> None:
    # One that begins when its supervisor has gone ends by itself too.
    silent = "import os, time; parent = os.getppid()\n"
    silent += "for _ in range(300): os.getppid() == parent or os._exit(0); time.sleep(0.1)"
    toy.start(1, "127.0.0.1:0", sys.executable, "-c", silent)
    toy.ready()

    toy.until(lambda: "annserve_keeper_starts_total 2.0" in toy.get("/metrics")[1])
    assert "the keeper" in toy.log()


async def test_what_was_activated_before_is_no_wish_when_it_becomes_the_live_one_late(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()

    await toy.ask("activate", snapshot_id="B")
    await toy.ask("activate", snapshot_id="A")
    (toy.folder / "CURRENT").write_text("B")
    await asyncio.sleep(0.5)
    (toy.folder / "CURRENT").write_text("A")
    await asyncio.sleep(POINT_SECONDS)

    assert len(toy.lines("loads")) == 3
    # Whoever moves it afterwards is heard.
    (toy.folder / "CURRENT").write_text("B")
    toy.until(lambda: len(toy.lines("loads")) == 4)


async def test_a_snapshot_whose_workers_fall_one_after_another_is_refused_though_each_served(toy: Supervised) -> None:
    # Beside workers that answer, new ones come a few at a time: all of these never serve at once.
    toy.start(workers=4)
    toy.ready()
    first = toy.pids("forks")
    toy.set("fall-generation-2")

    with pytest.raises(ActivationRefusedError):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await toy.ask("activate", snapshot_id="B")

    status = await toy.ask("status")
    assert (status["snapshot_id"], status["last_swap"]["cause"]) == ("A", "WORKERS_NOT_SERVING")
    assert all(map(lives, first))
