"""Vectors trained elsewhere, taken as they are: NumPy files with ids, or Parquet.

What every model must satisfy whatever its source (valid ids, no duplicates, no zero vectors) is checked once, where a
snapshot is built; here only what reading and conversion to float32 could hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from annserve.domain.arrays import Vectors
from annserve.domain.errors import BadVectorsError, InputError
from annserve.domain.model import FoldInConstants, Model
from annserve.training.columns import id_values, number_values
from annserve.training.fold_in import check_constants
from annserve.training.readers import Chunk, Format, files_of, format_of, read_chunks

_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSource:
    """Where the vectors of one kind are: a Parquet file with ids and lists, or an ``.npy`` matrix and a file of ids."""

    vectors: Path
    ids: Path | None = None
    """Beside ``.npy`` only, in the order of its rows: ``.txt`` with an id a line, or a table with `id_column`."""
    id_column: str = "id"
    vector_column: str = "vector"
    """Parquet only: lists of floats, all of one length."""
    popularity_column: str | None = None
    """Beside the ids, items only: how often each was had lately, at least 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    ids: list[str]
    vectors: Vectors
    popularity: npt.NDArray[np.float32]


def import_vectors(
    items: VectorSource,
    users: VectorSource | None = None,
    *,
    fold_in: FoldInConstants | None = None,
    popularity_weight: float = 0.0,
    likeness_exponent: float = 0.75,
    recent_items_max: int = 100,
) -> Model:
    """Return a model of vectors made elsewhere.

    Args:
        items: Their vectors, of any float type.
        users: None for a model that knows no users.
        fold_in: What was minimised for users (`fold_in.implicit_constants` for `implicit`). None leaves the snapshot
            without `recent_items`.
        popularity_weight: See `Model`; 0 as long as nobody has measured what the prior is worth.
        likeness_exponent: See `Model`, 0.5 to 1; 1 ranks by cosine.
        recent_items_max: See `Model`, at least 1.

    Raises:
        InputError: a file, column, shape, type or option cannot be used.
        BadVectorsError: a vector is not finite as float32; the message names the first few ids.
    """
    if not (0.5 <= likeness_exponent <= 1 and math.isfinite(popularity_weight) and recent_items_max >= 1):
        raise InputError(
            "likeness_exponent must be 0.5 to 1, popularity_weight finite and recent_items_max at least 1, "
            f"got {likeness_exponent}, {popularity_weight} and {recent_items_max}"
        )
    if fold_in is not None:
        check_constants(fold_in)
    item_kind = _read(items)
    dimension = item_kind.vectors.shape[1]
    user_kind = _read(users) if users else None
    if user_kind and user_kind.vectors.shape[1] != dimension:
        raise InputError(
            f"users have {user_kind.vectors.shape[1]} dimensions and items {dimension}; they must share one space"
        )
    return Model(
        item_ids=item_kind.ids,
        item_vectors=item_kind.vectors,
        user_ids=user_kind.ids if user_kind else [],
        user_vectors=user_kind.vectors if user_kind else np.zeros((0, dimension), np.float32),
        popularity=item_kind.popularity,
        popularity_weight=popularity_weight,
        likeness_exponent=likeness_exponent,
        recent_items_max=recent_items_max,
        fold_in=fold_in,
        trainer="imported",
        parameters={
            "items": _described(items),
            "users": _described(users) if users else None,
            "fold_in": asdict(fold_in) if fold_in else None,
        },
    )


def _described(source: VectorSource) -> dict[str, Any]:
    return {name: value.name if isinstance(value, Path) else value for name, value in asdict(source).items()}


def _read(source: VectorSource) -> _Kind:
    for path in filter(None, (source.vectors, source.ids)):
        if files_of(path) != [path]:
            raise InputError(f"{path}: must be a file, not a folder", path=path)
    kind = _read_matrix(source) if source.vectors.suffix.lower() == ".npy" else _read_parquet(source)
    if len(kind.ids) != len(kind.vectors):
        raise InputError(f"{source.vectors} has {len(kind.vectors)} vectors, {source.ids} has {len(kind.ids)} ids")
    if kind.vectors.size == 0:
        raise InputError(f"{source.vectors}: has no vectors", path=source.vectors)
    _check_finite(kind, source.vectors)
    return kind


def _read_matrix(source: VectorSource) -> _Kind:
    if source.ids is None:
        raise InputError(f"{source.vectors}: needs a file of ids, one for each row", path=source.vectors)
    try:
        matrix = np.load(source.vectors, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source.vectors}: cannot be read as npy: {error}", path=source.vectors) from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InputError(
            f"{source.vectors}: must be a matrix (n, d) of floats, got shape {matrix.shape} of {matrix.dtype}",
            path=source.vectors,
        )
    ids, popularity = _ids_and_popularity(source, source.ids)
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(matrix, dtype=np.float32)
    return _Kind(ids=ids, vectors=vectors, popularity=popularity)


