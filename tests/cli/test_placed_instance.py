"""A placement saved while an instance serves is a service within a second, in every worker, and no call fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checked_traffic import PRICE_BELOW, catalogue, item_id, price, small_model
from instances import instance, until
from mongod import Mongod, MongoServer
from pymongo import MongoClient

from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve_client import Client, Degradation, NotFoundError, Options, Personalize, Recommend, field
from annserve_client.admin import AdminClient
from annserve_client.errors import AnnserveError

ITEMS = 500
SEED = item_id(0)
VISIBLE_SECONDS = 5.0
"""The promise is one second; tests may be slowed by others."""
CALL_SECONDS = 5.0
"""Placements that come and go must fail no call; how long calls take meanwhile is for loadtest/placement_reload.py."""
CLASSIC = f"""
mode: similar
where: {{price: {{below: {PRICE_BELOW}}}}}
limit: 20
exclude:
  history: [{{event: disliked, last: 5}}]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("placed") / "snapshots"
    build_snapshot(small_model(1, ITEMS), SnapshotStore(root), threads=1)
    return root


class Load:
    """Callers that do nothing but ask, and what went wrong."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self._stopping = threading.Event()
        self.call_count = 0
        self.failures: list[str] = []

    @contextmanager
    def going(self) -> Iterator[None]:
        """Ask for the time of a block."""
        threads = [threading.Thread(target=self._ask, args=(client,)) for client in self._clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _ask(self, client: Client) -> None:
        while not self._stopping.is_set():
            for request in (Recommend(placement="home", user_id="user-1"), Personalize(user_id="user-2")):
                try:
                    client.recommend(request)
                except AnnserveError as error:
                    self.failures.append(str(error))
                self.call_count += 1


def test_saved_placement_is_served_by_every_worker_under_load_without_a_failed_call(
    built: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "home.yaml").write_text("mode: personalize\nfallback: [popular]")
    options = [*catalogue(tmp_path, ITEMS), "--placements", str(folder)]
    with instance(built, tmp_path, *options) as running, AdminClient(running.admin_address) as admin:
        # Each has a connection of its own, and the kernel spreads those over the workers.
        clients = [Client(running.address, timeout_seconds=CALL_SECONDS) for _ in range(8)]
        load = Load(clients[:3])
        try:
            with load.going():
                seconds = [_served_after(folder, f"new_{number}", clients[3:]) for number in range(3)]

                (folder / "bad.yaml").write_text("mode: nothing")
                until(lambda: len(admin.placements().problems) == 1, VISIBLE_SECONDS)
                answer = clients[4].recommend(Recommend(placement="new_0", item_ids=[SEED]))
                (folder / "new_0.yaml").unlink()
                (folder / "bad.yaml").unlink()
                until(lambda: all(_is_unknown(client, "new_0") for client in clients), VISIBLE_SECONDS)
        finally:
            for client in clients:
                client.close()

    assert load.failures == []
    assert load.call_count > 100
    assert max(seconds) < VISIBLE_SECONDS
    assert answer.placement is not None
    assert (answer.placement.name, answer.placement.mode) == ("new_0", "similar")
    assert len(answer.results) == 20
    assert all(price(item.item_id) < PRICE_BELOW for item in answer.results)


def _served_after(folder: Path, name: str, clients: Sequence[Client]) -> float:
    """Save a placement, and return how many seconds later all ``clients`` are answered by it."""
    (folder / f"{name}.yaml").write_text(CLASSIC)
    saved = time.monotonic()
    until(lambda: not any(_is_unknown(client, name) for client in clients), VISIBLE_SECONDS)
    return time.monotonic() - saved


def _is_unknown(client: Client, placement: str) -> bool:
    try:
        client.recommend(Recommend(placement=placement, item_ids=[SEED]))
    except NotFoundError:
        return True
    return False


def test_placement_answers_as_its_file_says(built: Path, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(
        "context: {read_ratio: number}\n"
        "policy:\n"
        "  - {when: context.read_ratio < 0.2, suppress: hardly read}\n"
        "  - else: related\n"
        "limit: 7\n"
        "pins: [{rank: 2, item: item-42}]\n"
        "experiment: {name: limits, variants: {few: {share: 0.5}, many: {share: 0.5, limit: 9}}}\n"
    )
    with (
        instance(built, tmp_path, *catalogue(tmp_path, ITEMS), "--placements", str(tmp_path / "page.yaml")) as running,
        Client(running.address, timeout_seconds=CALL_SECONDS) as client,
    ):
        shown = Recommend(placement="page", item_ids=[SEED], user_id="user-1", forced_variants={"limits": "few"})
        few = client.recommend(shown)
        many = client.recommend(Recommend(placement="page", item_ids=[SEED], forced_variants={"limits": "many"}))
        quiet = client.recommend(Recommend(placement="page", item_ids=[SEED], context={"read_ratio": 0.1}))
        cheap = client.recommend(
            Recommend(placement="page", item_ids=[SEED], options=Options(filter=field("price") < PRICE_BELOW))
        )

    assert few.placement is not None
    assert (len(few.results), few.placement.variant, few.placement.mode) == (7, "few", "related")
    assert few.results[1].item_id == item_id(42)
    assert len(many.results) == 9
    assert quiet.placement is not None
    assert (quiet.results, quiet.placement.mode, quiet.placement.suppressed_reason) == ((), "", "hardly read")
    assert all(price(item.item_id) < PRICE_BELOW for item in cheap.results)


def test_placements_in_mongodb_are_followed(
    built: Path, tmp_path: Path, mongod: MongoServer, database_name: str
) -> None:
    config = tmp_path / "catalog.yaml"
    look_ups = f"{{database: {database_name}, operation_timeout_ms: {CALL_SECONDS * 1e3:.0f}}}"
    config.write_text(f"fields: {{price: number}}\nmongodb: {look_ups}\n")
    options = ["--catalog", mongod.uri, "--catalog-config", str(config)]
    with MongoClient[dict[str, Any]](mongod.uri) as mongo:
        names = [item_id(number) for number in range(ITEMS)]
        mongo[database_name]["items"].insert_many([{"_id": name, "price": price(name)} for name in names])
        mongo[database_name]["items"].create_index([("price", 1), ("_id", 1)])
        placements = mongo[database_name]["placements"]
        placements.insert_one({"_id": "home", "yaml": CLASSIC})
        with (
            instance(built, tmp_path, *options, ANNSERVE_PLACEMENTS_FROM_MONGODB="true") as running,
            AdminClient(running.admin_address) as admin,
            Client(running.address, timeout_seconds=CALL_SECONDS) as client,
        ):
            answer = client.recommend(Recommend(placement="home", item_ids=[SEED]))
            placements.insert_one({"_id": "late", "yaml": "mode: similar"})
            until(lambda: not _is_unknown(client, "late"), VISIBLE_SECONDS)
            placements.update_one({"_id": "late"}, {"$set": {"yaml": "mode: nothing"}})
            until(lambda: len(admin.placements().problems) == 1, VISIBLE_SECONDS)
            problem = admin.placements().problems[0]
            still = client.recommend(Recommend(placement="late", item_ids=[SEED]))

    assert all(price(item.item_id) < PRICE_BELOW for item in answer.results)
    assert (problem.file, problem.line, problem.field) == ("placements/late", 1, "mode")
    assert len(still.results) == 10


LISTED = f"""
mode: similar
where: {{price: {{below: {PRICE_BELOW}}}}}
on_unavailable: fallback
fallback: [{{items: [item-00001, item-00002]}}]
"""


def test_a_database_that_hangs_leaves_time_for_the_list(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "listed.yaml").write_text(LISTED.replace("item-00001", item_id(1)).replace("item-00002", item_id(2)))
    config = tmp_path / "catalog.yaml"
    # A look-up may take longer than any call.
    config.write_text("fields: {price: number}\nmongodb: {database: shop, operation_timeout_ms: 30000}\n")
    names = [item_id(number) for number in range(ITEMS)]
    with Mongod() as server:
        with MongoClient[dict[str, Any]](server.uri) as mongo:
            mongo["shop"]["items"].insert_many([{"_id": name, "price": price(name)} for name in names])
            mongo["shop"]["items"].create_index([("price", 1), ("_id", 1)])
        options = ["--catalog", server.uri, "--catalog-config", str(config), "--placements", str(folder)]
        with (
            instance(built, tmp_path, *options) as running,
            Client(running.address, timeout_seconds=CALL_SECONDS) as client,
        ):
            client.similar([SEED])
            with server.frozen():
                answer = client.recommend(Recommend(placement="listed", item_ids=[SEED]))

    assert [item.item_id for item in answer.results] == [item_id(1), item_id(2)]
    assert Degradation.FILTER_SKIPPED in answer.degradations
