"""What was asked most is known of a new snapshot before anybody asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from checked_traffic import item_id, two_snapshots
from instances import instance, until
from mongo_proxy import Proxy
from mongod import MongoServer
from pymongo import MongoClient

from annserve_client import CacheSource, Client, Degradation, Options, Personalize, Recommendations, Similar
from annserve_client.admin import AdminClient

REPORTED_SECONDS = 20.0


def test_a_new_snapshot_knows_what_is_asked_most(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    other_id, live_id = two_snapshots(root, 1_000)
    hot, personal = Similar(item_ids=[item_id(7)], options=Options(page_size=7)), Personalize(user_id="user-1")
    with (
        instance(root, tmp_path, workers=2, ANNSERVE_ANSWER_TTL_MS="60000") as running,
        AdminClient(running.admin_address) as admin,
    ):
        with Client(running.address) as client:
            assert client.recommend(hot).snapshot_id == live_id
            client.recommend(personal)
        until(lambda: [key.item_id for key in admin.hot_keys()] == [item_id(7)], REPORTED_SECONDS)
        admin.activate(other_id)
        with Client(running.address) as client:
            answer = client.recommend(hot)
            assert answer.snapshot_id == other_id
            assert len(answer.results) == 7
            assert is_known(answer)
            # Nothing of a user is asked by anybody else, and what nobody asked is not known.
            assert not is_known(client.recommend(personal))
            assert not is_known(client.recommend(Similar(item_ids=[item_id(8)])))


async def test_the_first_who_ask_a_worker_for_metadata_get_it_though_mongodb_is_far_away(
    tmp_path: Path, mongod: MongoServer, database_name: str
) -> None:
    """Connecting takes several replies, 20 ms each here, and an answer waits for metadata for 50 ms in all."""
    root, config = tmp_path / "snapshots", tmp_path / "catalog.yaml"
    two_snapshots(root, 60)
    config.write_text(f"fields: {{name: string}}\nmongodb: {{database: {database_name}}}\n")
    with MongoClient[dict[str, object]](mongod.uri) as client:
        client[database_name]["items"].insert_many([{"_id": item_id(n), "name": f"name {n}"} for n in range(60)])
        (_, port), *_ = client.nodes

    def asked(uri: str) -> list[tuple[set[Degradation], int]]:
        options = Options(read_mask=["name"])
        with instance(root, tmp_path, "--catalog", uri, "--catalog-config", str(config), workers=3) as running:
            answers = []
            for number in range(12):  # A connection each, and so any of the workers.
                with Client(running.address) as client:
                    answers.append(client.recommend(Similar(item_ids=[item_id(number)], options=options)))
        return [(set(one.degradations), sum("name" in result.metadata for result in one.results)) for one in answers]

    async with Proxy(port or 27_017) as proxy:
        proxy.delay_seconds = 0.02
        # The proxy lives in this loop.
        assert await asyncio.to_thread(asked, proxy.uri) == [(set(), 10)] * 12


def is_known(answer: Recommendations) -> bool:
    """Return whether the answer was made for an earlier call."""
    return answer.cache_source in (CacheSource.WORKER, CacheSource.INSTANCE)