def _ids_and_popularity(source: VectorSource, path: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    if path.suffix.lower() == ".txt":
        if source.popularity_column is not None:
            raise InputError(f"{path}: has no column {source.popularity_column!r}; use a table", path=path)
        # Bytes that are not UTF-8 become lone surrogates, which the build refuses, naming the id.
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        ids = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
        return ids, np.zeros(len(ids), np.float32)
    names = [source.id_column, *filter(None, [source.popularity_column])]
    chunks = list(_whole_chunks(path, names))
    ids = [id_ for chunk in chunks for id_ in _ids(chunk, path, source)]
    return ids, np.concatenate([_popularity(chunk, path, source) for chunk in chunks] or [np.zeros(0, np.float32)])


def _read_parquet(source: VectorSource) -> _Kind:
    if source.ids is not None or format_of(source.vectors) is not Format.PARQUET:
        raise InputError(
            f"{source.vectors}: give one Parquet file with ids and vectors, or an .npy file and a file of ids",
            path=source.vectors,
        )
    names = [source.id_column, source.vector_column, *filter(None, [source.popularity_column])]
    ids: list[str] = []
    vectors: list[Vectors] = []
    popularity: list[npt.NDArray[np.float32]] = []
    for chunk in _whole_chunks(source.vectors, names):
        ids += _ids(chunk, source.vectors, source)
        vectors.append(_lists(chunk.columns[1], f"{source.vectors}: column {source.vector_column!r}"))
        popularity.append(_popularity(chunk, source.vectors, source))
    if len({part.shape[1] for part in vectors}) != 1:
        raise InputError(f"{source.vectors}: must hold vectors, all of one length", path=source.vectors)
    return _Kind(ids=ids, vectors=np.concatenate(vectors), popularity=np.concatenate(popularity))


def _whole_chunks(path: Path, names: list[str]) -> Iterator[Chunk]:
    """Yield the chunks of a file of which every row counts."""
    for chunk in read_chunks(path, names):
        for row, reason in chunk.broken:
            raise InputError(f"{path}: row {row}: {reason}", path=path)
        yield chunk


def _ids(chunk: Chunk, path: Path, source: VectorSource) -> Iterator[str]:
    codes, texts = id_values(chunk.columns[0], f"{path}: column {source.id_column!r}")
    if (codes < 0).any():
        raise InputError(f"{path}: row {chunk.rows[codes < 0][0]}: no id", path=path)
    return (texts[code] for code in codes.tolist())


def _popularity(chunk: Chunk, path: Path, source: VectorSource) -> npt.NDArray[np.float32]:
    """Return the prior of the items of a chunk: ``log1p`` of the last column, 0 without one."""
    if source.popularity_column is None:
        return np.zeros(len(chunk.rows), np.float32)
    counts = number_values(chunk.columns[-1], f"{path}: column {source.popularity_column!r}")
    bad = ~(np.isfinite(counts) & (counts >= 0))
    if bad.any():
        raise InputError(f"{path}: row {chunk.rows[bad][0]}: popularity must be finite and at least 0", path=path)
    return np.log1p(counts).astype(np.float32)


def _lists(column: Any, where: str) -> Vectors:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise InputError(f"{where}: must hold lists of floats, not {kind}")
    values, lengths = column.flatten(), pc.list_value_length(column).unique()
    if not pa.types.is_floating(values.type):
        raise InputError(f"{where}: must hold lists of floats, not of {values.type}")
    if column.null_count or values.null_count or len(lengths) != 1:
        raise InputError(f"{where}: must hold vectors, all of one length, without gaps")
    with np.errstate(over="ignore"):
        vectors: Vectors = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return vectors.reshape(len(column), lengths[0].as_py())


def _check_finite(kind: _Kind, path: Path) -> None:
    """Refuse vectors that are not finite, or became so, and those whose squared norm float32 cannot hold."""
    for start in range(0, len(kind.vectors), _BLOCK_ROWS):
        block = kind.vectors[start : start + _BLOCK_ROWS]
        with np.errstate(over="ignore", invalid="ignore"):
            bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", block, block)))
        if len(bad):
            named = ", ".join(repr(kind.ids[start + position]) for position in bad[:3].tolist())
            raise BadVectorsError(
                f"{path}: vectors must be finite, with norms that float32 can hold; see {named}", path=path
            )
