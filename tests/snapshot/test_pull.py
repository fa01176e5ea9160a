"""Fetching snapshots from where they are published, whatever is wrong there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from snapshot_models import Built

from annserve.domain.errors import (
    InputError,
    SnapshotChecksumError,
    SnapshotFormatError,
    SnapshotIncompleteError,
    SnapshotRefusedError,
    SnapshotSchemaError,
)
from annserve.snapshot.manifest import read_manifest
from annserve.snapshot.pull import SnapshotSource
from annserve.snapshot.snapshot import load_snapshot
from annserve.snapshot.store import SnapshotStore

OTHER_ID = "20010101T000000Z-0123abcd"


class Published:
    """A source with one snapshot, and the means to spoil it."""

    def __init__(self, url: str, built: Built) -> None:
        self.url = url
        self.files: Any
        self.files, self.root = fsspec.core.url_to_fs(url)
        self.snapshot_id = built.path.name
        for path in built.path.rglob("*"):
            if path.is_file():
                self.write(f"{self.snapshot_id}/{path.relative_to(built.path).as_posix()}", path.read_bytes())
        self.write("CURRENT", f"{self.snapshot_id}\n{OTHER_ID}\n".encode())

    def write(self, name: str, data: bytes) -> None:
        target = f"{self.root}/{name}"
        self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(target, data)

    def remove(self, name: str) -> None:
        self.files.rm_file(f"{self.root}/{name}")


@pytest.fixture(params=["file", "memory"])
def published(request: pytest.FixtureRequest, built: Built, tmp_path: Path) -> Iterator[Published]:
    url = f"file://{tmp_path}/출판" if request.param == "file" else f"memory://{uuid.uuid4().hex}/snapshots"
    source = Published(url, built)
    yield source
    source.files.rm(source.root, recursive=True)


def test_pulled_snapshot_is_the_one_that_was_published_and_not_live(
    published: Published, store: SnapshotStore, built: Built
) -> None:
    source = SnapshotSource(published.url)

    assert source.wanted_id() == published.snapshot_id
    assert source.pull(published.snapshot_id, store) is True
    assert store.ids() == [published.snapshot_id]
    assert store.current_id() is None
    assert store.verify(published.snapshot_id) == SnapshotStore(built.path.parent).verify(published.snapshot_id)
    assert len(load_snapshot(store.path(published.snapshot_id)).items) == 60


def test_what_is_here_is_not_fetched_again(published: Published, store: SnapshotStore) -> None:
    source = SnapshotSource(published.url)
    source.pull(published.snapshot_id, store)
    published.remove(f"{published.snapshot_id}/manifest.json")

    assert source.pull(published.snapshot_id, store) is False


def test_first_stage_takes_what_canary_names_and_the_rest_what_current_does(published: Published) -> None:
    source = SnapshotSource(published.url)

    assert source.wanted_id(is_canary=True) == published.snapshot_id
    published.write("CANARY", f" {OTHER_ID}\r\n".encode())
    assert source.wanted_id(is_canary=True) == OTHER_ID
    assert source.wanted_id() == published.snapshot_id


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\n", b"../../etc\n", b"later\n"])
def test_pointer_that_names_no_snapshot_names_none(published: Published, text: bytes) -> None:
    published.write("CURRENT", text)

    assert SnapshotSource(published.url).wanted_id() is None


def test_source_that_names_nothing_yet_names_none(published: Published) -> None:
    published.remove("CURRENT")

    assert SnapshotSource(published.url).wanted_id() is None
    assert SnapshotSource(published.url + "/nowhere").wanted_id(is_canary=True) is None


def refused(published: Published, store: SnapshotStore) -> SnapshotRefusedError:
    with pytest.raises(SnapshotRefusedError) as caught:
        SnapshotSource(published.url).pull(published.snapshot_id, store)
    assert store.ids() == []
    assert [path.name for path in store.root.iterdir()] == [".lock"]
    assert published.snapshot_id in caught.value.message
    assert ".building" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", ["manifest.json", "items/vectors.npy", "affinity.hnsw"])
def test_snapshot_that_is_still_being_copied_is_incomplete(
    published: Published, store: SnapshotStore, name: str
) -> None:
    published.remove(f"{published.snapshot_id}/{name}")

    assert isinstance(refused(published, store), SnapshotIncompleteError)


@pytest.mark.parametrize("length", ["same", "shorter", "longer"])
def test_file_damaged_on_the_way_is_refused(
    published: Published, store: SnapshotStore, built: Built, length: str
) -> None:
    data = (built.path / "items/vectors.npy").read_bytes()
    damaged = {"same": data[:-1] + bytes([data[-1] ^ 1]), "shorter": data[:-1], "longer": data + b"\0"}[length]
    published.write(f"{published.snapshot_id}/items/vectors.npy", damaged)

    assert isinstance(refused(published, store), SnapshotChecksumError)


def test_manifest_of_another_snapshot_is_refused(published: Published, store: SnapshotStore) -> None:
    other = f"{OTHER_ID}/manifest.json"
    manifest = published.files.cat_file(f"{published.root}/{published.snapshot_id}/manifest.json")
    published.write(other, manifest)

    with pytest.raises(SnapshotSchemaError, match=f"calls itself {published.snapshot_id}"):
        SnapshotSource(published.url).pull(OTHER_ID, store)


def test_manifest_that_names_files_elsewhere_is_refused_before_any_is_fetched(
    published: Published, store: SnapshotStore, built: Built
) -> None:
    manifest = read_manifest(built.path)
    files = {"../../outside": manifest.files["items/vectors.npy"], **manifest.files}
    published.write(f"{published.snapshot_id}/manifest.json", manifest.model_copy(update={"files": files}).to_bytes())
    published.remove(f"{published.snapshot_id}/affinity.hnsw")

    assert isinstance(refused(published, store), SnapshotFormatError)


def test_damaged_manifest_is_refused(published: Published, store: SnapshotStore, built: Built) -> None:
    text = (built.path / "manifest.json").read_bytes()
    published.write(f"{published.snapshot_id}/manifest.json", text.replace(b'"trainer": "test"', b'"trainer": "tset"'))

    assert isinstance(refused(published, store), SnapshotChecksumError)


def test_id_that_is_none_is_not_asked_for(published: Published, store: SnapshotStore) -> None:
    with pytest.raises(InputError, match="is no snapshot's id"):
        SnapshotSource(published.url).pull("../20010101T000000Z-0123abcd", store)


def test_disk_without_room_is_said_before_anything_is_fetched(
    published: Published, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000))

    with pytest.raises(InputError, match=f"snapshot {published.snapshot_id} takes .* `annserve snapshots prune`"):
        SnapshotSource(published.url).pull(published.snapshot_id, store)
    assert store.ids() == []


@pytest.mark.parametrize("url", ["nothing-like-this://bucket/snapshots", "s3://bucket/snapshots"])
def test_source_that_nothing_here_understands_is_said(url: str) -> None:
    with pytest.raises(InputError, match="snapshots cannot be pulled from there"):
        SnapshotSource(url)
