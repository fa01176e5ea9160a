"""Imported vectors: every way to give them makes the same model, and what cannot be used is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annserve.domain.errors import BadVectorsError, InputError
from annserve.domain.model import FoldInConstants
from annserve.training.fold_in import implicit_constants
from annserve.training.imported import VectorSource, import_vectors

IDS = ["나 혼자만 레벨업", "b", "🎈"]
VECTORS = np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]], np.float32)
COUNTS = [0, 1, 9]


def npy_source(folder: Path, vectors: npt.NDArray[Any] = VECTORS, ids: str = "\n".join(IDS)) -> VectorSource:
    np.save(folder / "items.npy", vectors)
    (folder / "ids.txt").write_text(ids)
    return VectorSource(vectors=folder / "items.npy", ids=folder / "ids.txt")


def parquet_source(folder: Path, vectors: pa.Array, ids: list[Any] = IDS) -> VectorSource:
    pq.write_table(pa.table({"sku": ids, "embedding": vectors, "sales": COUNTS[: len(ids)]}), folder / "items.parquet")
    return VectorSource(vectors=folder / "items.parquet", id_column="sku", vector_column="embedding")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_of_any_float_type_becomes_float32_rows(tmp_path: Path, dtype: str, order: Any) -> None:
    model = import_vectors(npy_source(tmp_path, VECTORS.astype(dtype, order=order)))

    assert model.item_ids == IDS
    assert model.item_vectors.dtype == np.float32
    assert model.item_vectors.flags.c_contiguous
    assert np.array_equal(model.item_vectors, VECTORS)
    assert model.user_vectors.shape == (0, 2)
    assert (model.trainer, model.fold_in, list(model.popularity)) == ("imported", None, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16()), pa.list_(pa.float32(), 2)]
)
def test_one_parquet_file_may_hold_ids_vectors_and_popularity(tmp_path: Path, kind: pa.DataType) -> None:
    source = parquet_source(tmp_path, pa.array(list(VECTORS.astype(np.float16)), kind))

    model = import_vectors(replace(source, popularity_column="sales"))

    assert model.item_ids == IDS
    assert np.array_equal(model.item_vectors, VECTORS)
    assert np.allclose(model.popularity, np.log1p(COUNTS))
    assert model.popularity.dtype == np.float32


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_ids_beside_a_matrix_may_be_a_table_with_popularity(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ids.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"id": IDS, "sales": COUNTS}), path)
    elif suffix == "csv":
        path.write_text("id,sales\n" + "".join(f"{id_},{count}\n" for id_, count in zip(IDS, COUNTS, strict=True)))
    else:
        path.write_text("".join(json.dumps({"id": i, "sales": c}) + "\n" for i, c in zip(IDS, COUNTS, strict=True)))

    model = import_vectors(replace(npy_source(tmp_path), ids=path, popularity_column="sales"))

    assert model.item_ids == IDS
    assert np.allclose(model.popularity, np.log1p(COUNTS))


@pytest.mark.parametrize("ids", ["a\nb\nc", "a\nb\nc\n", "a\r\nb\r\nc\r\n", "\ufeffa\nb\nc"])
def test_a_text_file_has_one_id_a_line_whatever_ends_it(tmp_path: Path, ids: str) -> None:
    assert import_vectors(npy_source(tmp_path, ids=ids)).item_ids == ["a", "b", "c"]


def test_only_line_feeds_end_an_id(tmp_path: Path) -> None:
    assert import_vectors(npy_source(tmp_path, ids="a\u2028a\nb\x0bb\nc")).item_ids == ["a\u2028a", "b\x0bb", "c"]


def test_a_repeated_id_is_kept_for_the_build_to_refuse(tmp_path: Path) -> None:
    source = parquet_source(tmp_path, pa.array(list(VECTORS)), ["a", "b", "a"])

    assert import_vectors(source).item_ids == ["a", "b", "a"]


def test_users_constants_and_options_reach_the_model(tmp_path: Path) -> None:
    items, folder = npy_source(tmp_path), tmp_path / "users"
    folder.mkdir()
    users = parquet_source(folder, pa.array([[1.0, 1.0]]), ["user"])

    model = import_vectors(
        items,
        users,
        fold_in=implicit_constants(40.0, 0.1),
        popularity_weight=0.2,
        likeness_exponent=0.5,
        recent_items_max=7,
    )

    assert (model.user_ids, model.user_vectors.tolist()) == (["user"], [[1.0, 1.0]])
    assert model.fold_in == FoldInConstants(gram_weight=1.0, item_weight=39.0, target=40.0, regularization=0.1)
    assert (model.popularity_weight, model.likeness_exponent, model.recent_items_max) == (0.2, 0.5, 7)
    assert json.loads(json.dumps(model.parameters)) == model.parameters


def test_users_of_another_dimension_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "users"
    folder.mkdir()

    with pytest.raises(InputError, match="users have 3 dimensions and items 2"):
        import_vectors(npy_source(tmp_path), npy_source(folder, np.ones((3, 3))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39, 1e20])
def test_vectors_that_float32_cannot_hold_are_refused_naming_ids(tmp_path: Path, bad: float) -> None:
    vectors = VECTORS.astype(np.float64)
    vectors[1, 0] = bad

    for source in (npy_source(tmp_path, vectors), parquet_source(tmp_path, pa.array(list(vectors)))):
        with pytest.raises(BadVectorsError, match=r"finite.* see 'b'$"):
            import_vectors(source)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones(3), r"must be a matrix \(n, d\) of floats, got shape \(3,\)"),
        (np.ones((3, 2), np.int64), "must be a matrix .* of int64"),
        (np.array([[object()]]), "cannot be read as npy"),
        (np.ones((2, 2)), "has 2 vectors, .*ids.txt has 3 ids"),
        (np.ones((3, 0)), "has no vectors"),
    ],
)
def test_a_matrix_that_cannot_be_used_is_refused(tmp_path: Path, vectors: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_vectors(npy_source(tmp_path, vectors))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (pa.array([[1.0, 2.0], [1.0], [1.0, 2.0]]), "all of one length"),
        (pa.array([[1.0, 2.0], None, [1.0, 2.0]]), "without gaps"),
        (pa.array([[1.0, 2.0], [None, 1.0], [1.0, 2.0]]), "without gaps"),
        (pa.array([[1, 2], [1, 2], [1, 2]]), "must hold lists of floats, not of int64"),
        (pa.array([1.0, 2.0, 3.0]), "must hold lists of floats, not double"),
        (pa.array([[], [], []], pa.list_(pa.float32())), "has no vectors"),
    ],
)
def test_a_parquet_column_that_cannot_be_used_is_refused(tmp_path: Path, vectors: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_vectors(parquet_source(tmp_path, vectors))


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no vectors"):
        import_vectors(npy_source(tmp_path, np.ones((0, 2)), ids=""))
    with pytest.raises(InputError, match="must hold vectors"):
        import_vectors(parquet_source(tmp_path, pa.array([], pa.list_(pa.float32())), []))


def test_a_missing_id_and_a_popularity_below_zero_are_refused_naming_the_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.parquet: row 2: no id"):
        import_vectors(parquet_source(tmp_path, pa.array(list(VECTORS)), ["a", None, "c"]))
    for count in ("-1", "nan", "many"):
        (tmp_path / "ids.csv").write_text(f"id,sales\na,1\nb,2\nc,{count}\n")
        source = replace(npy_source(tmp_path), ids=tmp_path / "ids.csv", popularity_column="sales")
        with pytest.raises(InputError, match=r"ids\.csv: row 3: popularity"):
            import_vectors(source)
    (tmp_path / "ids.csv").write_text("id,sales\na,1\nb\nc,3\n")
    with pytest.raises(InputError, match=r"ids\.csv: row 2: wrong number of fields"):
        import_vectors(source)


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    npy = npy_source(tmp_path)
    parquet = parquet_source(tmp_path, pa.array(list(VECTORS)))

    with pytest.raises(InputError, match="needs a file of ids"):
        import_vectors(replace(npy, ids=None))
    with pytest.raises(InputError, match="one Parquet file with ids and vectors, or"):
        import_vectors(replace(parquet, ids=npy.ids))
    with pytest.raises(InputError, match="has no column 'sales'; use a table"):
        import_vectors(replace(npy, popularity_column="sales"))
    with pytest.raises(InputError, match="column 'vector' is missing; it has 'sku', 'embedding', 'sales'"):
        import_vectors(replace(parquet, vector_column="vector"))
    with pytest.raises(InputError, match="no such file"):
        import_vectors(replace(npy, ids=tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    "options",
    [
        {"likeness_exponent": 1.5},
        {"likeness_exponent": -0.5},
        {"popularity_weight": float("nan")},
        {"recent_items_max": 0},
        {"fold_in": implicit_constants(40.0, -1.0)},
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        import_vectors(npy_source(tmp_path), **options)
