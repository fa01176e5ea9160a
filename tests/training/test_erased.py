"""Training passes over what users did before they were erased."""

from __future__ import annotations

from pathlib import Path

import pytest

from annserve.domain.erasure import ErasedUsers, Erasure, digest_of
from annserve.training.columns import TimeUnit
from annserve.training.erased import without_erased
from annserve.training.interactions import Columns, Interactions, read_interactions

ROWS = [("u1", "a", 10), ("u2", "b", 20), ("u1", "c", 30), ("u3", "b", 40)]


@pytest.fixture(params=[True, False])
def interactions(request: pytest.FixtureRequest, tmp_path: Path) -> Interactions:
    path = tmp_path / "data.csv"
    path.write_text("user_id,item_id,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time in ROWS))
    return read_interactions(
        path, columns=Columns(time="time" if request.param else None, time_unit=TimeUnit.MILLISECONDS)
    )


def erased(**erased_ms: int) -> ErasedUsers:
    users = ErasedUsers()
    users.add([Erasure(digest=digest_of(user), erased_ms=at) for user, at in erased_ms.items()])
    return users


def told(interactions: Interactions) -> list[tuple[str, str]]:
    return [
        (interactions.user_ids[user], interactions.item_ids[item])
        for user, item in zip(interactions.users, interactions.items, strict=True)
    ]


def test_what_is_as_old_as_the_erasure_is_left_out_and_what_came_later_stays(interactions: Interactions) -> None:
    left = without_erased(interactions, erased(u1=10, u3=40))

    expected = [("u2", "b"), ("u1", "c")] if interactions.times is not None else [("u2", "b")]
    assert told(left) == expected
    assert sorted(left.user_ids) == sorted({user for user, _ in expected})
    assert sorted(left.item_ids) == sorted({item for _, item in expected})
    assert len(left.weights) == len(expected)


def test_nothing_changes_where_nobody_was_erased(interactions: Interactions) -> None:
    assert without_erased(interactions, erased()) is interactions
    assert without_erased(interactions, erased(stranger=50)) is interactions
