"""Documents out of files, and what of them cannot be used."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annserve.catalog.documents import inferred_schema, look_at, read_documents, write_documents
from annserve.domain.catalog import Document, Schema
from annserve.domain.errors import InputError, TooManyBadRowsError
from annserve.domain.filter import Field, FieldType

SCHEMA = Schema(
    Field(name=name, type=type_, path=path)
    for name, type_, path in [
        ("price", FieldType.NUMBER, "price"),
        ("stocked", FieldType.BOOLEAN, "stocked"),
        ("released", FieldType.TIME, "released"),
        ("added", FieldType.TIME, "shop.added"),
    ]
)
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


def read(path: Path, **options: Any) -> dict[str, Any]:
    return dict(read_documents(path, SCHEMA, **options))


def test_parquet_nulls_are_missing_and_types_are_those_mongodb_has(tmp_path: Path) -> None:
    table = pa.table(
        {
            "item_id": pa.array([1, 2]),
            "price": pa.array([Decimal("4.99"), None]),
            "released": pa.array([1_704_067_200_000_000_999, None], pa.timestamp("ns")),
            "day": pa.array([date(2024, 1, 1), None]),
            "shop": pa.array([{"city": "Wien", "floor": None}, None]),
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")

    assert read(tmp_path / "items.parquet") == {
        "1": {"price": 4.99, "released": NEW_YEAR, "day": NEW_YEAR, "shop": {"city": "Wien"}},
        "2": {},
    }


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_cells_of_a_text_table_become_what_their_field_is_declared_as(
    tmp_path: Path, suffix: str, delimiter: str
) -> None:
    rows = [
        ("item_id", "price", "stocked", "released", "name"),
        ("7", "9007199254740993", "true", "2024-01-01", "5"),
        ("8", "1.5", "0", "2024-01-01T01:00:00+01:00", ""),
        ("9", "cheap", "", "", ""),
    ]
    path = tmp_path / f"items.{suffix}"
    path.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8-sig")

    assert read(path) == {
        "7": {"price": 2**53 + 1, "stocked": True, "released": NEW_YEAR, "name": "5"},
        "8": {"price": 1.5, "stocked": False, "released": NEW_YEAR},
        "9": {"price": "cheap"},
    }


def test_json_times_are_read_where_declared_or_marked(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"item_id": "a", "released": "2024-01-01", "name": "2024-01-01", "none": null}\n'
        '\n{"item_id": "b", "other": {"$date": "2024-01-01T00:00:00Z"}, "shop": [{"added": ["2024-01-01", "soon"]}]}\n'
    )

    assert read(path) == {
        "a": {"released": NEW_YEAR, "name": "2024-01-01", "none": None},
        "b": {"other": NEW_YEAR, "shop": [{"added": [NEW_YEAR, "soon"]}]},
    }


def test_written_documents_are_read_back_equal(tmp_path: Path) -> None:
    documents: dict[str, Document] = {
        "a": {"price": 2**53 + 1, "x": [None, {"t": NEW_YEAR}]},
        "\U0001f600": {"stocked": False},
    }
    write_documents(tmp_path / "items.jsonl", documents.items())

    assert read(tmp_path / "items.jsonl") == documents


def test_few_bad_rows_are_left_out_and_many_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "a"}\n[1]\n{"item_id": ""}\n{"item_id": true}\nnonsense\n')

    assert read(path, max_bad_share=0.8) == {"a": {}}
    with pytest.raises(TooManyBadRowsError, match="4 of 5 rows"):
        read(path, max_bad_share=0.79)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.xml", b""),
        ("items.parquet", b"PAR1 and no more"),
        ("items.csv", b"id,price\na,1\n"),
        ("items.csv", b"item_id,price\n\xff,1\n"),
        ("items.csv", b"item_id,price\na," + b"9" * 200_000),
    ],
)
def test_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


def test_parquet_declares_its_fields_itself(tmp_path: Path) -> None:
    table = pa.table(
        {
            "item_id": ["a"],
            "price": [Decimal("1.0")],
            "tags": [["x"]],
            "ok": [True],
            "at": pa.array([NEW_YEAR]),
            "raw": [b"x"],
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")

    found = {
        name: (one.type.value, one.many) for name, one in inferred_schema(tmp_path / "items.parquet").fields.items()
    }

    assert found == {
        "price": ("number", False),
        "tags": ("string", True),
        "ok": ("boolean", False),
        "at": ("time", False),
    }


def test_rows_without_the_column_of_ids_are_told_so_with_what_to_do(tmp_path: Path) -> None:
    lines, table = tmp_path / "items.jsonl", tmp_path / "items.csv"
    lines.write_text('{"sku": "a", "price": 1}\n')
    table.write_text("sku,price\na,1\n")

    for path in (lines, table):
        with pytest.raises(InputError, match=r"item_id.* missing.*--id-column"):
            read(path)
    with pytest.raises(InputError) as named:
        read(table, id_column="ean")
    assert str(named.value).endswith("column 'ean' is missing; it has sku, price")


def test_a_look_at_a_long_file_ends_early_and_that_at_a_short_one_is_whole(tmp_path: Path) -> None:
    short, long = tmp_path / "short.jsonl", tmp_path / "long.jsonl"
    short.write_text('{"item_id": "a"}\n{"item_id\n')
    long.write_text('{"item_id": "a"}\n' * 10_000 + '{"item_id\n' * 10_000)

    with pytest.raises(TooManyBadRowsError, match="1 of 2 rows"):
        look_at(short, SCHEMA)
    look_at(long, SCHEMA)
