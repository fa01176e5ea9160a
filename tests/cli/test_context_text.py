"""Circumstances as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from annserve.cli.context_text import parse_pairs, parse_value
from annserve.domain.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7.0),
        ("0.4", 0.4),
        ("true", True),
        ("phone", "phone"),
        ('"7"', "7"),
        ("'true'", "true"),
        ("", ""),
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T07:00:00+09:00", datetime(2024, 5, 1, 7, tzinfo=timezone(timedelta(hours=9)))),
    ],
)
def test_a_value_is_the_number_truth_or_time_that_it_looks_like(text: str, value: object) -> None:
    parsed = parse_value(text)

    assert parsed == value
    assert type(parsed) is type(value)


def test_pairs_are_split_at_their_first_equals_sign() -> None:
    assert parse_pairs(["hour=7", "note=a=b", "empty="], "--context") == {"hour": "7", "note": "a=b", "empty": ""}
    with pytest.raises(InputError, match="--context hour: must be NAME=VALUE"):
        parse_pairs(["hour"], "--context")
