"""``annserve bench``: measurements anybody can repeat."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from annserve.cli.options import SnapshotsOption, live_id, open_store
from annserve.cli.output import JsonOption, print_json, print_rows, progress_bars
from annserve.domain.arrays import Rows, Vectors
from annserve.domain.errors import InputError
from annserve.domain.model import Space
from annserve.search.benchmark import SearchBenchmark, benchmark_index, benchmark_vectors
from annserve.snapshot.queries import QUERIES_MAX as TUNING_QUERIES_MAX
from annserve.snapshot.queries import affinity_queries, likeness_queries
from annserve.snapshot.snapshot import Snapshot, load_snapshot

app = typer.Typer(help="Measure, repeatably.", no_args_is_help=True)

_QUERIES_MAX = 1_000
_QUERIES_MIN = 64
"""With fewer queries left that no graph was tuned with, those take part that were."""
_BUILD_SEED = 0
_SEED = 1


@app.callback()
def bench() -> None:
    """Keep `search` a command of its own while it is the only one."""


@app.command()
def search(
    vectors: Annotated[
        Path | None, typer.Option(help="Item vectors, .npy of shape (n, d), instead of the live snapshot.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="Query vectors, .npy of shape (q, d), beside --vectors.")] = None,
    exponent: Annotated[
        float, typer.Option(min=0, max=1, help="Beside --vectors: power of the norm that divides likeness; 1: cosine.")
    ] = 1.0,
    recall_target: Annotated[float, typer.Option(min=0.5, max=1, help="The recall@10 to tune for.")] = 0.98,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure recall@10 and speed at every selectivity, and beside hnswlib called directly; one core.

    Of the live snapshot, both spaces are measured: affinity with its users' vectors, likeness with its items'.
    """
    with progress_bars() as progress:
        if vectors is not None:
            if queries is None:
                raise typer.BadParameter("is needed beside --vectors", param_hint="--queries")
            measured = {
                "likeness": benchmark_vectors(
                    _matrix(vectors),
                    _matrix(queries),
                    Space.LIKENESS,
                    exponent=exponent,
                    target=recall_target,
                    progress=progress,
                )
            }
        else:
            store = open_store(snapshots)
            snapshot = load_snapshot(store.path(live_id(store)))
            measured = {
                "affinity": benchmark_index(snapshot.affinity, _user_queries(snapshot), progress=progress),
                "likeness": benchmark_index(snapshot.likeness, *_item_queries(snapshot), progress=progress),
            }
    if as_json:
        print_json({space: figures.as_plain() for space, figures in measured.items()})
        return
    for space, figures in measured.items():
        _print(space, figures)


def _matrix(path: Path) -> Vectors:
    try:
        return np.ascontiguousarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as .npy: {error}", path=path) from None


def _user_queries(snapshot: Snapshot) -> Vectors:
    """Return affinity queries: users' vectors with the prior's weight, or items' where there are no users."""
    users, items, weight = snapshot.user_vectors, snapshot.item_vectors, snapshot.popularity_weight
    source = users if len(users) else items
    rows = np.random.default_rng(_SEED).permutation(len(source))[: _QUERIES_MAX + TUNING_QUERIES_MAX]
    weights = np.full((len(rows), 1), weight, dtype=np.float32)
    queries = np.hstack([source[rows], weights])
    return queries[_untuned(queries, affinity_queries(users, items, weight, seed=_BUILD_SEED))]


def _item_queries(snapshot: Snapshot) -> tuple[Vectors, Rows]:
    """Return likeness queries, items and baskets of items, and the row of the seed of each."""
    items, histories = snapshot.item_vectors, snapshot.histories
    queries, own_rows = likeness_queries(items, histories, seed=_SEED)
    chosen = _untuned(queries, likeness_queries(items, histories, seed=_BUILD_SEED)[0])
    return queries[chosen], own_rows[chosen]


def _untuned(queries: Vectors, tuned: Vectors) -> Rows:
    """Return where the queries stand that are none of those a graph was ``tuned`` with."""
    known = {query.tobytes() for query in tuned}
    fresh = [place for place, query in enumerate(queries) if query.tobytes() not in known]
    return np.array(fresh if len(fresh) >= _QUERIES_MIN else range(len(queries)), dtype=np.int64)[:_QUERIES_MAX]


def _print(space: str, figures: SearchBenchmark) -> None:
    recipe = figures.recipe
    how = f"{recipe.reduction.value}, m {recipe.m}, ef {recipe.ef_search}" if recipe is not None else "exact search"
    title = f"{space}: {figures.point_count:,} x {figures.dimension}, {how}, {figures.query_count:,} queries, one core"
    print_rows([asdict(row) for row in figures.filters], as_json=False, title=title)
    if figures.direct:
        print_rows([asdict(row) for row in figures.direct], as_json=False, title="beside hnswlib called directly")
