"""Publishing, pointing, rolling back, pruning and sweeping."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from snapshot_models import FIXED_COST, make_model

from annserve.domain.errors import (
    InvalidArgumentError,
    NoSnapshotError,
    SnapshotChecksumError,
    SnapshotIncompleteError,
    SnapshotSchemaError,
)
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import HISTORY_MAX, SnapshotStore


@pytest.fixture
def ids(store: SnapshotStore) -> list[str]:
    """Three published snapshots, oldest first; the last is live."""
    model = make_model(12, 4)
    return [build_snapshot(model, store, threads=1).snapshot_id for _ in range(3)]


def damage(path: Path) -> None:
    (path / "items/vectors.npy").chmod(0o644)
    with (path / "items/vectors.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")


def test_a_store_that_does_not_exist_yet_is_empty(store: SnapshotStore) -> None:
    assert store.ids() == []
    assert store.snapshots() == []
    assert store.current_id() is None
    assert store.prune(0) == []
    assert not store.root.exists()


def test_ids_sort_by_the_order_of_publishing_even_if_the_clock_is_set_back(
    store: SnapshotStore, ids: list[str]
) -> None:
    past = store.new_id("0" * 64, datetime(2001, 1, 1, tzinfo=UTC))

    assert ids == sorted(set(ids))
    assert store.ids() == ids[::-1]
    assert past > ids[-1]
    assert past.endswith("-00000000")


def test_an_id_tells_the_time_and_the_content(store: SnapshotStore) -> None:
    time = datetime(2026, 11, 23, 20, 1, 2, tzinfo=UTC)

    assert store.new_id("1a2b3c4d" + "0" * 56, time) == "20261123T200102Z-1a2b3c4d"


@pytest.mark.parametrize("name", ["99999999T999999Z-00000000", "99991231T235959Z-00000000"])
def test_a_folder_that_only_looks_like_an_id_stops_no_build(store: SnapshotStore, name: str) -> None:
    (store.root / name).mkdir(parents=True)

    assert build_snapshot(make_model(12, 4), store, threads=1).is_current


def test_a_build_becomes_live_unless_told_not_to(store: SnapshotStore, ids: list[str]) -> None:
    assert store.current_id() == ids[2]

    info = build_snapshot(make_model(12, 4), store, threads=1, activate=False)

    assert store.current_id() == ids[2]
    assert not info.is_current
    assert store.ids()[0] == info.snapshot_id


def test_the_first_line_of_current_is_the_live_id(store: SnapshotStore, ids: list[str]) -> None:
    assert (store.root / "CURRENT").read_text().splitlines() == ids[::-1]


def test_current_is_replaced_and_never_rewritten(store: SnapshotStore, ids: list[str]) -> None:
    with (store.root / "CURRENT").open() as opened_before:
        store.activate(ids[0])

        assert opened_before.read().splitlines() == ids[::-1]


def test_a_listing_shows_every_snapshot_and_what_is_wrong_with_it(store: SnapshotStore, ids: list[str]) -> None:
    (store.path(ids[1]) / "manifest.json").unlink()
    (store.root / "notes").mkdir()

    listed = store.snapshots()

    assert [info.snapshot_id for info in listed] == ids[::-1]
    assert [info.is_current for info in listed] == [True, False, False]
    assert [info.problem for info in listed] == [None, "manifest.json is missing", None]
    assert listed[0].manifest is not None
    assert listed[0].manifest.kinds.items.count == 12


def test_activating_moves_current_and_rolling_back_returns_step_by_step(store: SnapshotStore, ids: list[str]) -> None:
    store.activate(ids[0])
    assert store.history() == (ids[0], ids[2], ids[1])

    assert store.roll_back() == ids[2]
    assert store.roll_back() == ids[1]
    assert store.current_id() == ids[1]
    with pytest.raises(NoSnapshotError, match="no earlier"):
        store.roll_back()
    assert store.current_id() == ids[1]


def test_rolling_back_passes_over_what_is_gone_or_damaged(store: SnapshotStore, ids: list[str]) -> None:
    newest = build_snapshot(make_model(12, 4), store, threads=1).snapshot_id
    shutil.rmtree(store.path(ids[2]))
    damage(store.path(ids[1]))

    assert store.current_id() == newest
    assert store.roll_back() == ids[0]


def test_rolling_back_to_nothing_sound_changes_nothing_and_says_why(store: SnapshotStore, ids: list[str]) -> None:
    for snapshot_id in ids[:2]:
        damage(store.path(snapshot_id))

    with pytest.raises(NoSnapshotError) as caught:
        store.roll_back()

    assert isinstance(caught.value.__cause__, SnapshotChecksumError)
    assert store.current_id() == ids[2]


def test_activating_the_live_one_again_keeps_the_history(store: SnapshotStore, ids: list[str]) -> None:
    store.activate(ids[2])

    assert store.history() == tuple(ids[::-1])


def test_a_damaged_snapshot_is_not_activated(store: SnapshotStore, ids: list[str]) -> None:
    damage(store.path(ids[0]))

    with pytest.raises(SnapshotChecksumError, match=r"items/vectors.npy"):
        store.activate(ids[0])

    assert store.current_id() == ids[2]


def test_a_snapshot_under_another_ones_name_is_not_activated(store: SnapshotStore, ids: list[str]) -> None:
    shutil.rmtree(store.path(ids[0]))
    shutil.copytree(store.path(ids[1]), store.root / ids[0])

    with pytest.raises(SnapshotSchemaError, match=f"calls itself {ids[1]}"):
        store.activate(ids[0])


@pytest.mark.parametrize(
    "snapshot_id",
    ["", ".", "..", "../x", "/etc", "CURRENT", "20261123T200102Z-1a2b3c4d/", "20261123T200102Z-1a2b3c4d\n", "२" * 8],
)
def test_no_id_leads_out_of_the_store(store: SnapshotStore, ids: list[str], snapshot_id: str) -> None:
    assert ids
    with pytest.raises(InvalidArgumentError, match="snapshot_id"):
        store.activate(snapshot_id)


def test_an_id_that_is_not_here_is_refused(store: SnapshotStore, ids: list[str]) -> None:
    assert ids
    with pytest.raises(SnapshotIncompleteError, match="no such snapshot"):
        store.activate("20261123T200102Z-1a2b3c4d")


def test_a_link_out_of_the_store_is_no_snapshot(store: SnapshotStore, ids: list[str], tmp_path: Path) -> None:
    store.path(ids[0]).rename(tmp_path / "elsewhere")
    (store.root / ids[0]).symlink_to(tmp_path / "elsewhere")

    assert ids[0] not in store.ids()
    with pytest.raises(SnapshotSchemaError, match="not a folder of its own"):
        store.activate(ids[0])


def test_pruning_keeps_the_newest_the_live_one_and_the_one_before_it(store: SnapshotStore, ids: list[str]) -> None:
    more = [build_snapshot(make_model(12, 4), store, threads=1).snapshot_id for _ in range(2)]
    store.activate(ids[0])
    store.activate(ids[1])

    assert sorted(store.prune(1)) == [ids[2], more[0]]
    assert store.ids() == [more[1], ids[1], ids[0]]
    assert store.prune(1) == []
    assert store.roll_back() == ids[0]
    assert not list(store.root.glob(".removed-*"))


def test_pruning_counts_what_is_kept_from_zero(store: SnapshotStore, ids: list[str]) -> None:
    assert store.prune(0) == [ids[0]]
    with pytest.raises(InvalidArgumentError, match="keep"):
        store.prune(-1)


def test_the_history_is_bounded(store: SnapshotStore, ids: list[str]) -> None:
    others = [f"{day}T000000Z-00000000" for day in range(20200101, 20200101 + HISTORY_MAX)]
    (store.root / "CURRENT").write_text("\n".join(others))

    store.activate(ids[0])

    assert store.history() == (ids[0], *others[:-1])


def test_the_live_snapshot_is_loaded(store: SnapshotStore, ids: list[str]) -> None:
    loaded = load_current(store, cost=FIXED_COST)

    assert loaded.snapshot.id == ids[2]
    assert loaded.refusals == ()


def test_when_the_live_snapshot_is_bad_the_one_before_is_loaded(store: SnapshotStore, ids: list[str]) -> None:
    store.activate(ids[0])
    damage(store.path(ids[0]))
    shutil.rmtree(store.path(ids[2]))

    loaded = load_current(store, cost=FIXED_COST)

    assert loaded.snapshot.id == ids[1]
    assert [type(refusal) for refusal in loaded.refusals] == [SnapshotChecksumError, SnapshotIncompleteError]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\0\n", b"../../etc/passwd\n", b"20200101T000000Z-00000000\n", b"\n" * 9999]
)
def test_when_current_names_nothing_that_is_here_the_newest_is_loaded(
    store: SnapshotStore, ids: list[str], content: bytes
) -> None:
    (store.root / "CURRENT").write_bytes(content)

    loaded = load_current(store, cost=FIXED_COST)

    assert loaded.snapshot.id == ids[2]
    assert len(loaded.refusals) == 1


def test_a_snapshot_that_was_never_activated_is_not_loaded(store: SnapshotStore) -> None:
    build_snapshot(make_model(12, 4), store, threads=1, activate=False)

    with pytest.raises(NoSnapshotError, match="no snapshot is active"):
        load_current(store, cost=FIXED_COST)


def test_when_everything_is_damaged_there_is_no_snapshot(store: SnapshotStore, ids: list[str]) -> None:
    for snapshot_id in ids:
        damage(store.path(snapshot_id))

    with pytest.raises(NoSnapshotError, match=r"items/vectors.npy"):
        load_current(store, cost=FIXED_COST)


def test_an_abandoned_draft_is_swept_and_a_living_one_is_not(store: SnapshotStore) -> None:
    with store.draft() as living:
        abandoned = store.root / ".building-abandoned"
        (abandoned / "snapshot").mkdir(parents=True)
        (abandoned / "lock").touch()
        (store.root / ".building-lockless").mkdir()
        with store.draft() as second:
            assert living.is_dir()
            assert second.is_dir()
            assert sorted(store.root.glob(".building-*")) == sorted([living.parent, second.parent])

    assert not list(store.root.glob(".building-*"))


def test_a_draft_that_fails_is_removed(store: SnapshotStore) -> None:
    def build() -> None:
        with store.draft() as folder:
            (folder / "half").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()

    assert [path.name for path in store.root.iterdir()] == [".lock"]
