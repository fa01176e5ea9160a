"""What a folder of placements holds, and when it is told that it changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from annserve.domain.errors import InputError
from annserve.domain.placements import TEXT_BYTES_MAX, PlacementText
from annserve.placements.folder import POLL_SECONDS, PlacementFolder, read_folder

WAIT_SECONDS = 20.0


async def told(changes: AsyncIterator[Sequence[PlacementText]]) -> dict[str, str]:
    async with asyncio.timeout(WAIT_SECONDS):
        return {text.name: text.text for text in await anext(changes)}


async def test_each_change_is_told_once_with_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mode: similar")
    async with aclosing(PlacementFolder(tmp_path).follow()) as changes:
        assert await told(changes) == {"a": "mode: similar"}

        (tmp_path / "b.yaml").write_text("mode: related")
        assert await told(changes) == {"a": "mode: similar", "b": "mode: related"}

        (tmp_path / "a.yaml").write_text("mode: related")
        assert await told(changes) == {"a": "mode: related", "b": "mode: related"}

        (tmp_path / "a.yaml").unlink()
        assert await told(changes) == {"b": "mode: related"}

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4 * POLL_SECONDS):
                await anext(changes)


async def test_file_that_is_being_written_is_not_read_halfway(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("mode: similar")
    whole = "mode: similar\n" + "".join(f"# line {number}\n" for number in range(40))
    async with aclosing(PlacementFolder(tmp_path).follow()) as changes:
        await told(changes)

        async def write() -> None:
            with path.open("w") as file:
                for line in whole.splitlines(keepends=True):
                    file.write(line)
                    file.flush()
                    await asyncio.sleep(POLL_SECONDS / 8)

        writing = asyncio.create_task(write())
        assert await told(changes) == {"a": whole}
        await writing


def test_what_is_no_placement_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.yaml", ".hidden.yaml", "notes.txt", "b.yml", "c.yaml~"):
        (tmp_path / name).write_text("mode: similar")
    (tmp_path / "folder.yaml").mkdir()

    assert [text.origin for text in read_folder(tmp_path)] == ["a.yaml", "b.yml"]


def test_single_file_is_a_set_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mode: similar")
    (tmp_path / "b.yaml").write_text("mode: similar")

    assert [text.name for text in read_folder(tmp_path / "b.yaml")] == ["b"]


def test_bytes_that_are_no_text_and_large_files_are_read_as_far_as_needed_to_refuse_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"mode: \xff\xfe")
    (tmp_path / "b.yaml").write_bytes(b"#" * (10 * TEXT_BYTES_MAX))

    first, second = read_folder(tmp_path)

    assert first.text == "mode: \udcff\udcfe"
    assert len(second.text) == TEXT_BYTES_MAX + 1


def test_folder_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder of placements"):
        read_folder(tmp_path / "missing")
