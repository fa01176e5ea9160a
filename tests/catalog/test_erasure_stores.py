"""Erasures are remembered, whichever store keeps them: one contract for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from mongo_catalogs import catalog_at, config_of
from mongod import MongoServer

from annserve.catalog.file_erasures import FileErasureStore
from annserve.domain.erasure import ErasedUsers, Erasure, ErasureStore, digest_of
from annserve.domain.errors import CatalogUnavailableError


@pytest.fixture(params=["file", "mongodb"])
async def opening(
    request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str
) -> AsyncIterator[Callable[[], ErasureStore]]:
    if request.param == "file":
        yield lambda: FileErasureStore(tmp_path / "data" / "erased.jsonl")
        return
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        yield catalog.erasure_store


def erasure(user_id: str, erased_ms: int) -> Erasure:
    return Erasure(digest=digest_of(user_id), erased_ms=erased_ms)


async def test_erasures_are_there_for_whoever_looks_and_the_last_of_a_user_counts(
    opening: Callable[[], ErasureStore],
) -> None:
    store = opening()
    assert list(await store.since(0)) == []
    for one in (erasure("a", 10), erasure("b", 30), erasure("a", 20), erasure("b", 25)):
        await store.add(one)

    found = await opening().since(0)

    assert {one.digest: one.erased_ms for one in found} == {digest_of("a"): 20, digest_of("b"): 30}
    assert [one.digest for one in await store.since(21)] == [digest_of("b")]
    await store.close()


async def test_a_line_that_was_cut_off_spoils_none(tmp_path: Path) -> None:
    path = tmp_path / "erased.jsonl"
    store = FileErasureStore(path)
    await store.add(erasure("a", 1))
    with path.open("ab") as file:
        file.write(b'{"digest": "0')

    await store.add(erasure("b", 2))

    assert {one.digest for one in await store.since(0)} == {digest_of("a"), digest_of("b")}


async def test_a_file_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    store = FileErasureStore(tmp_path)
    with pytest.raises(CatalogUnavailableError, match="erasures cannot be written"):
        await store.add(erasure("a", 1))
    with pytest.raises(CatalogUnavailableError, match="erasures cannot be read"):
        await store.since(0)


def test_nothing_of_an_id_is_remembered_but_a_digest() -> None:
    users = ErasedUsers()
    assert users.add([erasure("사용자", 10)])
    assert not users.add([erasure("사용자", 10), erasure("사용자", 5)])

    assert (users.erased_ms("사용자"), users.erased_ms("other")) == (10, 0)
    assert "사용자" not in repr(users.all())
    assert len(digest_of("사용자")) == 32
