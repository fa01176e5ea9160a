"""What was asked most is known of a new snapshot before anybody asks it."""

from __future__ import annotations

from pathlib import Path

from checked_traffic import item_id, two_snapshots
from instances import instance, until

from annserve_client import CacheSource, Client, Options, Personalize, Recommendations, Similar
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


def is_known(answer: Recommendations) -> bool:
    """Return whether the answer was made for an earlier call."""
    return answer.cache_source in (CacheSource.WORKER, CacheSource.INSTANCE)
