"""Requests that ask the same have equal tokens, different ones different tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalog_schema import SCHEMA

from annserve.domain.filter import And, Equals, Not, Range, canonical
from annserve.domain.query import Mode, Options, Query, WeightedItem
from annserve.service.attribution import attribution_token

QUESTION = Query(
    mode=Mode.RELATED,
    item_ids=("a", "b"),
    user_id="u",
    recent_items=(WeightedItem(item_id="r", weight=2.0),),
    user_impact=0.25,
    options=Options(exclude_item_ids=("x", "y"), candidate_item_ids=("c", "d"), popularity_weight=0.0),
)
PRICE, COUNTRY = SCHEMA.fields["price"], SCHEMA.fields["country"]
FILTERED = replace(QUESTION, options=replace(QUESTION.options, filter=Equals(PRICE, 5.0)))


@pytest.mark.parametrize(
    "same",
    [
        replace(QUESTION),
        replace(QUESTION, options=replace(QUESTION.options, explain=True, strict=True, snapshot_id="s1")),
        replace(QUESTION, options=replace(QUESTION.options, read_mask=("price",), max_staleness_seconds=0.0)),
        replace(QUESTION, item_ids=("a", "b", "a")),
        replace(QUESTION, options=replace(QUESTION.options, exclude_item_ids=("y", "x", "y"))),
        replace(QUESTION, options=replace(QUESTION.options, candidate_item_ids=("d", "c"))),
        replace(QUESTION, options=replace(QUESTION.options, popularity_weight=-0.0)),
    ],
)
def test_questions_that_ask_the_same_have_one_token(same: Query) -> None:
    assert attribution_token("s1", same) == attribution_token("s1", QUESTION)


def test_options_of_taste_do_not_change_the_token_of_likeness() -> None:
    similar = Query(mode=Mode.SIMILAR, item_ids=("a",))
    same = replace(similar, options=Options(popularity_weight=2.0, exclude_seen=False))

    assert attribution_token("s1", same) == attribution_token("s1", similar)


def test_order_in_which_a_filter_names_its_parts_does_not_change_the_token() -> None:
    parts = (Equals(PRICE, 5.0), Not(Equals(COUNTRY, "France")))
    one, other = (
        replace(QUESTION, options=Options(filter=canonical(And(ordered)))) for ordered in (parts, parts[::-1])
    )

    assert attribution_token("s1", one) == attribution_token("s1", other)


@pytest.mark.parametrize(
    "other",
    [
        None,
        Equals(PRICE, 6.0),
        Equals(COUNTRY, "5.0"),
        Not(Equals(PRICE, 5.0)),
        Range(PRICE, 5.0, 5.0),
    ],
)
def test_filters_that_differ_have_different_tokens(other: Equals | Not | Range | None) -> None:
    asked = replace(QUESTION, options=replace(QUESTION.options, filter=other))

    assert attribution_token("s1", asked) != attribution_token("s1", FILTERED)


def test_effort_of_the_graph_does_not_change_the_token_of_an_exact_search() -> None:
    exact = replace(QUESTION, options=Options(exact=True))
    same = replace(QUESTION, options=Options(exact=True, ef_search=50))

    assert attribution_token("s1", same) == attribution_token("s1", exact)


def test_token_stays_what_it_is_from_release_to_release() -> None:
    assert attribution_token("s1", QUESTION) == "24159d5443b1fb6b756099de61da62ad"


@pytest.mark.parametrize(
    "other",
    [
        replace(QUESTION, mode=Mode.SIMILAR),
        replace(QUESTION, item_ids=("b", "a")),
        replace(QUESTION, item_ids=("a", "b', 'c")),
        replace(QUESTION, user_id=None),
        replace(QUESTION, user_id="None"),
        replace(QUESTION, recent_items=()),
        replace(QUESTION, recent_items=(WeightedItem(item_id="r"),)),
        replace(QUESTION, user_impact=0.5),
        replace(QUESTION, options=replace(QUESTION.options, k=11)),
        replace(QUESTION, options=replace(QUESTION.options, exclude_item_ids=())),
        replace(QUESTION, options=replace(QUESTION.options, candidate_item_ids=())),
        replace(QUESTION, options=replace(QUESTION.options, candidate_item_ids=None)),
        replace(QUESTION, options=replace(QUESTION.options, exclude_seen=False)),
        replace(QUESTION, options=replace(QUESTION.options, popularity_weight=None)),
        replace(QUESTION, options=replace(QUESTION.options, ef_search=50)),
        replace(QUESTION, options=replace(QUESTION.options, exact=True)),
    ],
)
def test_questions_that_differ_have_different_tokens(other: Query) -> None:
    assert attribution_token("s1", other) != attribution_token("s1", QUESTION)


def test_another_snapshot_gives_another_token() -> None:
    assert attribution_token("s2", QUESTION) != attribution_token("s1", QUESTION)


def test_token_is_printable_and_short_whatever_was_asked() -> None:
    token = attribution_token("s" * 1_000, replace(QUESTION, item_ids=tuple("상품" * 60 for _ in range(100))))

    assert token.isascii()
    assert token.isprintable()
    assert len(token) <= 64
