"""Snapshots damaged at random, in every way there is: each refused for the right reason, and the process alive."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshot_models import FIXED_COST, Built

from annserve.domain.errors import (
    SnapshotChecksumError,
    SnapshotFormatError,
    SnapshotIncompleteError,
    SnapshotRecallError,
    SnapshotRefusedError,
    SnapshotSchemaError,
)
from annserve.snapshot.files import sha256
from annserve.snapshot.ids import encode_ids
from annserve.snapshot.manifest import sha256_of
from annserve.snapshot.snapshot import load_snapshot

DAMAGE_COUNT = 400
PAGE = 4096

Damage = Callable[[Path, np.random.Generator], None]
Refusal = type[SnapshotRefusedError]


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def pick(path: Path, rng: np.random.Generator) -> Path:
    files = files_of(path)
    return files[rng.integers(len(files))]


def flip_a_bit(path: Path, rng: np.random.Generator) -> None:
    flip_a_bit_of(pick(path, rng), rng)


def flip_a_bit_of_the_manifest(path: Path, rng: np.random.Generator) -> None:
    flip_a_bit_of(path / "manifest.json", rng)


def flip_a_bit_of(file: Path, rng: np.random.Generator) -> None:
    content = bytearray(file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def overwrite_a_page(path: Path, rng: np.random.Generator, page: Callable[[int], bytes]) -> None:
    file = pick(path, rng)
    content = bytearray(file.read_bytes())
    start = int(rng.integers(len(content) // PAGE + 1)) * PAGE
    size = len(content[start : start + PAGE])
    content[start : start + PAGE] = page(size)
    if bytes(content) == file.read_bytes():  # That page was zero, or had no bytes, before.
        content.append(0)
    file.write_bytes(content)


def zero_a_page(path: Path, rng: np.random.Generator) -> None:
    overwrite_a_page(path, rng, bytes)


def fill_a_page_with_noise(path: Path, rng: np.random.Generator) -> None:
    overwrite_a_page(path, rng, rng.bytes)


def cut_short(path: Path, rng: np.random.Generator) -> None:
    file = pick(path, rng)
    file.write_bytes(file.read_bytes()[: rng.integers(file.stat().st_size)])


def lengthen(path: Path, rng: np.random.Generator) -> None:
    with pick(path, rng).open("ab") as file:
        file.write(rng.bytes(int(rng.integers(1, PAGE))))


def swap_two_files(path: Path, rng: np.random.Generator) -> None:
    one, other = rng.permutation(len(files_of(path)))[:2]
    first, second = files_of(path)[one], files_of(path)[other]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def remove_a_file(path: Path, rng: np.random.Generator) -> None:
    pick(path, rng).unlink()


def link_a_file(path: Path, rng: np.random.Generator) -> None:
    file = pick(path, rng)
    elsewhere = path.parent / "elsewhere"
    shutil.move(file, elsewhere)
    file.symlink_to(elsewhere)


def link_a_folder(path: Path, rng: np.random.Generator) -> None:
    folder = path / ("items", "users", "checks")[rng.integers(3)]
    folder.rename(path.parent / "elsewhere")
    folder.symlink_to(path.parent / "elsewhere")


def empty_the_manifest(path: Path, _rng: np.random.Generator) -> None:
    (path / "manifest.json").write_bytes(b"")


# From here on the manifest is made to fit, checksums and all: what is wrong is what the files hold.


def rewrite(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Write the manifest anew, every file's size and checksum as they are now, after ``change`` to the rest."""
    document = json.loads((path / "manifest.json").read_bytes())
    del document["checksum"]
    for name, entry in document["files"].items():
        file = path / name
        entry.update(size_bytes=file.stat().st_size, sha256=sha256(file))
    change(document)
    document["checksum"] = sha256_of(document)
    (path / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def rewrite_array(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    array = np.load(path / name)
    np.save(path / name, change(array))
    rewrite(path)


def with_value(rng: np.random.Generator, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[tuple(rng.integers(array.shape))] = value
        return array

    return change


def poison_a_vector(path: Path, rng: np.random.Generator) -> None:
    name = ("items/vectors.npy", "users/vectors.npy", "items/popularity.npy", "checks/likeness_queries.npy")[
        rng.integers(4)
    ]
    rewrite_array(path, name, with_value(rng, (np.nan, np.inf, -np.inf, 3e38)[rng.integers(4)]))


def zero_a_vector(path: Path, rng: np.random.Generator) -> None:
    def change(array: Any) -> Any:
        array[rng.integers(len(array))] = 0
        return array

    rewrite_array(path, "items/vectors.npy", change)


def poison_the_gram_matrix(path: Path, rng: np.random.Generator) -> None:
    rewrite_array(path, "items/gram.npy", with_value(rng, (np.nan, 1e3)[rng.integers(2)]))


def point_a_history_nowhere(path: Path, rng: np.random.Generator) -> None:
    rewrite_array(path, "users/history_rows.npy", with_value(rng, (-1, 60)[rng.integers(2)]))


def break_the_history_index(path: Path, rng: np.random.Generator) -> None:
    rewrite_array(path, "users/history_indptr.npy", with_value(rng, (-5, 1_000_000)[rng.integers(2)]))


def point_a_check_nowhere(path: Path, rng: np.random.Generator) -> None:
    rewrite_array(path, "checks/affinity_rows.npy", with_value(rng, (-1, 60)[rng.integers(2)]))


def change_the_type(path: Path, rng: np.random.Generator) -> None:
    arrays = sorted(path.rglob("*.npy"))
    name = arrays[rng.integers(len(arrays))].relative_to(path).as_posix()
    rewrite_array(path, name, lambda array: array.astype(("<f2", ">f4", "<i2", "<u8")[rng.integers(4)]))


def change_the_shape(path: Path, rng: np.random.Generator) -> None:
    arrays = sorted(path.rglob("*.npy"))
    name = arrays[rng.integers(len(arrays))].relative_to(path).as_posix()
    change = (lambda array: array[:-1], lambda array: array[..., :-1], lambda array: array[None])[rng.integers(3)]
    rewrite_array(path, name, change)


def pickle_an_array(path: Path, _rng: np.random.Generator) -> None:
    np.save(path / "items/vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    rewrite(path)


def claim_a_huge_array(path: Path, rng: np.random.Generator) -> None:
    file = path / ("items/vectors.npy", "users/vectors.npy")[rng.integers(2)]
    shape = ((2**40, 2**40), (2**31, 6), (-1, 6), (2**64, 0))[rng.integers(4)]
    with file.open("r+b") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    rewrite(path)


def bloat_a_header(path: Path, rng: np.random.Generator) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 30_000 + rng.bytes(30_000)
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (path / "items/vectors.npy").write_bytes(content)
    rewrite(path)


def turn_to_fortran_order(path: Path, _rng: np.random.Generator) -> None:
    rewrite_array(path, "items/vectors.npy", np.asfortranarray)


def change_the_dimension(path: Path, rng: np.random.Generator) -> None:
    dimension = int(rng.choice([1, 5, 7, 65_536]))

    def change(document: dict[str, Any]) -> None:
        for kind in document["kinds"].values():
            kind["dimension"] = dimension

    rewrite(path, change)


def lose_an_id(path: Path, rng: np.random.Generator) -> None:
    kind = ("items", "users")[rng.integers(2)]
    (path / kind / "ids.marisa").write_bytes(encode_ids([f"{number}" for number in range(7)]))
    rewrite(path)


def replace_the_ids(path: Path, rng: np.random.Generator) -> None:
    (path / "items/ids.marisa").write_bytes(rng.bytes(int(rng.integers(PAGE))))
    rewrite(path)


def exchange_the_graphs(path: Path, _rng: np.random.Generator) -> None:
    (path / "affinity.hnsw").rename(path / "swap")
    (path / "likeness.hnsw").rename(path / "affinity.hnsw")
    (path / "swap").rename(path / "likeness.hnsw")
    rewrite(path)


def behead_a_graph(path: Path, rng: np.random.Generator) -> None:
    file = path / ("affinity.hnsw", "likeness.hnsw")[rng.integers(2)]
    file.write_bytes(rng.bytes(int(rng.integers(1, 48))) + file.read_bytes()[48 * int(rng.integers(2)) :])
    rewrite(path)


def shuffle_the_vectors(path: Path, rng: np.random.Generator) -> None:
    """Graphs of other vectors, of the right shape: only their answers tell."""
    rewrite_array(path, "items/vectors.npy", rng.permutation)


def tell_a_newer_format(path: Path, rng: np.random.Generator) -> None:
    rewrite(path, lambda document: document.update(format_version=int(rng.integers(2, 2**31))))


def tell_no_format(path: Path, rng: np.random.Generator) -> None:
    rewrite(path, lambda document: document.update(format_version=(None, "1", 0, True, 1.0)[rng.integers(5)]))


def escape_by_a_name(path: Path, rng: np.random.Generator) -> None:
    name = ("../elsewhere", "/etc/passwd", "items/../../elsewhere", "", ".", "items", "x\0y")[rng.integers(7)]
    rewrite(path, lambda document: document["files"].update({name: document["files"]["items/vectors.npy"]}))


def forget_a_name(path: Path, rng: np.random.Generator) -> None:
    rewrite(path, lambda document: document["files"].pop(rng.choice(sorted(document["files"]))))


def add_a_field(path: Path, rng: np.random.Generator) -> None:
    section = (None, "constants", "kinds", "training")[rng.integers(4)]
    rewrite(path, lambda document: (document if section is None else document[section]).update(surprise=1))


def remove_a_field(path: Path, rng: np.random.Generator) -> None:
    def change(document: dict[str, Any]) -> None:
        del document[rng.choice(sorted(document.keys() - {"format_version"}))]

    rewrite(path, change)


def spoil_a_recipe(path: Path, rng: np.random.Generator) -> None:
    def change(document: dict[str, Any]) -> None:
        space = document["spaces"][("affinity", "likeness")[rng.integers(2)]]
        field, value = (("m", 1), ("m", 10**9), ("ef_search", 0), ("reduction", "cosine"), ("m", "16"))[rng.integers(5)]
        space["recipe"][field] = value

    rewrite(path, change)


def spoil_the_bands(path: Path, rng: np.random.Generator) -> None:
    def change(document: dict[str, Any]) -> None:
        bands = document["spaces"]["affinity"]["bands"]
        values = bands["edges"] if rng.integers(2) else bands["levels"][0]["recalls"]
        values.pop()

    rewrite(path, change)


def replace_the_manifest(path: Path, rng: np.random.Generator) -> None:
    texts = (
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"format_version": 1}',
        b'{"format_version": NaN}',
        b"1" * 9999,
    )
    (path / "manifest.json").write_bytes(texts[rng.integers(len(texts))])


DAMAGES: dict[Damage, set[Refusal]] = {
    # A flipped bit of the manifest may leave it unreadable, or of another version.
    flip_a_bit: {SnapshotChecksumError, SnapshotFormatError},
    flip_a_bit_of_the_manifest: {SnapshotChecksumError, SnapshotFormatError},
    zero_a_page: {SnapshotChecksumError, SnapshotFormatError, SnapshotIncompleteError},
    fill_a_page_with_noise: {SnapshotChecksumError, SnapshotFormatError},
    cut_short: {SnapshotChecksumError, SnapshotFormatError, SnapshotIncompleteError},
    lengthen: {SnapshotChecksumError, SnapshotFormatError},
    swap_two_files: {SnapshotChecksumError, SnapshotFormatError},
    remove_a_file: {SnapshotIncompleteError},
    link_a_file: {SnapshotSchemaError, SnapshotFormatError},
    link_a_folder: {SnapshotSchemaError},
    empty_the_manifest: {SnapshotIncompleteError},
    poison_a_vector: {SnapshotSchemaError},
    zero_a_vector: {SnapshotSchemaError},
    poison_the_gram_matrix: {SnapshotSchemaError},
    point_a_history_nowhere: {SnapshotSchemaError},
    break_the_history_index: {SnapshotSchemaError},
    point_a_check_nowhere: {SnapshotSchemaError},
    change_the_type: {SnapshotSchemaError},
    change_the_shape: {SnapshotSchemaError},
    pickle_an_array: {SnapshotSchemaError},
    claim_a_huge_array: {SnapshotSchemaError},
    bloat_a_header: {SnapshotSchemaError},
    turn_to_fortran_order: {SnapshotSchemaError},
    change_the_dimension: {SnapshotSchemaError},
    lose_an_id: {SnapshotSchemaError},
    replace_the_ids: {SnapshotSchemaError},
    exchange_the_graphs: {SnapshotSchemaError},
    behead_a_graph: {SnapshotSchemaError},
    shuffle_the_vectors: {SnapshotRecallError},
    tell_a_newer_format: {SnapshotFormatError},
    tell_no_format: {SnapshotFormatError},
    escape_by_a_name: {SnapshotFormatError},
    forget_a_name: {SnapshotFormatError},
    add_a_field: {SnapshotFormatError},
    remove_a_field: {SnapshotFormatError},
    spoil_a_recipe: {SnapshotFormatError},
    spoil_the_bands: {SnapshotFormatError},
    replace_the_manifest: {SnapshotFormatError, SnapshotChecksumError},
}


def expected_refusals(damage: Damage, built: Built) -> set[Refusal]:
    """Return what must refuse ``damage``: graphs exchanged at one width are told apart by their answers alone."""
    spaces = json.loads((built.path / "manifest.json").read_text(encoding="utf-8"))["spaces"]
    # An affinity point is one longer than a likeness point, and the augmented reduction adds one to either.
    augmented = [spaces[space]["recipe"]["reduction"] == "augmented_l2" for space in ("affinity", "likeness")]
    if damage is exchange_the_graphs and 1 + augmented[0] == augmented[1]:
        return {SnapshotRecallError}
    return DAMAGES[damage]


def test_damaged_snapshots_are_refused_with_the_reason(built: Built, tmp_path: Path) -> None:
    damages = list(DAMAGES)
    wrong: list[str] = []
    refusals: Counter[str] = Counter()
    for seed in range(DAMAGE_COUNT):
        damage = damages[seed % len(damages)]
        folder = tmp_path / "damaged"
        path = folder / built.path.name
        shutil.copytree(built.path, path, copy_function=shutil.copyfile)
        damage(path, np.random.default_rng(seed))
        try:
            load_snapshot(path, cost=FIXED_COST)
        except SnapshotRefusedError as error:
            refusals[error.reason] += 1
            if type(error) not in expected_refusals(damage, built):
                wrong.append(f"{seed} {damage.__name__}: {error!r}")
        else:
            wrong.append(f"{seed} {damage.__name__}: loaded")
        shutil.rmtree(folder)

    assert wrong == []
    assert sum(refusals.values()) == DAMAGE_COUNT
    assert set(refusals) == {refusal.reason for refusals_ in DAMAGES.values() for refusal in refusals_}


def test_a_copy_that_was_not_damaged_is_loaded(copy: Path) -> None:
    rewrite(copy)

    assert load_snapshot(copy, cost=FIXED_COST).id == copy.name


def test_files_that_are_not_of_the_snapshot_are_ignored(copy: Path) -> None:
    (copy / "README").write_text("notes")
    (copy / "items" / "notes").write_text("notes")

    assert load_snapshot(copy, cost=FIXED_COST).id == copy.name


def test_a_newer_format_is_refused_with_both_versions(copy: Path) -> None:
    rewrite(copy, lambda document: document.update(format_version=7))

    with pytest.raises(SnapshotFormatError, match=r"is of format 7, this annserve reads formats up to 1"):
        load_snapshot(copy)


def test_a_folder_without_a_manifest_was_never_finished(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(SnapshotIncompleteError, match=r"manifest.json is missing"):
            load_snapshot(path)


def test_a_pipe_in_place_of_a_file_does_not_block(copy: Path) -> None:
    for name in ("items/vectors.npy", "manifest.json"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
        with pytest.raises(SnapshotRefusedError, match="not a regular file"):
            load_snapshot(copy)
