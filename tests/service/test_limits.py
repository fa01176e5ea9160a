"""Every limit of the contract is met at its ends, and passed by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from catalog_schema import SCHEMA, any_of, equals, exists, nested, number, one_of, string
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from annserve.domain.errors import InvalidArgumentError, NoCatalogError
from annserve.domain.filter import Equals
from annserve.domain.query import Query
from annserve.service import limits
from annserve.service.convert import batch_queries, personalize_query, recommend_query, related_query, similar_query
from annserve.service.limits import Limit
from annserve.v1 import recommendation_pb2 as values
from annserve.v1 import recommendation_service_pb2 as messages

PROTO = Path(__file__).parents[2] / "proto" / "annserve" / "v1"
Ask = Callable[[Any], Any]


def _with_options(**options: Any) -> Query:
    return similar_query(messages.SimilarRequest(item_ids=["a"], options=values.RecommendOptions(**options)), SCHEMA)


def _ids(count: int) -> list[str]:
    return [f"item-{number}" for number in range(count)]


def _weight(weight: float) -> Query:
    return personalize_query(
        messages.PersonalizeRequest(recent_items=[values.WeightedItem(item_id="a", weight=weight)]), SCHEMA
    )


def _recent(count: int) -> Query:
    items = [values.WeightedItem(item_id=item_id) for item_id in _ids(count)]
    return personalize_query(messages.PersonalizeRequest(user_id="u", recent_items=items), SCHEMA)


def _max_staleness(seconds: float) -> Query:
    consistency = values.ConsistencyOptions()
    consistency.max_staleness.FromNanoseconds(round(seconds * 1e9))
    return _with_options(consistency=consistency)


def _rows(count: int) -> list[Query | InvalidArgumentError | NoCatalogError]:
    row = messages.BatchRecommendRow(similar=messages.SimilarRequest(item_ids=["a"]))
    return list(batch_queries(messages.BatchRecommendRequest(rows=[row] * count), SCHEMA))


def _placed(**fields: Any) -> Query:
    return recommend_query(messages.RecommendRequest(placement="home", **fields), SCHEMA)


class Boundary(NamedTuple):
    limit: Limit
    field: str
    """As an error names it."""
    ask: Ask
    """Asks a question with the field at a value."""
    step: float
    """From one value to the next."""


TABLE = [
    Boundary(limits.PAGE_SIZE, "options.page_size", lambda value: _with_options(page_size=value), 1),
    Boundary(
        limits.POPULARITY_WEIGHT,
        "options.popularity_weight",
        lambda value: _with_options(popularity_weight=value),
        1e-5,
    ),
    Boundary(
        limits.EXCLUDE_ITEM_IDS,
        "options.exclude_item_ids",
        lambda count: _with_options(exclude_item_ids=_ids(count)),
        1,
    ),
    Boundary(
        limits.CANDIDATE_ITEM_IDS,
        "options.candidate_items.item_ids",
        lambda count: _with_options(candidate_items=values.CandidateItems(item_ids=_ids(count))),
        1,
    ),
    Boundary(
        limits.EF_SEARCH,
        "options.search_parameters.ef_search",
        lambda value: _with_options(search_parameters=values.SearchParameters(ef_search=value)),
        1,
    ),
    Boundary(limits.WEIGHT, "recent_items[0].weight", _weight, 0.25),
    Boundary(
        limits.SEED_ITEM_IDS,
        "item_ids",
        lambda count: similar_query(messages.SimilarRequest(item_ids=_ids(count)), SCHEMA),
        1,
    ),
    Boundary(
        limits.CONTEXT_ITEM_IDS,
        "item_ids",
        lambda count: related_query(messages.RelatedRequest(item_ids=_ids(count)), SCHEMA),
        1,
    ),
    Boundary(
        limits.USER_IMPACT,
        "user_impact",
        lambda value: related_query(messages.RelatedRequest(item_ids=["a"], user_impact=value), SCHEMA),
        1e-6,
    ),
    Boundary(limits.RECENT_ITEMS, "recent_items", _recent, 1),
    Boundary(limits.ROWS, "rows", _rows, 1),
    Boundary(
        limits.READ_MASK,
        "options.read_mask",
        lambda count: _with_options(read_mask=FieldMask(paths=["price"] * count)),
        1,
    ),
    Boundary(limits.MAX_STALENESS, "options.consistency.max_staleness", _max_staleness, 1e-3),
    Boundary(
        limits.FILTERS,
        "options.filter.any_of.filters",
        lambda count: _with_options(filter=any_of(*[exists("price")] * count)),
        1,
    ),
    Boundary(
        limits.ONE_OF,
        "options.filter.condition.one_of.values",
        lambda count: _with_options(filter=one_of("country", *[string("x")] * count)),
        1,
    ),
    Boundary(
        limits.STRING_BYTES,
        "options.filter.condition.equals",
        lambda count: _with_options(filter=equals("country", string("x" * count))),
        1,
    ),
    Boundary(limits.SHOWN_ITEM_IDS, "item_ids", lambda count: _placed(item_ids=_ids(count)), 1),
    Boundary(
        limits.CONTEXT,
        "context",
        lambda count: _placed(context={str(place): values.ContextValue(bool_value=True) for place in range(count)}),
        1,
    ),
    Boundary(
        limits.CONTEXT_STRING_BYTES,
        "context['device']",
        lambda count: _placed(context={"device": values.ContextValue(string_value="x" * count)}),
        1,
    ),
    Boundary(
        limits.FORCED_VARIANTS,
        "forced_variants",
        lambda count: _placed(forced_variants={str(place): "b" for place in range(count)}),
        1,
    ),
]
BY_NAME = pytest.mark.parametrize("boundary", TABLE, ids=lambda boundary: boundary.limit.field)
OF_NUMBERS = pytest.mark.parametrize(
    "boundary",
    # A duration is made of integers.
    [entry for entry in TABLE if entry.step < 1 and entry.limit is not limits.MAX_STALENESS],
    ids=lambda boundary: boundary.limit.field,
)


def test_every_limit_is_in_this_table() -> None:
    declared = {value.field for value in vars(limits).values() if isinstance(value, Limit)}

    assert {entry.limit.field for entry in TABLE} == declared


@BY_NAME
def test_both_ends_are_allowed(boundary: Boundary) -> None:
    boundary.ask(boundary.limit.minimum)
    boundary.ask(boundary.limit.maximum)


@BY_NAME
def test_one_past_an_end_is_refused_with_field_bound_and_value(boundary: Boundary) -> None:
    limit = boundary.limit
    beyond = [(limit.maximum + boundary.step, f"at most {limit.maximum:,}")]
    if not (limit.counted and limit.minimum == 0):
        beyond.append((limit.minimum - boundary.step, f"at least {limit.minimum:,}"))
    for value, bound in beyond:
        with pytest.raises(InvalidArgumentError) as caught:
            boundary.ask(value)

        (violation,) = caught.value.violations
        assert violation.field == boundary.field
        assert bound in violation.description
        assert "got " in violation.description


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [(limits.USER_IMPACT, 1.0000001, "1.0000001"), (limits.PAGE_SIZE, 2**31 - 1, "2147483647")],
)
def test_value_just_outside_is_told_from_the_bound(limit: Limit, value: float, told: str) -> None:
    assert limit.problem(value) == f"must be at most {limit.maximum}, got {told}"


@OF_NUMBERS
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(boundary: Boundary, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a finite number"):
        boundary.ask(value)


@BY_NAME
def test_proto_states_the_limit(boundary: Boundary) -> None:
    text = " ".join(path.read_text() for path in sorted(PROTO.glob("*.proto")))
    message, field = boundary.limit.field.split(".")
    body = text.split(f"message {message} {{", 1)[1].split("\n}", 1)[0]
    comment = body.split(f" {field} = ", 1)[0].rsplit(";\n", 1)[-1]

    assert f"{boundary.limit.maximum:,}" in comment


def test_page_sizes_of_a_batch_may_add_up_to_the_limit_and_no_further() -> None:
    def batch(*page_sizes: int) -> messages.BatchRecommendRequest:
        return messages.BatchRecommendRequest(
            rows=[
                messages.BatchRecommendRow(
                    similar=messages.SimilarRequest(
                        item_ids=["a"], options=values.RecommendOptions(page_size=page_size)
                    )
                )
                for page_size in page_sizes
            ]
        )

    assert len(list(batch_queries(batch(*[500] * 10), SCHEMA))) == 10
    with pytest.raises(InvalidArgumentError, match="page sizes must add up to at most 5,000, got 5001"):
        batch_queries(batch(*[500] * 10, 1), SCHEMA)
    # Zero means 10, here too.
    with pytest.raises(InvalidArgumentError, match="got 5010"):
        batch_queries(batch(*[500] * 10, 0), SCHEMA)


def test_rows_without_a_page_size_that_is_allowed_spoil_neither_the_sum_nor_the_other_rows() -> None:
    def row(page_size: int) -> messages.BatchRecommendRow:
        options = values.RecommendOptions(page_size=page_size)
        return messages.BatchRecommendRow(similar=messages.SimilarRequest(item_ids=["a"], options=options))

    rows = [*[row(500)] * 10, row(501), row(-1), messages.BatchRecommendRow()]

    *valid, too_large, negative, unset = batch_queries(messages.BatchRecommendRequest(rows=rows), SCHEMA)

    assert all(isinstance(query, Query) for query in valid)
    assert [str(error) for error in (too_large, negative, unset)] == [
        "options.page_size: must be at most 500, got 501",
        "options.page_size: must be at least 0, got -1",
        "request: one of similar, personalize, related, recommend must be set",
    ]


def test_row_of_a_batch_is_read_when_its_turn_comes() -> None:
    row = messages.BatchRecommendRow(similar=messages.SimilarRequest(item_ids=["a"]))
    request = messages.BatchRecommendRequest(rows=[row, row])
    queries = batch_queries(request, SCHEMA)

    next(queries)
    request.rows[1].similar.item_ids[0] = "later"

    second = next(queries)
    assert isinstance(second, Query)
    assert second.item_ids == ("later",)


def test_no_more_than_ten_violations_are_listed() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        similar_query(messages.SimilarRequest(item_ids=[""] * 50), SCHEMA)

    assert [violation.field for violation in caught.value.violations] == [f"item_ids[{n}]" for n in range(10)]


def test_zero_or_unset_means_the_default_where_the_contract_says_so() -> None:
    unset = similar_query(messages.SimilarRequest(item_ids=["a"]), SCHEMA)
    zero = _with_options(page_size=0, search_parameters=values.SearchParameters(ef_search=0))

    assert unset == zero
    assert unset.options.k == 10
    assert unset.options.ef_search is None
    assert unset.options.candidate_item_ids is None
    assert unset.options.exclude_seen is True
    assert unset.options.snapshot_id is None
    assert unset.options.filter is None
    assert unset.options.read_mask == ()
    assert unset.options.max_staleness_seconds is None
    assert related_query(messages.RelatedRequest(item_ids=["a"]), SCHEMA).user_impact == 0.5
    assert _weight(0).recent_items[0].weight == 1.0


def test_zero_means_zero_where_unset_means_something_else() -> None:
    options = _with_options(popularity_weight=0, exclude_seen=False, candidate_items=values.CandidateItems()).options
    asked_itself = _with_options(consistency=values.ConsistencyOptions(max_staleness=Duration())).options

    assert options.popularity_weight == 0.0
    assert asked_itself.max_staleness_seconds == 0.0
    assert options.exclude_seen is False
    assert options.candidate_item_ids == ()
    assert related_query(messages.RelatedRequest(item_ids=["a"], user_impact=0), SCHEMA).user_impact == 0.0


def test_every_option_reaches_the_query() -> None:
    options = _with_options(
        page_size=7,
        exclude_item_ids=["x"],
        candidate_items=values.CandidateItems(item_ids=["y"]),
        exclude_seen=False,
        popularity_weight=-2,
        search_parameters=values.SearchParameters(ef_search=99, exact=True),
        consistency=values.ConsistencyOptions(snapshot_id="s", max_staleness=Duration(seconds=2, nanos=500_000_000)),
        filter=equals("price", number(5)),
        read_mask=FieldMask(paths=["tags", "price", "tags"]),
        strict=True,
        explain=True,
    ).options

    assert (options.k, options.exclude_item_ids, options.candidate_item_ids) == (7, ("x",), ("y",))
    assert (options.exclude_seen, options.popularity_weight) == (False, -2.0)
    assert (options.ef_search, options.exact, options.snapshot_id) == (99, True, "s")
    assert (options.strict, options.explain) == (True, True)
    assert options.filter == Equals(SCHEMA.fields["price"], 5.0)
    assert options.read_mask == ("tags", "price")
    assert options.max_staleness_seconds == 2.5


def test_personalize_needs_a_user_or_recent_items() -> None:
    with pytest.raises(InvalidArgumentError, match="user_id: is required unless recent_items are given"):
        personalize_query(messages.PersonalizeRequest(), SCHEMA)
    assert personalize_query(messages.PersonalizeRequest(user_id="사용자"), SCHEMA).user_id == "사용자"


def test_conditions_may_be_nested_to_the_limit_and_no_further() -> None:
    assert _with_options(filter=nested(limits.FILTER_DEPTH_MAX)).options.filter is not None
    with pytest.raises(InvalidArgumentError, match=r"none_of\.filters\[0\]: must be nested at most 8 deep"):
        _with_options(filter=nested(limits.FILTER_DEPTH_MAX + 1))


def test_filter_may_have_nodes_to_the_limit_and_no_more() -> None:
    def tree(leaf_count: int) -> Query:
        inner = any_of(*[exists("price")] * (leaf_count - 31))
        return _with_options(filter=any_of(inner, *[exists("tags")] * 31))

    assert tree(limits.FILTER_NODES_MAX - 2).options.filter is not None
    with pytest.raises(InvalidArgumentError, match=r"^options\.filter: must have at most 64 nodes$"):
        tree(limits.FILTER_NODES_MAX - 1)


def test_filter_may_name_values_to_the_limit_and_no_more() -> None:
    def listing(count: int) -> Query:
        lists = [one_of("sizes", *[number(value) for value in range(200)])] * (count // 200)
        return _with_options(filter=any_of(*lists, *[equals("price", number(1))] * (count % 200)))

    assert listing(limits.FILTER_VALUES_MAX).options.filter is not None
    with pytest.raises(InvalidArgumentError, match=r"^options\.filter: must have at most 1,000 values in all$"):
        listing(limits.FILTER_VALUES_MAX + 1)


def test_string_is_measured_in_bytes() -> None:
    _with_options(filter=equals("country", string("상" * 85)))
    with pytest.raises(InvalidArgumentError, match="must have at most 256 bytes, got 258"):
        _with_options(filter=equals("country", string("상" * 86)))


def test_request_at_every_limit_at_once_fits_into_what_the_server_takes() -> None:
    id_ = "x" * 128
    listed = [one_of("tags", *[string("x" * 256)] * 200)] * 5
    request = messages.RelatedRequest(
        item_ids=[id_] * 100,
        user_id=id_,
        recent_items=[values.WeightedItem(item_id=id_, weight=1.5)] * 200,
        options=values.RecommendOptions(
            exclude_item_ids=[id_] * 1_000,
            candidate_items=values.CandidateItems(item_ids=[id_] * 1_000),
            filter=any_of(*listed, *[exists("price")] * 58),
            read_mask=FieldMask(paths=["price"] * 32),
        ),
    )

    related_query(request, SCHEMA)

    assert 0.8 * limits.REQUEST_BYTES_MAX < request.ByteSize() <= limits.REQUEST_BYTES_MAX
