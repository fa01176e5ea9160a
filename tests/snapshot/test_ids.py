"""What an id may be, and the index from ids to rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annserve.domain.ids import MAX_ID_BYTES, id_problem
from annserve.snapshot.ids import IdIndex, encode_ids

ANY_TEXT = st.text(st.characters(), max_size=200)
IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=32)


def index_of(folder: Path, ids: list[str]) -> IdIndex:
    path = folder / "ids.marisa"
    path.write_bytes(encode_ids(ids))
    return IdIndex(path)


@pytest.mark.parametrize(
    "id_", ["a", "상품-1", "a b", "日本語", "🦆", "x" * 128, "가" * 42, "a\u200db", "\u202e", "-1", "."]
)
def test_text_of_any_script_is_an_id(id_: str) -> None:
    assert id_problem(id_) is None


@pytest.mark.parametrize(
    ("id_", "problem"),
    [
        ("", "must not be empty"),
        ("x" * 129, "at most 128 bytes, got 129"),
        ("가" * 43, "at most 128 bytes, got 129"),
        ("a\n", "control character (U+000A at position 1)"),
        ("\0", "control character (U+0000"),
        ("a\x7f", "U+007F"),
        ("\x85", "U+0085"),
        ("가\ud800", "lone surrogate (U+D800 at position 1)"),
        ("\ud800" * 200, "lone surrogate"),
    ],
)
def test_what_is_no_id_is_told_why(id_: str, problem: str) -> None:
    assert problem in str(id_problem(id_))


@given(text=ANY_TEXT)
def test_an_id_is_one_to_128_bytes_of_utf8_without_control_characters(text: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        size_bytes = 0
    is_id = 1 <= size_bytes <= MAX_ID_BYTES and all(character >= " " for character in text)
    is_id = is_id and not any("\x7f" <= character <= "\x9f" for character in text)

    assert (id_problem(text) is None) == is_id


@given(ids=st.sets(IDS, max_size=40), other=ANY_TEXT)
def test_every_id_has_one_row_and_every_row_one_id(
    ids: set[str], other: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    index = index_of(tmp_path_factory.mktemp("ids"), sorted(ids))

    rows, missing = index.rows(ids)
    assert sorted(rows) == list(range(len(ids)))
    assert len(index) == len(ids)
    assert missing == ()
    assert set(index.ids(rows)) == ids
    assert all(index.id(row) == id_ for row, id_ in zip(rows.tolist(), ids, strict=True))
    assert (index.row(other) is not None) == (other in ids)


def test_known_ids_keep_their_order_and_unknown_ones_are_told(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["가", "나", "다"])

    rows, missing = index.rows(["다", "\ud800", "가", "라", "다", "a\0b"])

    assert rows.dtype == np.int64
    assert index.ids(rows) == ["다", "가", "다"]
    assert missing == ("\ud800", "라", "a\0b")


def test_a_row_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["가"])

    for row in (-1, 1):
        with pytest.raises(KeyError):
            index.id(row)


def test_the_file_depends_on_the_set_of_ids_only() -> None:
    assert encode_ids(["나", "가"]) == encode_ids(["가", "나", "가"])


@pytest.mark.parametrize("content", [b"", b"We love Marisa.", b"\0" * 5000])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids.marisa").write_bytes(content)

    with pytest.raises(ValueError, match="not an id index"):
        IdIndex(tmp_path / "ids.marisa")
