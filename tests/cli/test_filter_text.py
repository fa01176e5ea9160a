"""What people write after --filter means what it says, and a mistake is pointed at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annserve.cli.filter_text import parse_filter
from annserve.domain.errors import InputError
from annserve_client import Filter, field

price, country, tags, released = field("price"), field("country"), field("tags"), field("released")
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("price < 5", price < 5),
        ("price<=-5.5e1", price <= -55),
        ("price > .5", price > 0.5),
        ("price >= 5.", price >= 5),
        ("price = 5", price == 5),
        ("price == 5", price == 5),
        ("price != 5", price != 5),
        ("5 > price", price < 5),
        ("5 <= price", price >= 5),
        ("3 <= price < 10", price.within(minimum=3, below=10)),
        ("10 >= price > 3", price.within(above=3, maximum=10)),
        ('country in ["France", "Spain"]', country.one_of("France", "Spain")),
        ("country not in ['France']", ~country.one_of("France")),
        ('tags contains "x"', tags.contains("x")),
        ("exists(price)", price.exists()),
        ("not exists ( price )", ~price.exists()),
        ("stocked == true", field("stocked") == True),  # noqa: E712 - builds a filter
        ("stocked == FALSE", field("stocked") == False),  # noqa: E712 - builds a filter
        ("released >= 2024-01-01T00:00:00Z", released >= NEW_YEAR),
        ("released >= 2024-01-01", released >= NEW_YEAR),
        ("released >= 2024-01-01T09:00:00.000+09:00", released >= NEW_YEAR.astimezone(timezone(timedelta(hours=9)))),
        (r'country == "\"\\ \uc0c1 상"', country == '"\\ 상 상'),
        (r"country == 'C:\new'", country == r"C:\new"),
        ('country == "a and (b"', country == "a and (b"),
        ("order == 1", field("order") == 1),
        ("inner == 1 AND nothing == 2", (field("inner") == 1) & (field("nothing") == 2)),
    ],
)
def test_text_means_what_it_says(text: str, meant: Filter) -> None:
    assert parse_filter(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("price < 1 or price > 2 and price < 3", (price < 1) | ((price > 2) & (price < 3))),
        ("(price < 1 or price > 2) and price < 3", ((price < 1) | (price > 2)) & (price < 3)),
        ("not price < 1 and price < 3", ~(price < 1) & (price < 3)),
        ("not (price < 1 and price < 3)", ~((price < 1) & (price < 3))),
        ("not not price < 1", price < 1),
    ],
)
def test_not_binds_closer_than_and_and_and_closer_than_or(text: str, meant: Filter) -> None:
    assert parse_filter(text) == meant


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 1, "expected '(', 'exists', 'not', a field or a value"),
        ("price <", 8, "expected a value"),
        ("price < and", 9, "expected a value, got 'and'"),
        ("(price < 1", 11, "expected ')'"),
        ("price < 1)", 10, "expected the end, got ')'"),
        ("country in []", 13, "expected a value, got ']'"),
        ("country in ['a' 'b']", 17, "expected ',' or ']', got \"'\""),
        ("price < 1 andd", 11, "expected 'and', 'or' or the end, got 'andd'"),
        ("3 < price > 2", 11, "expected '<', 'and', 'or' or the end, got '>'"),
        ("$where == 1", 1, "got '$'"),
        ("offer.price == 1", 6, "got '.'"),
        ("price < 1 && price > 0", 11, "got '&'; write and for &&"),
        ("price < 1 || price > 3", 11, "got '|'; write or for ||"),
        ("!exists(price)", 1, "got '!'; write not for !"),
        ("item.price < 1", 5, "got '.'; write the name of a field without item."),
        ("has(price)", 4, "got '('; write exists(…) for has(…)"),
        ("price == null", 10, "expected a value, got 'null'"),
        ("상품 == 1", 1, "got '상품'"),
        ("released > 2024-13-01", 12, "month must be in 1..12"),
        ("released > 2024-01-01T00:00:00", 12, "add Z for UTC"),
        ("price == 9007199254740993", 10, "the nearest one is 9007199254740992"),
        (r'country == "\x"', 12, "is no value"),
    ],
)
def test_mistake_is_pointed_at_with_what_was_expected(text: str, column: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(text)

    first, shown, pointer = str(caught.value).split("\n")
    assert first.startswith(f"--filter, column {column}: ")
    assert said in first
    assert shown == f"  {text}"
    assert pointer == " " * (column + 1) + "^"


def test_pointer_stands_below_what_follows_wide_letters() -> None:
    with pytest.raises(InputError) as caught:
        parse_filter('country == "상품" or')

    _, _, pointer = str(caught.value).split("\n")
    assert pointer == "  " + " " * len('country == "ssss" or') + "^"


@settings(derandomize=True, database=None, deadline=None)
@given(text=st.text(st.sampled_from("ab1 <>=!()[],\"'andornotinexistscontains2024-01-01T:Z상$.\n\\"), max_size=40))
def test_any_text_is_a_filter_or_a_mistake(text: str) -> None:
    try:
        assert isinstance(parse_filter(text), Filter)
    except InputError as error:
        assert str(error).startswith("--filter, column ")  # noqa: PT017 - either is right
