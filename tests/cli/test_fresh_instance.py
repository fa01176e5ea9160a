"""Items upserted into and deleted from whole instances, with each kind of catalogue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checked_traffic import PRICE_BELOW, catalogue, item_id, price, small_model, two_snapshots
from instances import Instance, instance, until
from mongod import MongoServer
from pymongo import MongoClient

from annserve_client import Client, Options, Personalize, Similar, field
from annserve_client.admin import AdminClient, FreshItem
from annserve_client.errors import AnnserveError

VISIBLE_SECONDS = 10.0
"""How long it is waited for. The promise is one second, which loadtest/fresh_items.py holds it to."""
CALL_SECONDS = 5.0
"""For calls, and for what they look up."""
RESTART_SECONDS = 20.0
ITEMS = 1_000
SEED, NEW, DEAR = item_id(0), "item-100000", "item-100009"
CHEAP = field("price") < PRICE_BELOW

assert price(NEW) < PRICE_BELOW < price(DEAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """An instance, and clients that between them reach all its workers."""

    instance: Instance
    admin: AdminClient
    clients: Sequence[Client]

    def everywhere(self, holds: Callable[[Sequence[str]], bool], seed: str = SEED, **options: Any) -> bool:
        """Return whether ``holds`` is true of what every worker finds similar to ``seed``."""
        asked = Similar(item_ids=[seed], options=Options(page_size=5, **options))
        return all(
            holds([item.item_id for item in client.recommend(asked)]) for client in self.clients for _ in range(2)
        )

    def known(self, seed: str) -> set[bool]:
        """Return whether workers know an item, by all of them."""
        asked = Similar(item_ids=[seed])
        return {seed not in client.recommend(asked).missing_ids for client in self.clients for _ in range(2)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    root = tmp_path_factory.mktemp("fresh") / "snapshots"
    return root, two_snapshots(root, ITEMS)


def beside(number: int, *, seed: int = 2, length: float = 50.0) -> list[float]:
    """Return a vector that is most like that of an item of a snapshot."""
    vector = length * small_model(seed, ITEMS).item_vectors[number]
    return [float(value) for value in vector]


@contextmanager
def running(snapshots: Path, folder: Path, *options: str, **environment: str) -> Iterator[Fresh]:
    environment = {"ANNSERVE_FRESH_ITEMS": str(folder / "fresh_items.jsonl")} | environment
    with ExitStack() as stack:
        served = stack.enter_context(instance(snapshots, folder, *options, workers=2, **environment))
        admin = stack.enter_context(AdminClient(served.admin_address))
        clients = [stack.enter_context(Client(served.address, timeout_seconds=CALL_SECONDS)) for _ in range(6)]
        until(lambda: len(served.serving(admin)) == 2, RESTART_SECONDS)
        yield Fresh(instance=served, admin=admin, clients=clients)


@pytest.fixture
def database(mongod: MongoServer, database_name: str) -> tuple[str, str]:
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        items = client[database_name]["items"]
        names = [*map(item_id, range(ITEMS)), NEW, DEAR]
        items.insert_many([{"_id": name, "price": price(name)} for name in names])
        items.create_index([("price", 1), ("_id", 1)])
    return mongod.uri, database_name


def mongodb_options(folder: Path, uri: str, database: str) -> list[str]:
    config = folder / "catalog.yaml"
    look_ups = f"{{database: {database}, operation_timeout_ms: {CALL_SECONDS * 1e3:.0f}}}"
    config.write_text(f"fields: {{price: number}}\nmongodb: {look_ups}\n")
    return ["--catalog", uri, "--catalog-config", str(config)]


def file_options(folder: Path) -> list[str]:
    options = catalogue(folder, ITEMS)
    with (folder / "items.jsonl").open("a") as file:
        for name in (NEW, DEAR):
            file.write(f'{{"item_id": "{name}", "price": {price(name)}}}\n')
    return options


def test_items_come_and_go_and_outlast_the_instance(built: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    snapshots, (other_id, live_id) = built
    with running(snapshots, tmp_path) as fresh:
        assert fresh.everywhere(lacks_new)
        liking = [f"user-{number}" for number in range(20)]
        fresh.admin.upsert_items(
            [
                FreshItem(item_id=NEW, vector=beside(0), popularity=1.0),
                FreshItem(item_id="liked", liked_by_user_ids=liking),
                FreshItem(item_id=item_id(9), vector=beside(1)),
            ]
        )
        until(lambda: fresh.everywhere(lambda found: found[:1] == [NEW]), VISIBLE_SECONDS)
        assert fresh.everywhere(lambda found: found[:1] == [item_id(9)], item_id(1))
        assert fresh.known("liked") == {True}
        fresh.admin.delete_items([item_id(5), "liked"])
        until(lambda: fresh.known(item_id(5)) == {False}, VISIBLE_SECONDS)
        assert fresh.known("liked") == {False}

        # A vector belongs to its snapshot; what users liked has one in each, and what is deleted stays so.
        fresh.admin.upsert_items([FreshItem(item_id="liked", liked_by_user_ids=liking)])
        fresh.admin.activate(other_id)
        # Workers that leave answer until their clients have gone.
        until(lambda: fresh.everywhere(lacks_new), VISIBLE_SECONDS)
        assert fresh.known("liked") == {True}
        assert fresh.known(item_id(5)) == {False}
        fresh.admin.activate(live_id)
        until(lambda: fresh.everywhere(lambda found: found[:1] == [NEW]), VISIBLE_SECONDS)

        # Workers that come later know it from the first call on, and so does the keeper's successor.
        for worker in fresh.admin.workers():
            os.kill(worker.pid, signal.SIGKILL)
        until(lambda: fresh.everywhere(bool), RESTART_SECONDS)
        assert fresh.everywhere(lambda found: found[:1] == [NEW])
        keeper = fresh.instance.keeper_pid()
        assert keeper is not None
        os.kill(keeper, signal.SIGKILL)
        until(lambda: fresh.instance.keeper_pid() not in (None, keeper), RESTART_SECONDS)
        until(lambda: fresh.admin.status().serving, RESTART_SECONDS)
        fresh.admin.delete_items([NEW])
        until(lambda: fresh.everywhere(lacks_new), VISIBLE_SECONDS)
    with running(snapshots, tmp_path) as fresh:
        assert fresh.everywhere(lacks_new)
        assert fresh.everywhere(lambda found: found[:1] == [item_id(9)], item_id(1))
        assert fresh.known(item_id(5)) == {False}


def test_what_cannot_be_placed_is_refused_by_name(built: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    with running(built[0], tmp_path) as fresh:
        with pytest.raises(AnnserveError, match=r"items\[1\]\.vector: must have the 16 values .* got 3") as caught:
            fresh.admin.upsert_items(
                [FreshItem(item_id=NEW, vector=beside(0)), FreshItem(item_id="a", vector=[1, 2, 3])]
            )
        assert caught.value.reason == "INVALID_ARGUMENT"
        with pytest.raises(AnnserveError, match=r"items\[0\]\.liked_by\.user_ids: names no user with a vector"):
            fresh.admin.upsert_items([FreshItem(item_id="a", liked_by_user_ids=["nobody"])])
        with pytest.raises(AnnserveError, match=r"items\[0\]\.vector: must have a length"):
            fresh.admin.upsert_items([FreshItem(item_id="a", vector=[3e38] * 16)])
        assert fresh.everywhere(lacks_new)


def test_no_more_items_are_added_than_may_wait_for_a_snapshot(
    built: tuple[Path, tuple[str, str]], tmp_path: Path
) -> None:
    with running(built[0], tmp_path, ANNSERVE_FRESH_ITEMS_MAX="2") as fresh:
        fresh.admin.upsert_items([FreshItem(item_id=name, vector=beside(0)) for name in ("a", "b")])
        until(lambda: fresh.known("b") == {True}, VISIBLE_SECONDS)

        with pytest.raises(AnnserveError, match="3 fresh items of at most 2") as caught:
            fresh.admin.upsert_items([FreshItem(item_id="c", vector=beside(0))])

        assert caught.value.metadata["cause"] == "FRESH_ITEMS"
        fresh.admin.upsert_items([FreshItem(item_id="a", vector=beside(1))])
        fresh.admin.delete_items(["b"])
        until(lambda: fresh.known("b") == {False}, VISIBLE_SECONDS)
        fresh.admin.upsert_items([FreshItem(item_id="c", vector=beside(0))])
        until(lambda: fresh.known("c") == {True}, VISIBLE_SECONDS)


def test_filters_know_fresh_items_of_a_file(built: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    with running(built[0], tmp_path, *file_options(tmp_path)) as fresh:
        assert_filtered(fresh)


def test_filters_know_fresh_items_of_mongodb(
    built: tuple[Path, tuple[str, str]], tmp_path: Path, database: tuple[str, str]
) -> None:
    options = mongodb_options(tmp_path, *database)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with running(built[0], tmp_path, *options) as fresh, running(built[0], other_folder, *options) as other:
        assert_filtered(fresh)
        # The other instance hears of it by the database alone.
        until(lambda: other.everywhere(lambda found: found[:1] == [NEW], filter=CHEAP), VISIBLE_SECONDS)
        with MongoClient[dict[str, Any]](database[0]) as client:
            items = client[database[1]]["items"]
            items.update_one({"_id": NEW}, {"$set": {"price": PRICE_BELOW + 1}})
            everyone = (fresh, other)
            until(lambda: all(one.everywhere(lacks_new, filter=CHEAP) for one in everyone), VISIBLE_SECONDS)
        assert other.everywhere(lambda found: NEW in found)
        other.admin.delete_items([NEW])
        until(lambda: all(one.everywhere(lacks_new) for one in everyone), VISIBLE_SECONDS)


def lacks_new(found: Sequence[str]) -> bool:
    return NEW not in found


def assert_filtered(fresh: Fresh) -> None:
    """Items whose rows come after a leaf was read are judged by it; items that the catalogue lacks are no answer."""
    assert fresh.everywhere(lambda found: len(found) == 5 and NEW not in found, filter=CHEAP)
    vectors = {NEW: beside(0), DEAR: beside(0, length=60.0), "unheard-of": beside(0, length=70.0)}
    fresh.admin.upsert_items([FreshItem(item_id=name, vector=vector) for name, vector in vectors.items()])
    until(lambda: fresh.everywhere(lambda found: found[:1] == [NEW], filter=CHEAP), VISIBLE_SECONDS)
    until(lambda: fresh.everywhere(lambda found: found[:2] == [DEAR, NEW]), VISIBLE_SECONDS)
    assert fresh.everywhere(lambda found: found[:1] == [DEAR] and NEW not in found, filter=~CHEAP)
    asked = Personalize(user_id="user-1", options=Options(page_size=5, filter=CHEAP))
    assert all("unheard-of" not in [item.item_id for item in client.recommend(asked)] for client in fresh.clients)
