"""Training at scale: 20 M made-up interactions of 200k users and 50k items, read and fitted, with seconds and memory.

``python loadtest/scale_training.py --folder /tmp/scale`` makes the file once, then measures in a process of its own, so
that the peak memory it prints is that of reading and fitting alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from annserve.training.columns import TimeUnit
from annserve.training.interactions import Columns, Interactions, read_interactions
from annserve.training.pairs import pairs_of
from annserve.training.train import TrainingSettings, confidences, folded_in

_CHUNK_ROWS = 1 << 20
_CLUSTER_COUNT = 200
_CLUSTERS_PER_USER = 3
_SHARE_BY_TASTE = 0.7
_FIRST_MS = 1_704_067_200_000
_YEAR_MS = 365 * 86_400_000
_ITERATIONS = 15
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much to make."""

    rows: int = 20_000_000
    users: int = 200_000
    items: int = 50_000
    seed: int = 0


class SyntheticWorld:
    """Users with a few tastes each, and items of one taste each, both unevenly busy.

    An item's share falls with its rank to the power 0.9, as in catalogues of shops; a user's activity is log-normal.
    Most picks come from the user's own tastes, so there is something to learn; the rest from everything.
    """

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._random = np.random.default_rng(scale.seed)
        # Items are ordered by cluster, so that a cluster is a range of the cumulated popularity.
        clusters = np.sort(self._random.integers(0, _CLUSTER_COUNT, scale.items))
        popularity = (self._random.permutation(scale.items) + 10.0) ** -0.9
        self._mass = np.concatenate([[0.0], np.cumsum(popularity / popularity.sum())])
        self._cluster_edges = np.searchsorted(clusters, np.arange(_CLUSTER_COUNT + 1))
        self._tastes = self._random.integers(0, _CLUSTER_COUNT, (scale.users, _CLUSTERS_PER_USER))
        activity = np.cumsum(self._random.lognormal(0.0, 1.2, scale.users))
        self._activity = activity / activity[-1]
        self._user_ids = pa.array([f"user-{number:09d}" for number in self._random.permutation(scale.users)])
        self._item_ids = pa.array([f"상품-{number:07d}" for number in self._random.permutation(scale.items)])

    def chunks(self) -> Iterator[pa.RecordBatch]:
        """Yield all interactions: ids as text, whole weights, times within a year."""
        for start in range(0, self._scale.rows, _CHUNK_ROWS):
            count = min(_CHUNK_ROWS, self._scale.rows - start)
            users = np.searchsorted(self._activity, self._random.random(count), side="right")
            yield pa.record_batch(
                {
                    "user_id": self._user_ids.take(pa.array(users)),
                    "item_id": self._item_ids.take(pa.array(self._picks(users))),
                    "weight": self._random.geometric(0.6, count).astype(np.float32),
                    "time": _FIRST_MS + self._random.integers(0, _YEAR_MS, count),
                }
            )

    def _picks(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        cluster = self._tastes[users, self._random.integers(0, _CLUSTERS_PER_USER, len(users))]
        by_taste = self._random.random(len(users)) < _SHARE_BY_TASTE
        low = np.where(by_taste, self._mass[self._cluster_edges[cluster]], 0.0)
        high = np.where(by_taste, self._mass[self._cluster_edges[cluster + 1]], self._mass[-1])
        picked = np.searchsorted(self._mass, low + (high - low) * self._random.random(len(users)), side="right") - 1
        return np.minimum(picked, self._scale.items - 1)


def generate(path: Path, scale: Scale) -> None:
    """Write the interactions of a world to one Parquet file."""
    world = SyntheticWorld(scale)
    writer: pq.ParquetWriter | None = None
    for chunk in world.chunks():
        writer = writer or pq.ParquetWriter(path, chunk.schema)
        writer.write_batch(chunk)
    if writer:
        writer.close()


def measure(path: Path, scale: Scale) -> None:
    """Read ``path``, fit on it, and print how long each took and the memory it needed at its peak."""
    print(f"imports                        peak {_peak_mb():7.0f} MB")
    start = time.perf_counter()
    interactions = read_interactions(
        path, columns=Columns(weight="weight", time="time", time_unit=TimeUnit.MILLISECONDS)
    )
    print(f"read {len(interactions):>12,} rows  {time.perf_counter() - start:7.1f} s  peak {_peak_mb():7.0f} MB")
    print(f"     {len(interactions.user_ids):>12,} users, {len(interactions.item_ids):,} items of {scale.items:,}")
    fit(interactions)


def fit(interactions: Interactions) -> None:
    """Fit 64 factors through our trainer and by `implicit` directly, and print the ratio; then fold every user in."""
    start = time.perf_counter()
    pairs = pairs_of(interactions)
    settings = TrainingSettings(factors=64, iterations=_ITERATIONS)
    matrix = confidences(pairs, settings)
    print(f"weigh {len(pairs):>11,} pairs {time.perf_counter() - start:7.1f} s  peak {_peak_mb():7.0f} MB")

    trainer = settings.item_trainer()
    start = time.perf_counter()
    item_vectors = trainer.fit(matrix, threads=_THREADS)
    ours = time.perf_counter() - start
    print(f"fit, {_ITERATIONS} iterations         {ours:7.1f} s  peak {_peak_mb():7.0f} MB")
    library_matrix = csr_matrix(matrix)
    start = time.perf_counter()
    with threadpool_limits(1, "blas"):
        library = AlternatingLeastSquares(
            factors=64,
            alpha=settings.alpha,
            regularization=settings.regularization,
            iterations=_ITERATIONS,
            num_threads=_THREADS,
            random_state=settings.seed,
        )
        library.fit(library_matrix, show_progress=False)
    directly = time.perf_counter() - start
    print(f"the library directly          {directly:7.1f} s  ratio {ours / directly:.2f}")

    start = time.perf_counter()
    folded_in(pairs, item_vectors, trainer.fold_in, settings)
    print(f"fold in {len(pairs.user_ids):>9,} users {time.perf_counter() - start:7.1f} s  peak {_peak_mb():7.0f} MB")


def _peak_mb() -> float:
    # Not getrusage: a new process starts with the peak of the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the made-up file is kept")
    parser.add_argument("--rows", type=int, default=Scale().rows)
    parser.add_argument("--users", type=int, default=Scale().users)
    parser.add_argument("--items", type=int, default=Scale().items)
    parser.add_argument("--seed", type=int, default=Scale().seed)
    arguments = parser.parse_args()
    scale = Scale(rows=arguments.rows, users=arguments.users, items=arguments.items, seed=arguments.seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"{scale.rows}x{scale.users}x{scale.items}-{scale.seed}.parquet"
    if not path.exists():
        start = time.perf_counter()
        generate(path, scale)
        print(f"made {path} ({path.stat().st_size / 1e6:.0f} MB) in {time.perf_counter() - start:.1f} s")
    # A spawned process starts small; a forked one would inherit this one's memory.
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(path, scale))
    process.start()
    process.join()
    raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
