"""Opens glove-6b-50d (400,000 word vectors, PDDL) for the search benchmark of one space on data of real size.

``python loadtest/glove.py FOLDER`` runs the benchmark by itself and prints its figures as JSON.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from annserve.domain.arrays import Vectors
from annserve.domain.model import Space
from annserve.search.benchmark import benchmark_vectors

_TUNING_COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Glove:
    """The vectors to search, and queries that are not among them."""

    vectors: Vectors
    """``(398000, 50)``."""
    queries: Vectors
    """``(1000, 50)``: those the data set holds out."""
    tuning_queries: Vectors
    """``(1000, 50)``: drawn at random from the rest."""


def open_glove(folder: Path, *, seed: int = 0) -> Glove:
    """Return the data set that lies in ``folder`` as a float16 array packed with zstd, widened to float32."""
    with (folder / "glove_6b_50d.float16.npy.zst").open("rb") as packed:
        unpacked = zstandard.ZstdDecompressor().stream_reader(packed).read()
    every = np.load(io.BytesIO(unpacked)).astype(np.float32)
    with np.load(folder / "ground_truth_cosine_top100_1000q.npz") as truth:
        query_rows = truth["query_rows"]
    others = np.setdiff1d(np.arange(len(every)), query_rows)
    tuning_rows = np.random.default_rng(seed).choice(others, _TUNING_COUNT, replace=False)
    return Glove(
        vectors=every[np.setdiff1d(others, tuning_rows)],
        queries=every[query_rows],
        tuning_queries=every[tuning_rows],
    )


def main() -> None:
    """Benchmark cosine search, which is likeness with exponent 1, over the folder named on the command line."""
    glove = open_glove(Path(sys.argv[1]))
    figures = benchmark_vectors(
        glove.vectors, glove.queries, Space.LIKENESS, tuning_queries=glove.tuning_queries, threads=2
    )
    print(json.dumps(figures.as_plain(), indent=2))


if __name__ == "__main__":
    main()
