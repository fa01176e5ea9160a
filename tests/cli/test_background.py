"""Whoever answers calls goes first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from checked_traffic import item_id, two_snapshots

from annserve.cli.background import SEARCHING_NICENESS, in_background
from annserve.cli.composition import opened_service
from annserve.domain.query import Mode, Query
from annserve.engine.recommender import SnapshotRecommender
from annserve.settings import Settings
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_thread_stands_back_behind_whoever_started_it_who_does_not() -> None:
    before = niceness()

    assert in_background(lambda: in_background(niceness, 2), 3) == min(before + 5, 19)
    assert niceness() == before


async def test_searches_in_threads_stand_back_behind_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = tmp_path / "snapshots", []
    two_snapshots(root, 60)
    rank = SnapshotRecommender.rank

    def noted(*arguments: Any, **more: Any) -> Any:
        seen.append(niceness())
        return rank(*arguments, **more)

    monkeypatch.setattr(SnapshotRecommender, "rank", noted)
    monkeypatch.setattr("annserve.engine.workbench.LOOP_US", 0.0)  # Nothing is quick enough for the loop.
    snapshot = load_current(SnapshotStore(root)).snapshot
    async with opened_service(snapshot, Settings(), None) as served:
        await served.recommender.recommend(Query(mode=Mode.SIMILAR, item_ids=(item_id(1),)))

    assert seen == [min(niceness() + SEARCHING_NICENESS, 19)]
