"""A model written as a snapshot's arrays and id indexes, its rows in the order of its id indexes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from annserve.domain.arrays import Rows
from annserve.domain.errors import BadVectorsError, BuildError, DuplicateIdsError
from annserve.domain.ids import id_problem
from annserve.domain.model import Histories, Model
from annserve.snapshot import layout
from annserve.snapshot.files import ArrayHeader, map_array, write_array
from annserve.snapshot.ids import IdIndex, encode_ids
from annserve.snapshot.manifest import DIMENSION_MAX
from annserve.snapshot.soundness import gram_matrix, history_problem, unsound_popularity, unsound_rows

_CHUNK_ROWS = 1 << 16
_NAMED_MAX = 5
_SHOWN_CHARACTERS = 40


def check_model(model: Model) -> None:
    """Refuse a model that no snapshot may be built of, except for duplicate ids, which `write_contents` finds.

    Raises:
        BuildError: there are no items, an array has the wrong shape, an id is no id, a prior is negative or not
            finite, a history names an item that is not there.
        BadVectorsError: a vector is NaN or infinite, or an item's is zero.
    """
    _check_shapes(model)
    _check_constants(model)
    for mapping in (model.parameters, model.metrics):
        json_value(mapping)
    for kind, ids in (("item", model.item_ids), ("user", model.user_ids)):
        _check_ids(kind, ids)
    bad_items = unsound_rows(model.item_vectors, zero_allowed=False)
    if len(bad_items):
        raise BadVectorsError(_naming("item vectors that are NaN, infinite or zero", model.item_ids, bad_items))
    bad_users = unsound_rows(model.user_vectors, zero_allowed=True)
    if len(bad_users):
        raise BadVectorsError(_naming("user vectors that are NaN or infinite", model.user_ids, bad_users))
    bad_priors = unsound_popularity(model.popularity)
    if len(bad_priors):
        raise BuildError(_naming("popularity that is negative or not finite", model.item_ids, bad_priors))
    if model.histories is not None:
        problem = history_problem(model.histories, user_count=len(model.user_ids), item_count=len(model.item_ids))
        if problem is not None:
            raise BuildError(problem)


def write_contents(model: Model, folder: Path) -> None:
    """Write everything of a checked model but its graphs into ``folder``.

    Matrices are re-ordered as they are written, a chunk at a time: no second copy of one is ever in memory.

    Raises:
        DuplicateIdsError: an id occurs more than once.
        OSError: the disk is full or fails.
    """
    for name in layout.FOLDERS:
        (folder / name).mkdir()
    item_rows = _write_ids("item", model.item_ids, folder / layout.ITEM_IDS)
    item_order = _inverse(item_rows)
    _write_rows(folder / layout.ITEM_VECTORS, model.item_vectors, item_order)
    _write_rows(folder / layout.POPULARITY, model.popularity, item_order)
    gram = gram_matrix(map_array(folder / layout.ITEM_VECTORS))
    write_array(folder / layout.GRAM, ArrayHeader(shape=gram.shape, dtype="<f8"), [gram])

    user_order = _inverse(_write_ids("user", model.user_ids, folder / layout.USER_IDS))
    _write_rows(folder / layout.USER_VECTORS, model.user_vectors, user_order)
    if model.histories is not None:
        _write_histories(folder, model.histories, user_order, item_rows)


def json_value(mapping: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return ``mapping`` as a manifest holds it.

    Raises:
        BuildError: something in it is no JSON value: NaN, say, or a number of numpy's.
    """
    try:
        value: dict[str, JsonValue] = json.loads(json.dumps(mapping, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BuildError(f"parameters and metrics must be JSON values: {error}") from error
    return value


def _check_shapes(model: Model) -> None:
    item_count, user_count = len(model.item_ids), len(model.user_ids)
    if item_count == 0:
        raise BuildError("item_ids must not be empty")
    if model.item_vectors.ndim != 2 or not 1 <= model.item_vectors.shape[1] <= DIMENSION_MAX:
        raise BuildError(
            f"item_vectors must have shape (n, d), d at most {DIMENSION_MAX}, got {model.item_vectors.shape}"
        )
    dimension = model.item_vectors.shape[1]
    for name, array, shape in (
        ("item_vectors", model.item_vectors, (item_count, dimension)),
        ("user_vectors", model.user_vectors, (user_count, dimension)),
        ("popularity", model.popularity, (item_count,)),
    ):
        if array.shape != shape:
            raise BuildError(f"{name} must have shape {shape}, got {array.shape}")


def _check_constants(model: Model) -> None:
    if not math.isfinite(model.popularity_weight):
        raise BuildError(f"popularity_weight must be finite, got {model.popularity_weight}")
    if not 0 <= model.likeness_exponent <= 1:
        raise BuildError(f"likeness_exponent must be 0 to 1, got {model.likeness_exponent}")
    if model.recent_items_max < 0:
        raise BuildError(f"recent_items_max must be at least 0, got {model.recent_items_max}")
    if model.fold_in is not None and not all(map(math.isfinite, astuple(model.fold_in))):
        raise BuildError(f"fold_in must hold finite numbers, got {model.fold_in}")


def _check_ids(kind: str, ids: Sequence[str]) -> None:
    problems = ((id_, id_problem(id_)) for id_ in ids)
    bad = [f"{_shown(id_)} {problem}" for id_, problem in problems if problem is not None]
    if bad:
        raise BuildError(f"{len(bad)} {kind} ids are no ids: {_listed(bad)}")


def _write_ids(kind: str, ids: Sequence[str], path: Path) -> Rows:
    """Write the id index of ``ids`` and return the row it gives to each."""
    with path.open("xb") as file:
        file.write(encode_ids(ids))
    # Asked of the file just written, so that the look-up of every id is proven.
    rows, _ = IdIndex(path).rows(ids)
    unique_rows, counts = np.unique(rows, return_counts=True)
    if len(unique_rows) < len(ids):
        positions = np.flatnonzero(np.isin(rows, unique_rows[counts > 1]))
        names = sorted({ids[position] for position in positions.tolist()})
        raise DuplicateIdsError(f"{len(names)} {kind} ids occur more than once: {_listed(map(_shown, names))}")
    return rows


def _write_rows(path: Path, matrix: npt.NDArray[np.floating], order: Rows) -> None:
    def chunks() -> Iterator[npt.NDArray[np.floating]]:
        for start in range(0, len(order), _CHUNK_ROWS):
            yield matrix[order[start : start + _CHUNK_ROWS]]

    write_array(path, ArrayHeader(shape=matrix.shape, dtype="<f4"), chunks())


def _write_histories(folder: Path, histories: Histories, user_order: Rows, item_rows: Rows) -> None:
    lengths = np.diff(histories.indptr)[user_order]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    write_array(folder / layout.HISTORY_INDPTR, ArrayHeader(shape=indptr.shape, dtype="<i8"), [indptr])

    def chunks() -> Iterator[Rows]:
        for start in range(0, len(user_order), _CHUNK_ROWS):
            users = slice(start, start + _CHUNK_ROWS)
            # Where each history starts in the model, less where it starts in this chunk, for each of its items.
            shifts = histories.indptr[user_order[users]] - (indptr[:-1][users] - indptr[start])
            positions = np.repeat(shifts, lengths[users])
            positions += np.arange(len(positions))
            yield item_rows[histories.item_rows[positions]]

    write_array(folder / layout.HISTORY_ROWS, ArrayHeader(shape=histories.item_rows.shape, dtype="<i4"), chunks())


def _inverse(rows: Rows) -> Rows:
    order = np.empty_like(rows)
    order[rows] = np.arange(len(rows))
    return order


def _naming(what: str, ids: Sequence[str], rows: Rows) -> str:
    return f"{len(rows)} {what}: {_listed(_shown(ids[row]) for row in rows[: _NAMED_MAX + 1].tolist())}"


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, _NAMED_MAX + 1))
    return ", ".join(first[:_NAMED_MAX]) + (", …" if len(first) > _NAMED_MAX else "")


def _shown(id_: str) -> str:
    return ascii(id_)[:_SHOWN_CHARACTERS] if not id_.isprintable() else repr(id_[:_SHOWN_CHARACTERS])
