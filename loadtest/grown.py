#!/usr/bin/env python3
"""Builds a snapshot of as many items as wanted, grown from the trained factors of a smaller one.

Every new item is a random mean of a trained item and eight of its 64 nearest neighbours, about as long and popular as
that item: so norms, clusters and the surface that items lie on are those of real factors, at a size that no public data
set has. Users are grown alike, as many to an item as were trained, up to a million.

    .venv/bin/python loadtest/grown.py --from snapshots --to grown --items 1000000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from annserve.cli.output import print_rows, progress_bars
from annserve.domain.arrays import Rows, Vectors
from annserve.domain.model import Model
from annserve.search.exact import exact_top_k_batch
from annserve.search.points import Points
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

USERS_MAX = 1_000_000
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


def grown_model(model: Model, count: int, *, user_count: int | None = None, seed: int = 0) -> Model:
    """Return a model of ``count`` items and ``user_count`` users, the first of them those of ``model``.

    Without ``user_count`` there are as many users to an item as in ``model``, but no more than `USERS_MAX`.
    """
    rng = np.random.default_rng(seed)
    trained, users = len(model.item_vectors), len(model.user_vectors)
    if user_count is None:
        user_count = min(round(count * users / trained), max(users, USERS_MAX))
    scale = model.likeness_exponent
    item_vectors, parents = _grown_vectors(model.item_vectors, count, exponent=scale, rng=rng)
    user_vectors, _ = _grown_vectors(model.user_vectors, user_count, exponent=1.0, rng=rng)
    shares = rng.uniform(0.5, 1.0, count).astype(np.float32)
    shares[:trained] = 1.0
    return replace(
        model,
        item_ids=[f"item-{number:07d}" for number in range(count)],
        item_vectors=item_vectors,
        user_ids=[f"user-{number:07d}" for number in range(user_count)],
        user_vectors=user_vectors,
        popularity=model.popularity[parents] * shares,
        histories=None,
        trainer="grown",
        parameters={"seed": seed, "trained_items": trained, "trained_users": users},
        metrics={},
    )


def _grown_vectors(vectors: Vectors, count: int, *, exponent: float, rng: np.random.Generator) -> tuple[Vectors, Rows]:
    """Return ``count`` vectors, the first of them ``vectors``, and the row of the parent of each.

    Never is there a second copy of the result in memory.
    """
    kept = min(len(vectors), count)
    grown = np.empty((count, vectors.shape[1]), np.float32)
    grown[:kept] = vectors[:kept]
    parents = np.arange(count)
    if count == kept:
        return grown, parents
    fertile = np.flatnonzero(vectors.any(axis=1))  # A user of zero has no taste to inherit.
    parents[kept:] = fertile[rng.integers(0, len(fertile), count - kept)]
    neighbours = _neighbours(vectors, fertile, exponent)
    for start in range(kept, count, _CHUNK):
        part = parents[start : start + _CHUNK]
        relatives = neighbours[part[:, None], rng.integers(0, neighbours.shape[1], (len(part), _RELATIVES))]
        shares = rng.dirichlet(np.ones(_RELATIVES + 1), len(part)).astype(np.float32)
        mixed = np.einsum("nr,nrd->nd", shares, vectors[np.column_stack([part, relatives])])
        # Means are shorter than what they are means of: a child is as long as its parent, or about that.
        lengths = np.linalg.norm(vectors[part], axis=1) * rng.lognormal(0.0, 0.1, len(part))
        grown[start : start + _CHUNK] = mixed * (lengths / np.linalg.norm(mixed, axis=1))[:, None]
    return grown, parents


def _neighbours(vectors: Vectors, fertile: Rows, exponent: float) -> Rows:
    """Return the rows of the most alike of each, by exact search; rows that are not ``fertile`` have no meaning."""
    points = Points.likeness(vectors[fertile], exponent)
    units = points.vectors / np.linalg.norm(points.vectors, axis=1, keepdims=True)
    parts = (units[start : start + _CHUNK] for start in range(0, len(units), _CHUNK))
    found = np.concatenate([exact_top_k_batch(points, part, _NEIGHBOURS)[0] for part in parts])
    neighbours = np.zeros((len(vectors), found.shape[1]), np.int64)
    neighbours[fertile] = fertile[found]
    return neighbours


if __name__ == "__main__":
    main()
