"""An instance of real processes: what becomes of it when they die, hang, are told, or cannot begin."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from supervised import Supervised, lives

from annserve.domain.errors import ActivationRefusedError, InstanceRefusedError, UnknownWorkerError
from annserve.supervisor.loader import ORPHAN_SECONDS


def told_last(toy: Supervised, slot: int) -> str | None:
    """Return what the worker in ``slot`` was told last of the instance's health."""
    told = [health for told_slot, health in toy.lines("health") if told_slot == str(slot)]
    return told[-1] if told else None


def test_a_killed_worker_is_replaced_at_once_and_counted(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    time.sleep(1.1)  # It has proven itself.

    os.kill(toy.pids("forks")[0], signal.SIGKILL)

    assert toy.until(lambda: toy.forks() == 3) < 2.0
    toy.until(lambda: 'annserve_worker_exits_total{cause="SIGKILL"} 1.0' in toy.get("/metrics")[1])


def test_a_worker_that_stands_still_is_replaced(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    stopped = toy.pids("forks")[0]

    os.kill(stopped, signal.SIGSTOP)

    toy.until(lambda: toy.forks() == 3)
    toy.until(lambda: not lives(stopped))
    toy.until(lambda: 'annserve_worker_exits_total{cause="hung"} 1.0' in toy.get("/metrics")[1])


def test_workers_that_die_at_boot_are_started_ever_more_rarely_beside_one_that_is_well(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    time.sleep(1.1)
    toy.set("fail-slot-1")
    before = toy.forks()

    os.kill(next(int(pid) for pid, slot, *_ in toy.lines("forks") if slot == "1"), signal.SIGKILL)
    toy.until(lambda: toy.forks() == before + 6)

    times = [float(line[3]) for line in toy.lines("forks")[before:]]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    # At least 0.1 s, 0.2, 0.4 and so on; how much more is up to the machine.
    assert all(pause >= 0.09 * 2**number for number, pause in enumerate(pauses)), pauses
    assert pauses[-1] > pauses[0]


def test_a_killed_loader_is_replaced_with_its_workers_while_those_serve_on(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    first = toy.pids("forks")
    toy.set("slow")

    os.kill(toy.pids("loads")[0], signal.SIGKILL)
    toy.until(lambda: len(toy.lines("loads")) == 2)
    assert all(map(lives, first))
    assert toy.get("/readyz")[0] == 200
    toy.clear("slow")

    toy.until(lambda: toy.forks() == 4 and not any(map(lives, first)))
    assert toy.lines("loads")[1][1] == "A"


@pytest.mark.parametrize("loading", [False, True])
def test_nothing_outlives_a_killed_supervisor_by_two_seconds(toy: Supervised, loading: bool) -> None:
    if loading:
        toy.set("slow")
    toy.start(workers=3)
    toy.until(lambda: toy.lines("loads")) if loading else toy.ready()
    family = [*toy.pids("loads"), *toy.pids("forks")]
    if not loading:
        os.kill(toy.pids("forks")[0], signal.SIGSTOP)

    toy.process.kill()

    # What does not leave by itself is ended by then; less than twice that, so that none of it waits for another's end.
    assert ORPHAN_SECONDS < 2.0
    assert toy.until(lambda: not any(map(lives, family))) < 2 * ORPHAN_SECONDS


def test_term_drains_leaves_nothing_and_exits_with_0(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()
    toy.until(lambda: told_last(toy, 0) == "True")
    toy.set("busy")

    toy.process.send_signal(signal.SIGTERM)
    toy.until(lambda: told_last(toy, 0) == "False")
    toy.until(lambda: toy.get("/readyz")[0] == 503)
    assert toy.get("/livez")[0] == 200
    toy.clear("busy")

    assert toy.exit_code() == 0
    assert not any(map(lives, [*toy.pids("loads"), *toy.pids("forks")]))
    assert not list(toy.folder.glob("annserve-*"))


def test_a_second_term_hurries(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()
    toy.until(lambda: told_last(toy, 0) == "True")
    toy.set("busy")
    toy.process.send_signal(signal.SIGTERM)
    toy.until(lambda: told_last(toy, 0) == "False")

    toy.process.send_signal(signal.SIGTERM)

    assert toy.until(lambda: toy.process.poll() is not None) < 3.0
    assert toy.exit_code() == 0


def test_a_hundred_hups_are_a_few_loads_and_hup_after_term_is_none(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()

    for _ in range(100):
        toy.process.send_signal(signal.SIGHUP)
    toy.until(lambda: len(toy.lines("loads")) >= 2)
    toy.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    toy.process.send_signal(signal.SIGHUP)

    assert toy.exit_code() == 0
    assert len(toy.lines("loads")) <= 4


def test_ttin_and_ttou_add_and_take_a_worker(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()

    toy.process.send_signal(signal.SIGTTIN)
    toy.until(lambda: 'annserve_workers{state="serving"} 2.0' in toy.get("/metrics")[1])
    toy.process.send_signal(signal.SIGTTOU)
    toy.until(lambda: 'annserve_workers{state="serving"} 1.0' in toy.get("/metrics")[1])
    toy.process.send_signal(signal.SIGTTOU)
    time.sleep(0.3)

    assert 'annserve_workers{state="serving"} 1.0' in toy.get("/metrics")[1]


@pytest.mark.parametrize("while_loading", [False, True])
async def test_another_live_snapshot_is_served_and_the_old_workers_leave(toy: Supervised, while_loading: bool) -> None:
    if while_loading:
        toy.set("slow")
    toy.start(workers=2)
    toy.until(lambda: toy.lines("loads")) if while_loading else toy.ready()
    time.sleep(0.3)

    (toy.folder / "CURRENT").write_text("B")
    time.sleep(0.3)
    if while_loading:
        toy.clear("slow")
    toy.ready()
    toy.until(lambda: toy.forks() == 4)
    first = toy.pids("forks")[:2]
    toy.until(lambda: not any(map(lives, first)))

    assert (await toy.ask("status"))["snapshot_id"] == "B"
    assert {worker["snapshot_id"] for worker in (await toy.ask("workers"))["workers"]} == {"B"}


@pytest.mark.parametrize(
    ("flag", "cause"),
    [("refuse-B", "SNAPSHOT_CHECKSUM"), ("crash-B", "LOADER_CRASHED"), ("fail-generation-2", "WORKERS_NOT_SERVING")],
)
async def test_what_cannot_be_served_leaves_the_old_snapshot_and_says_why(
    toy: Supervised, flag: str, cause: str
) -> None:
    toy.start(workers=2)
    toy.ready()
    first = toy.pids("forks")
    toy.set(flag)

    with pytest.raises(ActivationRefusedError) as refused:
        await toy.ask("activate", snapshot_id="B")

    status = await toy.ask("status")
    assert refused.value.metadata["cause"] == status["last_swap"]["cause"] == cause
    assert (status["snapshot_id"], status["is_serving"]) == ("A", True)
    assert all(map(lives, first))
    toy.until(lambda: 'annserve_index_swaps_total{outcome="refused"} 1.0' in toy.get("/metrics")[1])


@pytest.mark.parametrize("flag", ["refuse-A", "crash-A", "fail-slot-0"])
def test_an_instance_that_cannot_serve_at_all_ends_with_the_reason(toy: Supervised, flag: str) -> None:
    toy.set(flag)
    toy.start(workers=1)

    assert toy.exit_code() == 1
    assert "refused: snapshot" in toy.log()
    assert not list(toy.folder.glob("annserve-*"))


def test_a_keeper_that_cannot_be_started_keeps_nobody_from_serving(toy: Supervised) -> None:
    toy.start(1, "127.0.0.1:0", "/nonexistent/keeper")

    assert toy.ready()["items"] == 3
    assert "the keeper cannot be started" in toy.log()


def test_a_second_instance_on_the_port_is_refused_and_a_killed_ones_port_is_free(toy: Supervised) -> None:
    toy.start(workers=1)
    address = toy.ready()["address"]
    other = Supervised(toy.folder)

    other.start(1, address)
    assert other.exit_code() == 1
    assert "the port is in use" in toy.log()
    toy.process.kill()
    toy.process.wait()
    (left,) = toy.folder.glob("annserve-*")
    toy.start(1, address)

    assert toy.ready()["address"] == address
    assert not left.exists()


async def test_the_control_socket_says_how_it_is_and_does_as_told(toy: Supervised) -> None:
    toy.start(workers=1)
    toy.ready()

    await toy.ask("scale", workers=3)
    workers = (await toy.ask("workers"))["workers"]
    assert [(worker["slot"], worker["state"]) for worker in workers] == [(slot, "serving") for slot in range(3)]
    assert {worker["call_count"] for worker in workers} == {7}
    await toy.ask("restart_worker", slot=1)
    assert not lives(workers[1]["pid"])
    await toy.ask("drain")
    assert (await toy.ask("status"))["is_serving"] is False
    await toy.ask("undrain")
    toy.until(lambda: toy.get("/readyz")[0] == 200)
    await toy.ask("reload")
    assert len(toy.lines("loads")) == 2
    await toy.ask("activate", snapshot_id="A")
    assert len(toy.lines("loads")) == 2

    with pytest.raises(UnknownWorkerError):
        await toy.ask("restart_worker", slot=99)
    with pytest.raises(InstanceRefusedError):
        await toy.ask("scale", workers=1_000)


def test_probes_and_metrics_are_read_by_both_parsers(toy: Supervised) -> None:
    toy.start(workers=2)
    toy.ready()

    assert toy.get("/version") == (200, "1.2\n")
    assert [toy.get(path)[0] for path in ("/livez", "/readyz", "/startupz", "/nothing")] == [200, 200, 200, 404]
    plain = {family.name for family in prometheus(toy.get("/metrics")[1])}
    accept = "application/openmetrics-text; version=1.0.0"
    modern = {family.name for family in openmetrics(toy.get("/metrics", accept)[1])}  # type: ignore[no-untyped-call]
    assert {"annserve_workers", "annserve_index_items", "annserve_worker_heartbeat_age_seconds"} <= plain & modern
