"""An instance follows a source of snapshots: what it names is fetched, served, and then live."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from admin_twins import WAIT_SECONDS, TwinInstance, three_snapshots

from annserve.domain.errors import InstanceUnavailableError, SnapshotIncompleteError
from annserve.service.pulling import Puller
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.snapshot.pull import SnapshotSource
from annserve.snapshot.store import SnapshotStore


class Following:
    """An instance with an empty store, and a source of three snapshots."""

    def __init__(self, folder: Path, *, is_canary: bool = False) -> None:
        self.published = three_snapshots(folder / "source")
        self.store = SnapshotStore(folder / "store")
        self.instance = TwinInstance(None)
        changes = SnapshotChanges(self.instance, self.store)
        source = SnapshotSource(f"file://{self.published.root}")
        self.now = 0.0
        self.puller = Puller(source, changes, is_canary=is_canary, poll_seconds=0.01, clock=self.tick)

    def tick(self) -> float:
        """Return the time, of which a second passes whenever somebody asks."""
        self.now += 1.0
        return self.now

    def activations(self) -> list[object]:
        return [call[1] for call in self.instance.calls if call[0] == "activate"]


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path)


async def test_named_snapshot_is_pulled_served_and_live_once(following: Following) -> None:
    newest, middle, _ = following.published.ids()

    assert await following.puller.look() == newest
    assert await following.puller.look() is None
    following.published.activate(middle)
    assert await following.puller.look() == middle

    assert following.activations() == [newest, middle]
    assert following.store.history() == (middle, newest)


async def test_first_stage_follows_canary(tmp_path: Path) -> None:
    canary, other = Following(tmp_path / "a", is_canary=True), Following(tmp_path / "b")
    oldest = canary.published.ids()[-1]
    (canary.published.root / "CANARY").write_text(oldest + "\n")
    (other.published.root / "CANARY").write_text(oldest + "\n")

    assert await canary.puller.look() == oldest
    assert await other.puller.look() == other.published.ids()[0]


async def test_refused_snapshot_is_not_asked_for_again_until_another_is_named(following: Following) -> None:
    newest, middle, _ = following.published.ids()
    following.instance.refused[newest] = "recall@10 of 0.71, 0.98 was promised"

    assert await following.puller.look() is None
    assert await following.puller.look() is None
    assert following.activations() == [newest]
    assert following.store.current_id() is None
    following.published.activate(middle)
    assert await following.puller.look() == middle


async def test_snapshot_that_is_still_being_copied_is_taken_when_it_is_whole(following: Following) -> None:
    newest = following.published.ids()[0]
    graph = following.published.root / newest / "affinity.hnsw"
    graph.rename(graph.with_suffix(".part"))

    with pytest.raises(SnapshotIncompleteError):
        await following.puller.look()
    graph.with_suffix(".part").rename(graph)

    assert await following.puller.look() == newest


async def test_damaged_snapshot_is_fetched_ever_more_rarely(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, middle, _ = following.published.ids()
    now = 0.0
    monkeypatch.setattr(following.puller, "_clock", lambda: now)
    monkeypatch.setattr(following.puller, "_poll_seconds", 10.0)
    (following.published.root / newest / "affinity.hnsw").unlink()
    tried = []
    for look in range(400):
        now = 10.0 * look
        try:
            await following.puller.look()
        except SnapshotIncompleteError:
            tried.append(now)
    waits = [after - before for before, after in pairwise(tried)]

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]
    following.published.activate(middle)
    assert await following.puller.look() == middle


async def test_following_goes_on_when_the_instance_was_away(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = asyncio.Event()
    activate = following.instance.activate
    failures = iter([InstanceUnavailableError("restarting")])

    async def sometimes(snapshot_id: str) -> None:
        if error := next(failures, None):
            raise error
        await activate(snapshot_id)
        served.set()

    monkeypatch.setattr(following.instance, "activate", sometimes)
    task = asyncio.create_task(following.puller.follow())
    await asyncio.wait_for(served.wait(), WAIT_SECONDS)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert following.activations() == [following.published.ids()[0]]


async def test_operator_is_not_overruled(following: Following) -> None:
    newest, _, oldest = following.published.ids()
    await following.puller.look()
    SnapshotSource(str(following.published.root)).pull(oldest, following.store)
    following.store.activate(oldest)

    assert await following.puller.look() is None
    assert following.activations() == [newest]
