#!/usr/bin/env python3
"""Builds a snapshot of as many items as wanted, grown from the trained factors of a smaller one.

Every new item is a random mean of a trained item and eight of its 64 nearest neighbours, about as long and popular as
that item: so norms, clusters and the surface that items lie on are those of real factors, at a size that no public data
set has.

    .venv/bin/python loadtest/grown.py --from snapshots --to grown --items 1000000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from annserve.cli.output import print_rows, progress_bars
from annserve.domain.arrays import Rows
from annserve.domain.model import Model
from annserve.search.exact import exact_top_k_batch
from annserve.search.points import Points
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

_NEIGHBOURS = 64
_RELATIVES = 8
_CHUNK = 1_000


def main() -> None:
    """Build, and print what the manifest says of both spaces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=Path("snapshots"), help="a folder with a snapshot")
    parser.add_argument("--to", type=Path, required=True, help="where the grown snapshot goes")
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    model = grown_model(model_of(load_current(SnapshotStore(arguments.source)).snapshot), arguments.items)
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


def model_of(snapshot: Snapshot) -> Model:
    """Return the vectors of ``snapshot``, of items and users, as training handed them over."""
    return Model(
        item_ids=[snapshot.items.id(row) for row in range(len(snapshot.items))],
        item_vectors=np.asarray(snapshot.item_vectors),
        user_ids=[snapshot.users.id(row) for row in range(len(snapshot.users))],
        user_vectors=np.asarray(snapshot.user_vectors),
        popularity=np.asarray(snapshot.popularity),
        popularity_weight=snapshot.popularity_weight,
        likeness_exponent=snapshot.likeness_exponent,
        recent_items_max=snapshot.recent_items_max,
        fold_in=snapshot.fold_in,
        trainer="trained",
    )


def grown_model(model: Model, count: int, *, seed: int = 0) -> Model:
    """Return a model of ``count`` items, the first of them those of ``model``, with its users."""
    rng = np.random.default_rng(seed)
    vectors, popularity = model.item_vectors, model.popularity
    trained = len(vectors)
    parents = rng.integers(0, trained, max(count - trained, 0))
    born = np.empty((len(parents), vectors.shape[1]), np.float32)
    neighbours = _neighbours(model) if len(parents) else np.empty((0, _NEIGHBOURS), np.int64)
    for start in range(0, len(parents), _CHUNK):
        part = parents[start : start + _CHUNK]
        relatives = neighbours[part[:, None], rng.integers(0, _NEIGHBOURS, (len(part), _RELATIVES))]
        shares = rng.dirichlet(np.ones(_RELATIVES + 1), len(part)).astype(np.float32)
        mixed = np.einsum("nr,nrd->nd", shares, vectors[np.column_stack([part, relatives])])
        # Means are shorter than what they are means of: a child is as long as its parent, or about that.
        lengths = np.linalg.norm(vectors[part], axis=1) * rng.lognormal(0.0, 0.1, len(part))
        born[start : start + _CHUNK] = mixed * (lengths / np.linalg.norm(mixed, axis=1))[:, None]
    grown_popularity = popularity[parents] * rng.uniform(0.5, 1.0, len(parents)).astype(np.float32)
    return replace(
        model,
        item_ids=[f"item-{number:07d}" for number in range(count)],
        item_vectors=np.concatenate([vectors, born])[:count].astype(np.float32),
        popularity=np.concatenate([popularity, grown_popularity])[:count].astype(np.float32),
        histories=None,
        trainer="grown",
        parameters={"seed": seed, "trained_items": trained},
        metrics={},
    )


def _neighbours(model: Model) -> Rows:
    """Return the rows of the most alike items of each, by exact search."""
    vectors = model.item_vectors
    points = Points.likeness(vectors, model.likeness_exponent)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = (units[start : start + _CHUNK] for start in range(0, len(units), _CHUNK))
    return np.concatenate([exact_top_k_batch(points, part, _NEIGHBOURS)[0] for part in parts]).astype(np.int64)


if __name__ == "__main__":
    main()
