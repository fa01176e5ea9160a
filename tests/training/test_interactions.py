"""Reading interactions: every format gives the same, bad rows are counted and shown, bad files say what is wrong."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from annserve.domain.errors import InputError, TooManyBadRowsError
from annserve.training import readers
from annserve.training.columns import TimeUnit, value_shown
from annserve.training.interactions import Columns, Interactions, read_interactions
from annserve.training.readers import Format

COLUMNS = Columns(user="user", item="item", weight="weight", time="time")
Row = tuple[str, str, float, str]
ROWS: list[Row] = [
    ("고객-1", "나는 혼자만 레벨업", 1.0, "2024-01-01T00:00:00"),
    ("고객-2", 'say "hi", twice', 2.5, "2024-01-01T00:00:01"),
    ("고객-1", "🎈", 0.5, "2024-01-02T03:04:05"),
    ("고객-1", "나는 혼자만 레벨업", 3.0, "2024-02-01T00:00:00"),
]


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(pa.table(dict(zip(("user", "item", "weight", "time"), zip(*rows, strict=True), strict=True))), path)


def write_csv(path: Path, rows: Sequence[Row], delimiter: str = ",") -> None:
    lines = [["time", "item", "extra", "user", "weight"]]
    lines += [[time, '"' + item.replace('"', '""') + '"', "x", user, str(weight)] for user, item, weight, time in rows]
    path.write_text("\n".join(map(delimiter.join, lines)) + "\n")


def write_tsv(path: Path, rows: Sequence[Row]) -> None:
    write_csv(path, rows, "\t")


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    objects = [{"user": user, "item": item, "weight": weight, "time": time} for user, item, weight, time in rows]
    path.write_text("\n".join(json.dumps(fields, ensure_ascii=index % 2 == 0) for index, fields in enumerate(objects)))


WRITERS: dict[str, Callable[[Path, Sequence[Row]], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
}
FORMATS = pytest.mark.parametrize("suffix", WRITERS)


def rows_of(interactions: Interactions) -> list[tuple[str, str, float, int]]:
    times = interactions.times if interactions.times is not None else np.zeros(len(interactions), np.int64)
    return [
        (interactions.user_ids[user], interactions.item_ids[item], weight, time)
        for user, item, weight, time in zip(
            interactions.users, interactions.items, interactions.weights.tolist(), times.tolist(), strict=True
        )
    ]


def milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def text_file(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@FORMATS
def test_every_format_gives_the_same_rows_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path, ROWS)

    read = read_interactions(path, columns=COLUMNS)

    assert rows_of(read) == [(user, item, weight, milliseconds(time)) for user, item, weight, time in ROWS]
    assert [array.dtype.name for array in (read.users, read.items, read.weights)] == ["int32", "int32", "float32"]
    assert sorted(read.user_ids) == ["고객-1", "고객-2"]
    assert (read.report.row_count, read.report.bad_count) == (4, 0)


@pytest.mark.parametrize(("kind", "suffix"), [("real", ""), ("integer", ""), ("pattern", ""), ("real", ".gz")])
def test_matrix_market_rows_are_users_and_columns_items(tmp_path: Path, kind: str, suffix: str) -> None:
    values = ["", ""] if kind == "pattern" else [" 2", " 3"]
    body = (
        f"%%MatrixMarket matrix coordinate {kind} general\n% a comment\n\n3 4 2\n 1   4{values[0]}\n3\t2{values[1]}\n"
    )
    path = tmp_path / f"a.mtx{suffix}"
    path.write_bytes(gzip.compress(body.encode()) if suffix else body.encode())

    read = read_interactions(path)

    weights = (1.0, 1.0) if kind == "pattern" else (2.0, 3.0)
    assert rows_of(read) == [("1", "4", weights[0], 0), ("3", "2", weights[1], 0)]
    assert read.times is None


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstandard.ZstdCompressor().compress)]
)
@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl"])
def test_text_may_be_compressed(tmp_path: Path, format_: str, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    plain, path = tmp_path / f"a.{format_}", tmp_path / f"a.{format_}.{suffix}"
    WRITERS[format_](plain, ROWS)
    path.write_bytes(compress(plain.read_bytes()))

    assert rows_of(read_interactions(path, columns=COLUMNS)) == rows_of(read_interactions(plain, columns=COLUMNS))


def test_several_files_and_folders_of_any_format_are_read_together(tmp_path: Path) -> None:
    folder = tmp_path / "parts" / "day=1"
    folder.mkdir(parents=True)
    write_parquet(folder / "part-2.parquet", ROWS[2:3])
    write_csv(folder / "part-1.csv", ROWS[1:2])
    (tmp_path / "parts" / "_SUCCESS").touch()
    (tmp_path / "parts" / ".hidden.csv").write_text("nothing")
    (tmp_path / "parts" / "notes.md").write_text("nothing")
    write_jsonl(tmp_path / "first.jsonl", ROWS[:1])

    read = read_interactions([tmp_path / "first.jsonl", tmp_path / "parts"], columns=COLUMNS)

    assert [row[:3] for row in rows_of(read)] == [row[:3] for row in ROWS[:3]]


def test_a_named_format_is_taken_whatever_the_suffix(tmp_path: Path) -> None:
    write_csv(tmp_path / "events.log", ROWS)

    assert len(read_interactions(tmp_path / "events.log", columns=COLUMNS, format_=Format.CSV)) == 4
    assert len(read_interactions(tmp_path, columns=COLUMNS, format_=Format.CSV)) == 4


def test_rows_are_the_same_however_they_are_cut_into_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    rows = [(f"u{user}", f"i{item}", 1.0, "2024-01-01") for user, item in random.integers(0, 9, (100, 2))]
    rows[50] = ("", "i1", 1.0, "2024-01-01")
    for suffix, write in WRITERS.items():
        path = tmp_path / f"a.{suffix}"
        write(path, rows)
        whole = read_interactions(path, columns=COLUMNS)
        with monkeypatch.context() as patch:
            patch.setattr(readers, "_PARQUET_CHUNK_ROWS", 7)
            patch.setattr(readers, "_TEXT_CHUNK_ROWS", 7)
            cut = read_interactions(path, columns=COLUMNS)

        assert rows_of(cut) == rows_of(whole)
        assert cut.report == whole.report
        assert cut.report.examples[0].row == 51


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_ids_may_be_any_kind_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"user_id": pa.array(["가", "나", "가"]).cast(kind), "item_id": ["x", "y", "y"]})
    pq.write_table(table, tmp_path / "a.parquet")

    read = read_interactions(tmp_path / "a.parquet")

    assert [row[0] for row in rows_of(read)] == ["가", "나", "가"]


@pytest.mark.parametrize(
    "users",
    [pa.array([7, 12, 7], pa.int32()), pa.array([7, 12, 7], pa.uint64()), pa.array([7, 12, 7]).dictionary_encode()],
)
def test_whole_numbers_are_ids_as_they_are_written(tmp_path: Path, users: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": users, "item_id": [1, 1, 2]}), tmp_path / "a.parquet")
    text_file(tmp_path, '{"user_id": 12345678901234567890, "item_id": "007"}', "a.jsonl")

    assert read_interactions(tmp_path / "a.parquet").user_ids == ["7", "12"]
    assert rows_of(read_interactions(tmp_path / "a.jsonl")) == [("12345678901234567890", "007", 1.0, 0)]


@pytest.mark.parametrize("column", [pa.array([1.0, 2.0]), pa.array([True, False]), pa.array([[1], [2]])])
def test_ids_that_are_neither_text_nor_whole_numbers_are_refused(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": column, "item_id": ["a", "b"]}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=r"a\.parquet: column 'user_id': must hold text or whole numbers, not "):
        read_interactions(tmp_path / "a.parquet")


@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30), min_size=1, max_size=20
    )
)
def test_ids_of_any_script_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("ids")
    for suffix, write in WRITERS.items():
        path = folder / f"a.{suffix}"
        write(path, [("u", id_, 1.0, "2024-01-01") for id_ in ids])

        assert [row[1] for row in rows_of(read_interactions(path, columns=COLUMNS))] == ids


BAD_ROWS: list[tuple[tuple[Any, Any, Any, Any], str]] = [
    ((None, "a", 1.0, "2024-01-01"), "no user id"),
    (("u", None, 1.0, "2024-01-01"), "no item id"),
    (("", "a", 1.0, "2024-01-01"), "invalid user id"),
    (("u" * 129, "a", 1.0, "2024-01-01"), "invalid user id"),
    (("u", "가" * 43, 1.0, "2024-01-01"), "invalid item id"),
    (("u", "a\x07", 1.0, "2024-01-01"), "invalid item id"),
    (("u", "a", 0.0, "2024-01-01"), "weight not above 0"),
    (("u", "a", -1.0, "2024-01-01"), "weight not above 0"),
    (("u", "a", float("nan"), "2024-01-01"), "weight not above 0"),
    (("u", "a", float("inf"), "2024-01-01"), "weight not above 0"),
    (("u", "a", 1e39, "2024-01-01"), "weight not above 0"),
    (("u", "a", 1e-60, "2024-01-01"), "weight not above 0"),
    (("u", "a", None, "2024-01-01"), "weight not above 0"),
    (("u", "a", 1.0, None), "time not understood"),
    (("u", "a", 1.0, "yesterday"), "time not understood"),
    (("u", "a", 1.0, "2024-02-30"), "time not understood"),
    (("u", "a", 1.0, "1704067200"), "time not understood"),
]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
def test_a_bad_row_is_left_out_and_counted_with_its_reason(tmp_path: Path, suffix: str, bad: Any, reason: str) -> None:
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path, [ROWS[0], bad, *ROWS[1:]])

    read = read_interactions(path, columns=COLUMNS, max_bad_share=0.2)

    assert [row[:3] for row in rows_of(read)] == [row[:3] for row in ROWS]
    assert "u" not in read.user_ids
    assert "a" not in read.item_ids
    assert read.report.bad_counts == {reason: 1}
    assert (read.report.examples[0].row, read.report.examples[0].path) == (2, path)


def test_a_row_with_several_faults_counts_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*ROWS, ("", "", -1.0, "never")])

    report = read_interactions(tmp_path / "a.jsonl", columns=COLUMNS, max_bad_share=0.2).report

    assert report.bad_counts == {"invalid user id": 1}
    assert report.row_count == 5


def test_rows_of_text_that_cannot_be_split_are_left_out_and_counted(tmp_path: Path) -> None:
    csv_path = text_file(tmp_path, "user_id,item_id\na,b\n\nc\nd,e,f\ng,h\n")
    jsonl_path = text_file(
        tmp_path, '{"user_id":"a","item_id":"b"}\n\n{"user_id":\n[1]\n{"user_id":["a"],"item_id":"b"}\n', "a.jsonl"
    )
    matrix_path = text_file(
        tmp_path,
        "%%MatrixMarket matrix coordinate integer general\n2 2 7\n1 1 1\n1 1\n3 1 1\n0 1 1\n1 x 1\n1 1_0 1\n2 2 1\n",
        "a.mtx",
    )

    csv_read = read_interactions(csv_path, max_bad_share=0.5)
    jsonl_read = read_interactions(jsonl_path, max_bad_share=0.8)
    matrix_read = read_interactions(matrix_path, max_bad_share=0.8)

    assert [row[:2] for row in rows_of(csv_read)] == [("a", "b"), ("g", "h")]
    assert csv_read.report.bad_counts == {"wrong number of fields": 2}
    assert [bad.row for bad in csv_read.report.examples] == [2, 3]
    assert [row[:2] for row in rows_of(jsonl_read)] == [("a", "b")]
    assert jsonl_read.report.bad_counts == {"not a JSON object": 2, "neither text nor a number": 1}
    assert [row[:2] for row in rows_of(matrix_read)] == [("1", "1"), ("2", "2")]
    assert matrix_read.report.bad_counts == {"wrong number of fields": 1, "outside the matrix": 4}


def test_a_quote_that_is_never_closed_costs_its_stretch_and_not_the_file(tmp_path: Path) -> None:
    path = text_file(tmp_path, 'user_id,item_id\na,b\nc,"d\n' + "e,f\n" * 60_000)

    read = read_interactions(path, max_bad_share=0.5)

    assert read.report.bad_counts["broken quoting"] == 1
    assert ("e", "f", 1.0, 0) in rows_of(read)


def test_bytes_that_are_not_utf8_spoil_only_the_id_they_are_in(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"user_id,item_id,note\na,b,\xff\nc,\xe9t\xe9,x\n")
    json_path = text_file(tmp_path, '{"user_id":"a","item_id":"b"}\n{"user_id":"\\ud800","item_id":"b"}', "a.jsonl")
    parquet_path = tmp_path / "a.parquet"
    not_text = pa.array([b"a", b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"user_id": not_text, "item_id": ["b", "b"]}), parquet_path)

    for each, said in (
        (path, "invalid item id: 1 (a.csv row 2: must be UTF-8, got the byte 0xE9 at position 0)"),
        (json_path, "lone surrogate"),
        (parquet_path, "must be UTF-8, got the byte 0xFF at position 0"),
    ):
        read = read_interactions(each, max_bad_share=0.5)
        assert [row[:2] for row in rows_of(read)] == [("a", "b")]
        assert said in read.report.summary()


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_names_or_ids(tmp_path: Path) -> None:
    path = text_file(tmp_path, "\ufeffuser_id,item_id\r\na,b\r\nc,d\r\n")

    assert [row[:2] for row in rows_of(read_interactions(path))] == [("a", "b"), ("c", "d")]


def test_more_bad_rows_than_allowed_are_refused_with_reasons_and_rows(tmp_path: Path) -> None:
    path = text_file(tmp_path, "user_id,item_id\n" + ",x\n" * 5 + "a\n" + "a,b\n" * 94)

    assert len(read_interactions(path, max_bad_share=0.06)) == 94
    with pytest.raises(TooManyBadRowsError) as caught:
        read_interactions(path, max_bad_share=0.059)

    assert "6 of 100 rows (6.00%) cannot be used, more than the 5.90% allowed (--max-bad-share)" in caught.value.message
    assert "invalid user id: 5 (a.csv row 1: must not be empty, a.csv row 2:" in caught.value.message
    assert "wrong number of fields: 1 (a.csv row 6)" in caught.value.message
    assert "row 4" not in caught.value.message


def test_nothing_usable_is_an_error_even_when_every_row_may_be_bad(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no rows to read"):
        read_interactions(text_file(tmp_path, "user_id,item_id\n"))
    with pytest.raises(InputError, match="no usable rows: invalid user id: 1"):
        read_interactions(text_file(tmp_path, "user_id,item_id\n,b\n"), max_bad_share=1.0)


def times_of(folder: Path, column: pa.Array, unit: TimeUnit | None = None) -> list[int]:
    ids = [str(row) for row in range(len(column))]
    pq.write_table(pa.table({"user_id": ids, "item_id": ids, "t": column}), folder / "t.parquet")
    read = read_interactions(folder / "t.parquet", columns=Columns(time="t", time_unit=unit), max_bad_share=0.9)
    assert read.times is not None
    assert read.times.dtype == np.int64
    return [int(time) for time in read.times]


MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
MOMENT_MS = 1_714_979_289_123


@pytest.mark.parametrize(
    "column",
    [
        pa.array([MOMENT], pa.timestamp("ns", "UTC")),
        pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")),
        pa.array([MOMENT.astimezone(timezone(timedelta(hours=9)))], pa.timestamp("ms", "Asia/Seoul")),
        pa.array(["2024-05-06T07:08:09.123"]),
        pa.array(["2024-05-06 07:08:09.123"]),
        pa.array(["2024-05-06T16:08:09.123+09:00"]),
        pa.array(["2024-05-06T07:08:09.123456789Z"]),
    ],
)
def test_timestamps_and_iso_8601_text_are_understood_without_a_unit(tmp_path: Path, column: pa.Array) -> None:
    assert times_of(tmp_path, column) == [MOMENT_MS]


def test_times_with_and_without_offset_or_broken_may_stand_in_one_column(tmp_path: Path) -> None:
    column = pa.array(["2024-05-06T07:08:09.123", "2024-05-06T16:08:09.123+09:00", "tomorrow", "1969-12-31"])

    assert times_of(tmp_path, column) == [MOMENT_MS, MOMENT_MS, -86_400_000]


@pytest.mark.parametrize(
    ("unit", "number"),
    [
        (TimeUnit.SECONDS, MOMENT_MS / 1000),
        (TimeUnit.MILLISECONDS, MOMENT_MS),
        (TimeUnit.MICROSECONDS, MOMENT_MS * 1000),
    ],
)
def test_numbers_count_what_the_unit_says(tmp_path: Path, unit: TimeUnit, number: float) -> None:
    assert times_of(tmp_path, pa.array([number]), unit) == [MOMENT_MS]
    assert times_of(tmp_path, pa.array([str(number)]), unit) == [MOMENT_MS]


def test_days_are_times_at_midnight(tmp_path: Path) -> None:
    assert times_of(tmp_path, pa.array([date(1970, 1, 3)], pa.date32())) == [2 * 86_400_000]


def test_numbers_without_a_unit_are_refused_rather_than_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 't': holds numbers; say with time_unit \(--time-unit\)"):
        times_of(tmp_path, pa.array([1_704_067_200]))


def test_times_outside_the_calendar_are_bad_rows(tmp_path: Path) -> None:
    assert times_of(tmp_path, pa.array([MOMENT_MS, MOMENT_MS * 1000]), TimeUnit.MILLISECONDS) == [MOMENT_MS]
    assert times_of(tmp_path, pa.array(["1", "1e308", "-1e308", "nan"]), TimeUnit.SECONDS) == [1000]
    assert times_of(tmp_path, pa.array([1, 1 << 60], pa.timestamp("us"))) == [0]


ISO = "must be ISO 8601, or a number with time_unit (--time-unit), got "
SECONDS = "must be seconds since 1970, of the years 1 to 9999, got "


@pytest.mark.parametrize(
    ("column", "unit", "said"),
    [
        (pa.array(["yesterday"]), None, ISO + "'yesterday'"),
        (pa.array([str(MOMENT_MS // 1000)]), None, ISO + f"'{MOMENT_MS // 1000}', which may be s"),
        (pa.array(["x" * 50]), None, ISO + f"'{'x' * 40}…'"),
        (pa.array(["2024-01-01"]), TimeUnit.SECONDS, SECONDS + "'2024-01-01'"),
        (pa.array([str(MOMENT_MS)]), TimeUnit.SECONDS, SECONDS + f"'{MOMENT_MS}', which may be ms"),
        (pa.array([MOMENT_MS * 1000]), TimeUnit.SECONDS, SECONDS + f"'{MOMENT_MS * 1000}', which may be us"),
        (pa.array([MOMENT_MS * 1e9]), TimeUnit.SECONDS, SECONDS),
        (pa.array([None], pa.int64()), TimeUnit.SECONDS, SECONDS + "nothing"),
        (pa.array(["x"]).dictionary_encode(), TimeUnit.SECONDS, SECONDS + "'x'"),
        (pa.array([1 << 60], pa.timestamp("us")), None, "must be of the years 1 to 9999, got "),
    ],
)
def test_a_time_that_is_not_understood_is_shown_with_what_it_may_count(
    tmp_path: Path, column: pa.Array, unit: TimeUnit | None, said: str
) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "t": column}), tmp_path / "t.parquet")

    with pytest.raises(TooManyBadRowsError) as caught:
        read_interactions(tmp_path / "t.parquet", columns=Columns(time="t", time_unit=unit))

    assert f"time not understood: 1 (t.parquet row 1: {said}" in caught.value.message


def test_weights_are_shown_and_ids_of_users_are_not(tmp_path: Path) -> None:
    path = text_file(tmp_path, f"user_id,item_id,w\na,b,-1\nc,d,\n{'jane@example.org' * 9},b,1\n")

    with pytest.raises(TooManyBadRowsError) as caught:
        read_interactions(path, columns=Columns(weight="w"))

    expected = "must be a number above 0 that float32 can hold, got"
    assert f"(a.csv row 1: {expected} '-1', a.csv row 2: {expected} '')" in caught.value.message
    assert "jane" not in caught.value.message


def test_a_missing_column_is_named_with_those_present(tmp_path: Path) -> None:
    columns = replace(COLUMNS, item="sku")
    for suffix, write in WRITERS.items():
        path = tmp_path / f"a.{suffix}"
        write(path, ROWS)

        with pytest.raises(InputError, match=r"column 'sku' is missing; it has '") as caught:
            read_interactions(path, columns=columns)
        assert all(repr(name) in caught.value.message for name in ("user", "item", "weight", "time"))


def test_a_column_that_is_spelt_otherwise_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'user_id' is missing \(is it 'User_ID'\?\); it has") as caught:
        read_interactions(text_file(tmp_path, "User_ID,item_id\na,b\n"))

    assert caught.value.metadata["column"] == "user_id"


@pytest.mark.parametrize(
    ("name", "separator", "said"),
    [
        ("a.csv", ";", "the separator must be ',', but seems to be ';': the first line is 'user_id;item_id'; write it"),
        ("a.csv", "\t", "read it as tsv (--format tsv, or that suffix)"),
        ("a.tsv", ",", "read it as csv (--format csv, or that suffix)"),
    ],
)
def test_another_separator_is_told_from_a_missing_column(tmp_path: Path, name: str, separator: str, said: str) -> None:
    path = text_file(tmp_path, f"user_id{separator}item_id\na{separator}b\n", name)

    with pytest.raises(InputError) as caught:
        read_interactions(path)

    assert said in caught.value.message


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'user_id' is there more than once"):
        read_interactions(text_file(tmp_path, "user_id,item_id,user_id\na,b,c\n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "has no columns; it is empty"),
        ("a.jsonl", b"", "has no columns; it is empty"),
        ("a.jsonl", b"user_id,item_id\n", "not of this format"),
        ("a.parquet", b"", "cannot be read as parquet"),
        ("a.parquet", b"PAR1 but not really PAR1", "cannot be read as parquet"),
        ("a.csv.gz", b"user_id,item_id\na,b\n", "cannot be read as csv"),
        ("a.csv.gz", gzip.compress(b"user_id,item_id\n" + b"a,b\n" * 9)[:-12], "cannot be read as csv"),
        ("a.csv", b'"' + b"x" * 200_000, "has no header"),
        ("a.mtx", b"", "must start with '%%MatrixMarket"),
        ("a.mtx", b"%%MatrixMarket matrix array real general\n1 1\n1\n", "must start with '%%MatrixMarket"),
        ("a.mtx", b"%%MatrixMarket matrix coordinate real symmetric\n1 1 1\n1 1 1\n", "must start with"),
        ("a.mtx", b"%%MatrixMarket matrix coordinate real general\n", "no line of three sizes"),
        ("a.mtx", b"%%MatrixMarket matrix coordinate real general\n2 2 3\n1 1 1\n", "says it has 3 entries, but has 1"),
        ("a.xlsx", b"PK", "unknown format"),
    ],
)
def test_a_file_that_is_not_what_it_claims_says_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(InputError) as caught:
        read_interactions(path)

    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        read_interactions(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="no table in this folder"):
        read_interactions(tmp_path)


def test_matrix_market_cannot_give_times(tmp_path: Path) -> None:
    path = text_file(tmp_path, "%%MatrixMarket matrix coordinate pattern general\n1 1 1\n1 1\n", "a.mtx")

    with pytest.raises(InputError, match="Matrix Market has no times"):
        read_interactions(path, columns=Columns(time="t"))


@FORMATS
def test_progress_ends_with_all_bytes_read(tmp_path: Path, suffix: str) -> None:
    for part in ("1", "2"):
        WRITERS[suffix](tmp_path / f"{part}.{suffix}", ROWS)
    calls: list[tuple[str, int, int | None]] = []

    read_interactions(tmp_path, columns=COLUMNS, progress=lambda *call: calls.append(call))

    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert calls == [("reading", total // 2, total), ("reading", total, total)]


def test_time_of_a_zone_that_is_not_known_here_is_shown_as_a_number() -> None:
    assert value_shown(pa.array([2**60], pa.timestamp("ms", tz="Foo/Bar")), 0) == f"'{2**60}'"
