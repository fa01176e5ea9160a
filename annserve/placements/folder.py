"""Placements in a folder, a ``.yaml`` file each: looked at again and again, for that works on every file system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from annserve.domain.errors import InputError
from annserve.domain.placements import TEXT_BYTES_MAX, PlacementText

POLL_SECONDS: Final = 0.2
FILES_MAX: Final = 1_000

_Seen: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, time of change, size and inode of each file."""


class PlacementFolder:
    """Implements `domain.placements.PlacementSource`."""

    def __init__(self, folder: Path) -> None:
        """Read placements from ``folder``; a file will do, and is then the only one."""
        self._folder = folder

    async def read(self) -> Sequence[PlacementText]:
        """Return all there are now."""
        return await asyncio.to_thread(read_folder, self._folder)

    async def follow(self) -> AsyncGenerator[Sequence[PlacementText], None]:
        """Yield all there are, at once and again after each change."""
        told: _Seen | None = None
        before: _Seen | None = None
        while True:
            seen = await asyncio.to_thread(_seen, self._folder)
            # A file that is being written is left until it has been the same for two looks.
            if seen != told and (told is None or seen == before):
                texts = await self.read()
                if await asyncio.to_thread(_seen, self._folder) == seen:
                    told = seen
                    yield texts
            before = seen
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Nothing is held."""


def read_folder(folder: Path) -> Sequence[PlacementText]:
    """Return the placements in ``folder``, by name, or the one that is this file.

    Raises:
        InputError: there is none of that name, or one of its files cannot be read.
    """
    try:
        return [_read(path) for path in _files(folder)]
    except OSError as error:
        raise InputError(f"placements cannot be read: {error}", path=folder) from None


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"there is no folder of placements at {folder}", path=folder)
    found = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    # Editors and mounted configurations keep files of their own there, which begin with a dot.
    files = [path for path in found if not path.name.startswith(".")]
    if len(files) > FILES_MAX:
        raise InputError(f"{folder} has {len(files):,} placements, and {FILES_MAX:,} are the most", path=folder)
    return files


def _read(path: Path) -> PlacementText:
    with path.open("rb") as file:
        # One byte more than there may be shows that there are too many.
        content = file.read(TEXT_BYTES_MAX + 1)
    return PlacementText(name=path.stem, origin=path.name, text=content.decode("utf-8", "surrogateescape"))


def _seen(folder: Path) -> _Seen:
    stats = []
    for path in _files(folder):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        stats.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(stats)
