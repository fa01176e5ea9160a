from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mongod import MongoServer
from pymongo import MongoClient
from simulated_month import RATES, simulated_month

from annserve.catalog.config import CatalogConfig
from annserve.catalog.file_events import FileEventStore
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.events import Event, EventStore, EventType

Annserve = Callable[..., subprocess.CompletedProcess[str]]

MONTH = ["--since", "2025-12-01", "--until", "2025-12-31"]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """A simulated month of the items of `purchases`: what was shown is of one taste, what was on screen of either."""

    def of_shop(event: Event) -> Event:
        numbers = [int(item_id.removeprefix("item-")) for item_id in event.item_ids]
        shown = tuple(dict.fromkeys(f"작품 {number % 30 * 2}" for number in numbers))
        context = (f"작품 {numbers[0] % 60}",) if event.type is EventType.IMPRESSION else ()
        return replace(event, item_ids=shown, context_item_ids=context)

    return [of_shop(event) for event in simulated_month(3, 200)]


async def write(store: EventStore, events: list[Event]) -> None:
    for start in range(0, len(events), 500):
        await store.write(events[start : start + 500])
    await store.close()


@pytest.fixture(scope="module")
def log(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    asyncio.run(write(FileEventStore(path), events))
    return path


def totals(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cell["placement"]: cell for cell in report["cells"] if cell["by"] == []}


@pytest.mark.usefixtures("trained")
def test_a_month_is_reported_with_all_that_a_snapshot_adds(annserve: Annserve, log: Path, events: list[Event]) -> None:
    report = json.loads(annserve("report", "placements", *MONTH, "--events", log, "--json").stdout)

    assert totals(report)["popup"]["impressions"] == sum(
        event.placement is not None and event.placement.name == "popup" for event in events
    )
    variants = {
        cell["values"][0]: cell["conversion"]
        for cell in report["cells"]
        if (cell["by"], cell["placement"]) == (["variant"], "popup")
    }
    assert variants["modes/context"]["low"] < RATES["context"] < variants["modes/context"]["high"]
    # Thirty of the sixty items are shown, each as likely as another.
    exposure = report["exposures"][0]
    assert (exposure["catalog_items"], exposure["coverage"]) == (60, 0.5)
    assert 0.5 < exposure["gini"] < 0.6
    assert {effect["similarity"] for effect in report["effects"]} == {"user_context", "context_shown"}


@pytest.mark.usefixtures("trained")
def test_people_read_tables_and_what_they_mean(annserve: Annserve, log: Path, tmp_path: Path) -> None:
    picture = tmp_path / "month.png"

    done = annserve("report", "placements", *MONTH, "--events", log, "--by", "mode,variant+hour", "--plot", picture)

    assert picture.read_bytes().startswith(b"\x89PNG")
    for said in ("by mode", "by variant and hour", "variants beside their control", "spread over the catalogue"):
        assert said in done.stdout
    assert "p-values hold for one look" in done.stderr
    assert "equal shares (none are declared)" in done.stderr


def test_what_cannot_be_drawn_is_reported_all_the_same(annserve: Annserve, events: list[Event], tmp_path: Path) -> None:
    def without_context(event: Event) -> Event:
        placement = event.placement and replace(event.placement, version="", user_context_similarity=None)
        return replace(event, context_item_ids=(), placement=placement)

    path = tmp_path / "home.jsonl"
    asyncio.run(write(FileEventStore(path), [without_context(event) for event in events]))
    command = ["report", "placements", *MONTH, "--events", path, "--plot", tmp_path / "month.html"]

    told = annserve(*command, code=1)
    as_json = annserve(*command, "--json", code=1)
    empty = annserve(*command, "--placement", "nowhere", code=1)

    assert "spread over the catalogue" in told.stdout
    assert "those without items on screen" in told.stderr.splitlines()[-1]
    assert totals(json.loads(as_json.stdout))["popup"]["impressions"] > 0
    assert "no impressions of placements in" in empty.stderr
    assert "nothing to plot: there are no impressions" in empty.stderr
    assert not (tmp_path / "month.html").exists()


def test_versions_that_events_do_not_tell_are_no_other_ones(
    annserve: Annserve, events: list[Event], tmp_path: Path
) -> None:
    path, folder = tmp_path / "events.jsonl", tmp_path / "placements"
    unknown = [replace(event, placement=event.placement and replace(event.placement, version="")) for event in events]
    asyncio.run(write(FileEventStore(path), unknown))
    folder.mkdir()
    (folder / "popup.yaml").write_text(POPUP, encoding="utf-8")
    command = ["report", "placements", *MONTH, "--events", path, "--placements", folder, "--by", "version"]

    told = annserve(*command)
    report = json.loads(annserve(*command, "--json").stdout)

    assert "other version" not in told.stderr
    assert report["versions"] == {}
    assert {cell["values"][0] for cell in report["cells"] if cell["by"] == ["version"]} == {"-"}


def test_events_are_read_from_mongodb_too(
    annserve: Annserve, events: list[Event], log: Path, mongod: MongoServer, database_name: str, tmp_path: Path
) -> None:
    config = tmp_path / "catalog.yaml"
    config.write_text(f"mongodb:\n  database: {database_name}\nfields: {{}}\n", encoding="utf-8")

    async def fill() -> None:
        catalog = MongoCatalog(mongod.uri, CatalogConfig.read(config))
        await write(catalog.event_store(), events)
        await catalog.close()

    asyncio.run(fill())
    of_mongodb = annserve("report", "placements", *MONTH, "--catalog", mongod.uri, "--catalog-config", config, "--json")
    of_file = annserve("report", "placements", *MONTH, "--events", log, "--json")

    assert json.loads(of_mongodb.stdout) == json.loads(of_file.stdout)


POPUP = """
mode: personalize
time_zone: Asia/Seoul
filter: item.nobody_declared_this > 1
experiment: {name: modes, variants: {taste: {share: 0.2}, context: {share: 0.5}, silent: {share: 0.3}, off: {share: 0}}}
"""


def hours(report: dict[str, Any], placement: str) -> dict[str, int]:
    return {
        cell["values"][0]: cell["impressions"]
        for cell in report["cells"]
        if (cell["by"], cell["placement"]) == (["hour"], placement)
    }


def test_hours_and_shares_are_those_of_the_placements_files(annserve: Annserve, log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "popup.yaml").write_text(POPUP, encoding="utf-8")
    (folder / "torn.yaml").write_text("mode: [", encoding="utf-8")
    command = ["report", "placements", *MONTH, "--events", log, "--json"]

    plain = json.loads(annserve(*command).stdout)
    done = annserve(*command, "--placements", folder)
    told = json.loads(done.stdout)
    overruled = json.loads(
        annserve(
            *command, "--placements", folder, "--time-zone", "UTC", *("--share", "modes/taste=1"),
            *("--share", "modes/context=1"),
        ).stdout
    )  # fmt: skip

    later = {f"{(int(hour) + 9) % 24:02d}": count for hour, count in hours(plain, "popup").items()}
    assert hours(told, "popup") == later
    assert hours(told, "home") == hours(plain, "home")
    (popup,) = [one for one in told["assignments"] if one["placement"] == "popup"]
    # A variant that fails shows nothing to anybody, and that is what the check is for.
    assert popup["users"]["silent"] == 0
    assert (popup["shares"]["silent"], popup["are_shares_declared"], popup["is_mismatched"]) == (0.3, True, True)
    assert "torn.yaml:" in done.stderr
    assert "popup: 1 other version than the file's answered in this period" in done.stderr
    assert hours(overruled, "popup") == hours(plain, "popup")
    assert [one["is_mismatched"] for one in overruled["assignments"]] == [False, False]


def test_placements_of_mongodb_are_read_from_there(
    annserve: Annserve,
    log: Path,
    mongod: MongoServer,
    database_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "catalog.yaml"
    config.write_text(f"mongodb:\n  database: {database_name}\nfields: {{}}\n", encoding="utf-8")
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name]["placements"].insert_one({"_id": "popup", "yaml": POPUP})
    monkeypatch.setenv("ANNSERVE_PLACEMENTS_FROM_MONGODB", "true")
    of_mongodb = ["--catalog", mongod.uri, "--catalog-config", config]

    report = json.loads(annserve("report", "placements", *MONTH, "--events", log, *of_mongodb, "--json").stdout)

    assert {one["placement"]: one["are_shares_declared"] for one in report["assignments"]}["popup"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--events", "nowhere.jsonl"], "nowhere.jsonl: no events there"),
        (
            ["--by", "mode,colour"],
            "--by 'colour': must be of version, variant, mode, hour, user_context, context_shown",
        ),
        (["--since", "yesterday"], "--since 'yesterday': must be a date or time of ISO 8601"),
        (["--since", "2025-12-02", "--until", "2025-12-01"], "--since must be before --until"),
        (["--share", "modes=0.5"], "--share 'modes=0.5': must be EXPERIMENT/VARIANT=SHARE"),
        (["--time-zone", "Mars/Olympus"], "time zone 'Mars/Olympus' is not known"),
        (["--placements", "nowhere"], "there is no folder of placements at nowhere"),
        (["--plot", "month.gif"], "its name must end in .png, .svg, .html"),
    ],
)
def test_a_wrong_option_is_named(annserve: Annserve, log: Path, options: list[str], said: str) -> None:
    events = [] if "--events" in options else ["--events", log]

    assert said in annserve("report", "placements", *events, *options, code=1).stderr


def test_settings_that_name_placements_elsewhere_are_no_reason_not_to_report(
    annserve: Annserve, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANNSERVE_PLACEMENTS", "nowhere")

    done = annserve("report", "placements", *MONTH, "--events", log)

    assert "placements are not looked at: there is no folder of placements at nowhere" in done.stderr


def test_a_period_without_impressions_says_so(annserve: Annserve, log: Path) -> None:
    done = annserve("report", "placements", "--events", log, "--until", "2020-01-01")

    assert "no impressions of placements in" in done.stderr
