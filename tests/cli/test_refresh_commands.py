"""The loop closes from the command line: what users did, in a log or in MongoDB, becomes the next snapshot."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from drifting import DRIFT_DAY, SETTINGS, Deed, before, drifting, events_of, shuffled
from mongod import MongoServer

from annserve.catalog.config import CatalogConfig
from annserve.catalog.event_lines import line_of
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import HistoryEntry
from annserve.domain.erasure import Erasure, digest_of
from annserve.domain.events import Event, EventType
from annserve.search.cost import CostModel
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

DEEDS = drifting()
SET = [option for name, value in SETTINGS.items() for option in ("--set", f"{name}={value}")]
FAR_MS = 2**45

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the command line in a folder of its own."""

    def run(*arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        files = {
            f"ANNSERVE_{name}": str(tmp_path / path)
            for name, path in (
                ("SNAPSHOTS", "snapshots"),
                ("EVENTS", "events.jsonl"),
                ("ERASED_USERS", "erased_users.jsonl"),
            )
        }
        done = subprocess.run(
            [sys.executable, "-m", "annserve.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | files | environment,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def log(folder: Path, events: Sequence[Event]) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join(map(line_of, events)))
    return path


def manifest_of(store: SnapshotStore, number: int = 0) -> Any:
    manifest = store.info(store.ids()[number]).manifest
    assert manifest is not None
    return manifest


def test_a_scheduler_is_told_what_became_of_it(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    path = log(tmp_path, events_of(before(DEEDS, DRIFT_DAY)))
    run("train", "--from", path, *SET)
    (old,) = store.ids()
    log(tmp_path, events_of(DEEDS))

    published = json.loads(run("refresh", "--json").stdout)
    again = json.loads(run("refresh", "--from", "events.jsonl", "--json").stdout)

    assert (published["outcome"], published["live_before_snapshot_id"], published["live"]) == ("published", old, True)
    assert published["gate"]["baseline"] == "live"
    assert published["gate"]["difference"][1] > 0.2
    assert published["search_recall"]["affinity"] >= 0.98
    assert published["data"]["interaction_count"] == len(DEEDS)
    assert (again["outcome"], again["snapshot_id"]) == ("nothing_new", published["snapshot_id"])
    assert store.current_id() == published["snapshot_id"]


def test_a_refusal_has_a_code_of_its_own_and_says_why(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    log(tmp_path, events_of(before(DEEDS, DRIFT_DAY)))
    run("train", "--from", "events", *SET)
    old = store.current_id()
    log(tmp_path, events_of(shuffled(DEEDS)))

    refused = run("refresh", code=3)
    summary = json.loads(run("refresh", "--json", code=3).stdout)

    assert f"refused, {old} stays live" in refused.stderr
    assert "all-time popularity" in refused.stdout
    assert (summary["outcome"], summary["snapshot_id"]) == ("refused", None)
    assert "popularity" in summary["problem"]
    assert store.ids() == [old]
    assert load_current(store, cost=CostModel()).snapshot.id == old


def test_items_that_placements_name_do_not_go_unnoticed(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    gone = Event(event_id="g", type=EventType.CLICK, user_id="u1", item_ids=("gone",), time_ms=DEEDS[0].time_ms)
    log(tmp_path, [gone, *events_of(before(DEEDS, DRIFT_DAY))])
    run("train", "--from", "events", *SET)
    (old,) = store.ids()
    log(tmp_path, events_of(DEEDS))
    kept = str(DEEDS[0].item)
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "cart.yaml").write_text(
        f"mode: similar\npins: [{{rank: 1, item: {kept!r}}}]\nfilter: item.nobody_declared_this == 1\n"
        "experiment: {name: e, variants: {a: {share: 1, fallback: [{items: [gone, never]}]}}}"
    )

    refused = json.loads(run("refresh", "--placements", folder, "--refuse-lost-items", "--json", code=3).stdout)
    elsewhere = run("refresh", "--placements", "nowhere", code=1)
    warned = run("refresh", ANNSERVE_PLACEMENTS=str(folder))

    assert refused["lost_items"] == {"cart": ["gone"]}
    assert "placements: cart loses gone" in refused["problem"]
    assert refused["live_before_snapshot_id"] == old
    assert "there is no folder of placements at nowhere" in elsewhere.stderr
    assert "placement cart names items that only the live snapshot has: gone" in warned.stderr
    assert len(store.ids()) == 2


def test_two_at_once_are_one(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    log(tmp_path, events_of(DEEDS))

    with store.refreshing() as is_alone:
        assert is_alone
        busy = run("refresh", "--json", code=4)

    assert json.loads(busy.stdout)["outcome"] == "busy"
    assert "under way" in busy.stderr
    assert store.ids() == []


def test_what_cannot_be_used_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    log(tmp_path, [])

    for arguments, code, said in (
        (("refresh", "--from", "nowhere.jsonl"), 1, "nowhere.jsonl"),
        (("refresh", "--from", "http://x"), 1, "mongodb://"),
        (("refresh",), 1, "no rows"),
        (("refresh", "--window", "soon"), 2, "7d"),
        (("refresh", "--set", "factrs=8"), 1, "there is no such setting"),
        (("train", "--demo", "--from", "events"), 2, "--from"),
    ):
        assert said in run(*arguments, code=code).stderr
    assert "disliked" in run("refresh", code=1, ANNSERVE_EVENT_WEIGHTS="dislike=1").stderr
    (tmp_path / "events.jsonl").unlink()
    said = run("refresh", code=1).stderr
    assert f"annserve: {tmp_path / 'events.jsonl'}: no events there; name where they are with --from" in said
    assert "--from events" not in said


def test_too_little_data_is_said_with_its_age_and_the_option(run: Run, tmp_path: Path) -> None:
    log(tmp_path, events_of(before(DEEDS, 3)))

    said = run("refresh", *SET, code=3).stderr

    assert "the oldest is of 2026-01-01 00:21; take a shorter window (--window) than 7 days" in said


def test_erased_users_are_left_out_and_bad_rows_are_counted(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    bad = Event(event_id="bad", type=EventType.CLICK, user_id="u1", item_ids=("",), time_ms=DEEDS[0].time_ms)
    disliked = Event(event_id="no", type=EventType.DISLIKE, user_id="u2", item_ids=("x",), time_ms=DEEDS[0].time_ms)
    path = log(tmp_path, [*events_of(DEEDS), bad, disliked])
    erased = {"digest": digest_of("u0"), "erased_ms": FAR_MS}
    (tmp_path / "erased_users.jsonl").write_text(json.dumps(erased) + "\n")

    said = run("train", "--from", path, *SET).stderr

    assert f"left out 1 of {len(DEEDS) + 1:,} rows: invalid item id: 1" in said
    assert "users who were erased" in said
    assert manifest_of(store).kinds.users.count == 119
    assert manifest_of(store).kinds.items.count == 160


def test_events_count_as_the_settings_say(run: Run, store: SnapshotStore, tmp_path: Path) -> None:
    log(tmp_path, events_of(DEEDS))
    options = ("train", "--from", "events", *SET, "--json")

    for weights in ("click=1", "click=3.5", "conversion=4,click=0"):
        code = 1 if weights.startswith("conversion") else 0
        run(*options, code=code, ANNSERVE_EVENT_WEIGHTS=weights)

    digests = {manifest_of(store, number).metrics["data"]["digest"] for number in range(2)}
    assert len(digests) == 2


@pytest.mark.parametrize("layout", ["documents", "events"])
def test_events_and_histories_in_mongodb_are_one_past(
    run: Run, store: SnapshotStore, tmp_path: Path, mongod: MongoServer, database_name: str, layout: str
) -> None:
    config = {"mongodb": {"database": database_name, "histories": {"layout": layout}}}
    (tmp_path / "catalog.yaml").write_text(json.dumps(config))
    environment = {"ANNSERVE_CATALOG": mongod.uri, "ANNSERVE_CATALOG_CONFIG": str(tmp_path / "catalog.yaml")}

    async def write(events: Sequence[Deed], histories: Sequence[Deed]) -> None:
        catalog = MongoCatalog(mongod.uri, CatalogConfig.model_validate(config))
        kept = catalog.event_store()
        for start in range(0, len(events), 1_000):
            await kept.write(events_of(events[start : start + 1_000]))
        for user in dict.fromkeys(deed.user for deed in histories):
            entries = [
                HistoryEntry(item_id=deed.item, event="bought", time_ms=deed.time_ms)
                for deed in histories
                if deed.user == user
            ]
            await catalog.add_history(user, [*entries, HistoryEntry(item_id="z", event="disliked", time_ms=1)])
        await catalog.erasure_store().add(Erasure(digest=digest_of("u0"), erased_ms=FAR_MS))
        await catalog.close()

    past = before(DEEDS, DRIFT_DAY)
    asyncio.run(write([], past))
    first = run("train", "--from", mongod.uri, "--catalog-config", "catalog.yaml", *SET)
    asyncio.run(write([deed for deed in DEEDS if deed.day >= DRIFT_DAY], []))
    second = json.loads(run("refresh", "--json", **environment).stdout)
    third = json.loads(run("refresh", "--json", **environment).stdout)

    assert "'disliked' 120" in first.stderr
    assert second["outcome"] == "published"
    assert second["data"]["interaction_count"] == len([deed for deed in DEEDS if deed.user != "u0"])
    assert second["gate"]["difference"][1] > 0.2
    assert third["outcome"] == "nothing_new"
    assert manifest_of(store, 0).kinds.users.count == 119
    assert second["data"]["newest_ms"] == max(deed.time_ms for deed in DEEDS if deed.user != "u0")
