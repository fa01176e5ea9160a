#!/usr/bin/env python3
"""Builds a snapshot of as many items as wanted, grown from the trained factors of a smaller one.

Every new item lies between a trained item and one of its nearest neighbours, with the norm and popularity of the two
and something of its own: norms, clusters and the spread of both spaces are those of real factors, at a size that no
public data set has.

    .venv/bin/python loadtest/grown.py --from snapshots --to grown --items 1000000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from annserve.cli.output import print_rows, progress_bars
from annserve.domain.model import Model
from annserve.search.exact import exact_top_k_batch
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

_NEIGHBOURS = 16
_CHUNK = 1_000
_MIXED = 8


def main() -> None:
    """Build, and print what the manifest says of both spaces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=Path("snapshots"), help="a folder with a snapshot")
    parser.add_argument("--to", type=Path, required=True, help="where the grown snapshot goes")
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    model = grown_model(load_current(SnapshotStore(arguments.source)).snapshot, arguments.items)
    started = time.monotonic()
    with progress_bars() as progress:
        info = build_snapshot(model, SnapshotStore(arguments.to), progress=progress)
    manifest = info.manifest
    if manifest is None:
        raise RuntimeError(f"{info.snapshot_id} was built and cannot be read")
    spaces = manifest.spaces
    rows = [
        {"space": name, "path": entry.path.value, "recall": entry.recall, "recipe": str(entry.recipe)}
        for name, entry in (("affinity", spaces.affinity), ("likeness", spaces.likeness))
    ]
    print_rows(rows, as_json=False, title=f"{info.snapshot_id}, built in {time.monotonic() - started:.0f} s")


def grown_model(snapshot: Snapshot, count: int, *, seed: int = 0) -> Model:
    """Return a model of ``count`` items, the first of them those of ``snapshot``, with its users."""
    rng = np.random.default_rng(seed)
    vectors, popularity = snapshot.item_vectors, snapshot.popularity
    trained = len(vectors)
    parents = rng.integers(0, trained, max(count - trained, 0))
    neighbours = np.empty((trained, _NEIGHBOURS), np.int64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for start in range(0, trained, _CHUNK):
        rows, _ = exact_top_k_batch(snapshot.likeness.points, units[start : start + _CHUNK], _NEIGHBOURS)
        neighbours[start : start + _CHUNK] = rows
    partners = neighbours[parents, rng.integers(0, _NEIGHBOURS, len(parents))]
    share = rng.uniform(0.05, 0.5, (len(parents), 1)).astype(np.float32)
    born = (1 - share) * vectors[parents] + share * vectors[partners]
    norms = np.linalg.norm(born, axis=1, keepdims=True)
    # What is its own in an item: half a vector's length, spread over the directions as the items are.
    for start in range(0, len(born), _CHUNK):
        part = slice(start, start + _CHUNK)
        mixed = rng.standard_normal((len(born[part]), _MIXED), dtype=np.float32)
        strangers = units[rng.integers(0, trained, mixed.shape)]
        born[part] += 0.5 * norms[part] * np.einsum("nm,nmd->nd", mixed, strangers) / np.sqrt(_MIXED)
    born *= norms / np.linalg.norm(born, axis=1, keepdims=True)
    return Model(
        item_ids=[f"item-{number:07d}" for number in range(count)],
        item_vectors=np.concatenate([vectors, born])[:count].astype(np.float32),
        user_ids=[snapshot.users.id(row) for row in range(len(snapshot.users))],
        user_vectors=np.asarray(snapshot.user_vectors),
        popularity=np.concatenate([popularity, popularity[np.where(share[:, 0] < 0.25, parents, partners)]])[:count],
        popularity_weight=snapshot.popularity_weight,
        likeness_exponent=snapshot.likeness_exponent,
        recent_items_max=snapshot.recent_items_max,
        fold_in=snapshot.fold_in,
        trainer="grown",
        parameters={"seed": seed, "trained_items": trained},
    )


if __name__ == "__main__":
    main()
