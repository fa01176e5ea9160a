"""Snapshots that must not be served: copies that differ from a good one in one way, each under an id of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from annserve.snapshot import layout
from annserve.snapshot.files import sha256
from annserve.snapshot.manifest import MANIFEST, FileEntry, Manifest, read_manifest

Damage = Callable[[Path, random.Random], None]


@contextmanager
def damaged(root: Path, snapshot_id: str, damage: Damage, seed: int) -> Iterator[str]:
    """Give the id of a damaged copy of ``snapshot_id``, which is removed afterwards.

    The copy calls itself by its own id, so that it is the damage that it is refused for.
    """
    own_id = f"{snapshot_id.partition('-')[0]}-{seed:08x}"
    folder = root / own_id
    # Links would do, but damage is done in place.
    shutil.copytree(root / snapshot_id, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        _seal(folder, read_manifest(folder).model_copy(update={"snapshot_id": own_id}))
        damage(folder, random.Random(seed))
        yield own_id
    finally:
        shutil.rmtree(folder)


def _seal(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_bytes(manifest.to_bytes())


def _some_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def flip_a_bit(folder: Path, chance: random.Random) -> None:
    """Change one bit of one file."""
    path = _some_file(folder, chance)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(folder: Path, chance: random.Random) -> None:
    """Cut one file short."""
    path = _some_file(folder, chance)
    os.truncate(path, chance.randrange(path.stat().st_size))


def remove_a_file(folder: Path, chance: random.Random) -> None:
    """Leave one file out."""
    _some_file(folder, chance).unlink()


def zero_a_page(folder: Path, chance: random.Random) -> None:
    """Lose a page of one file, as a disk does."""
    path = folder / chance.choice([layout.ITEM_VECTORS, layout.USER_VECTORS, layout.POPULARITY])
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) // 4096) * 4096
    content[place : place + 4096] = bytes(4096)
    path.write_bytes(content)


def swap_two_files(folder: Path, chance: random.Random) -> None:
    """Confuse two files."""
    first, second = chance.sample(sorted(path for path in folder.rglob("*") if path.is_file()), 2)
    aside = folder / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def claim_another_dimension(folder: Path, chance: random.Random) -> None:
    """Have the manifest, well sealed, speak of vectors of another dimension."""
    manifest = read_manifest(folder)
    change = chance.choice([-1, 1, 8])
    kinds = {
        name: kind.model_copy(update={"dimension": kind.dimension + change})
        for name, kind in (("items", manifest.kinds.items), ("users", manifest.kinds.users))
    }
    _seal(folder, manifest.model_copy(update={"kinds": manifest.kinds.model_copy(update=kinds)}))


def break_the_manifest(folder: Path, chance: random.Random) -> None:
    """Write a manifest that says something else than what it was sealed with."""
    document = json.loads((folder / MANIFEST).read_bytes())
    document["constants"]["popularity_weight"] = chance.random()
    (folder / MANIFEST).write_text(json.dumps(document))


def seal_a_vector_that_is_no_number(folder: Path, chance: random.Random) -> None:
    """Have one vector hold a NaN, and checksums that agree with it."""
    path = folder / layout.ITEM_VECTORS
    vectors = np.load(path)
    vectors[chance.randrange(len(vectors)), 0] = np.nan
    np.save(path, vectors)
    _seal_file(folder, layout.ITEM_VECTORS)


def seal_other_vectors(folder: Path, chance: random.Random) -> None:
    """Have all vectors be others, and checksums that agree with them: only the check queries can tell."""
    path = folder / layout.ITEM_VECTORS
    vectors = np.load(path)
    np.save(path, np.random.default_rng(chance.randrange(1 << 30)).permutation(vectors))
    _seal_file(folder, layout.ITEM_VECTORS)


def _seal_file(folder: Path, name: str) -> None:
    manifest, path = read_manifest(folder), folder / name
    entry = FileEntry(size_bytes=path.stat().st_size, sha256=sha256(path))
    _seal(folder, manifest.model_copy(update={"files": dict(manifest.files) | {name: entry}}))


DAMAGES: Mapping[str, Damage] = {
    damage.__name__: damage
    for damage in (
        flip_a_bit,
        truncate,
        remove_a_file,
        claim_another_dimension,
        zero_a_page,
        swap_two_files,
        break_the_manifest,
        seal_a_vector_that_is_no_number,
        seal_other_vectors,
    )
}
