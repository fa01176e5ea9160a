"""What a filter means: MongoDB's own answer, the evaluator's and the columns', document by document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mongod import MongoServer
from pymongo import MongoClient
from pymongo.collection import Collection

from annserve.catalog.columns import Columns
from annserve.catalog.evaluate import matches
from annserve.catalog.mongo_compile import compile_filter
from annserve.domain.filter import (
    And,
    Equals,
    Exists,
    Field,
    FieldType,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    canonical,
)

EXAMPLES = 320
DOCUMENTS = 12
FILTERS = 32
PATHS = ("a", "b", "a.b", "b.a")

# Values from small pools, so that what a filter asks for is there, next to it, or there as something else.
STRINGS = st.one_of(
    st.sampled_from(["", "a", "A", "b", "aa", "é", "e\u0301", "ß", "z", "\uffff", "\U0001f600", "\U0001f601", "a\x00"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, -1.0, 2.0, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 1e300, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
INTEGERS = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, 2**62 + 1, 2**63 - 1, -(2**63)]),
    st.integers(-(2**63), 2**63 - 1),
).map(Int64)
DECIMALS = st.sampled_from(
    ["0", "-0", "1E+999", "0.1", "0.1000000000000000055511151231257827", "0.5", "1", "1.00", "9007199254740993",
     "1E+300", "-1E+999", "1E-999", "Infinity", "-Infinity", "NaN", "4.940656458412465441765687928682214E-324"]
).map(Decimal128)  # fmt: skip
TIMES_MS = st.one_of(
    st.sampled_from([0, 1, -1, 999, 1_000, 1_700_000_000_000, -62_135_596_800_000, 253_402_300_799_999]),
    st.integers(-5, 5),
)
ODD_DATES = st.sampled_from([2**63 - 1, -(2**63), 253_402_300_800_000]).map(DatetimeMS)
OTHERS: st.SearchStrategy[Any] = st.sampled_from(
    [None, {}, [], b"a", Binary(b"a", 5), ObjectId("0" * 24), Regex("a"), Code("a"), Timestamp(0, 1), MinKey(),
     MaxKey(), DBRef("a", "b", a=1, b="a")]
)  # fmt: skip
SCALARS = st.one_of(
    STRINGS, FLOATS, INTEGERS, DECIMALS, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans(),
    TIMES_MS.map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)), ODD_DATES, OTHERS,
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "ab", "0"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=6,
)
DOCUMENT = st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2)

FIELDS = {
    (path, type_): Field(name=f"{type_.value}_{path}".replace(".", "_"), type=type_, path=path)
    for path in PATHS
    for type_ in FieldType
}
WANTED: Mapping[FieldType, st.SearchStrategy[Scalar]] = {
    FieldType.STRING: STRINGS,
    FieldType.NUMBER: st.one_of(FLOATS, st.integers(-2, 3).map(float)),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIME: TIMES_MS,
}


@st.composite
def leaves(draw: st.DrawFn) -> Filter:
    field = FIELDS[draw(st.sampled_from(PATHS)), draw(st.sampled_from(FieldType))]
    wanted = WANTED[field.type]
    kinds = (
        ["equals", "in", "exists"] if field.type is FieldType.BOOLEAN else ["equals", "in", "range", "range", "exists"]
    )
    match draw(st.sampled_from(kinds)):
        case "equals":
            return Equals(field, draw(wanted))
        case "in":
            return In(field, tuple(draw(st.lists(wanted, min_size=1, max_size=4))))
        case "range":
            bounds = draw(st.tuples(st.none() | wanted, wanted).flatmap(st.permutations))
            return Range(field, bounds[0], bounds[1], draw(st.booleans()), draw(st.booleans()))
        case _:
            return Exists(field)


FILTER = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda filters: And(tuple(filters))),
        st.lists(inner, min_size=1, max_size=3).map(lambda filters: Or(tuple(filters))),
    ),
    max_leaves=4,
)


@pytest.fixture
def collection(mongod: MongoServer, database_name: str) -> Iterator[Collection[dict[str, Any]]]:
    options: CodecOptions[dict[str, Any]] = CodecOptions(
        datetime_conversion=DatetimeConversion.DATETIME_AUTO, tz_aware=True
    )
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client[database_name].get_collection("items", codec_options=options)


def test_evaluator_and_columns_pass_the_documents_that_mongodb_passes(
    collection: Collection[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = judgements = passed = 0

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        st.lists(DOCUMENT, min_size=DOCUMENTS, max_size=DOCUMENTS), st.lists(FILTER, min_size=FILTERS, max_size=FILTERS)
    )
    def compare(written: list[dict[str, Any]], filters: list[Filter]) -> None:
        nonlocal cases, judgements, passed
        collection.delete_many({})
        collection.insert_many({"_id": row, **document} for row, document in enumerate(written))
        documents = list(collection.find().sort("_id"))
        columns = Columns.of(FIELDS.values(), documents)
        for filter_ in filters:
            expected = [found["_id"] for found in collection.find(compile_filter(filter_), {"_id": 1}).sort("_id")]
            assert [row for row, document in enumerate(documents) if matches(filter_, document)] == expected
            assert [row for row, document in enumerate(documents) if matches(canonical(filter_), document)] == expected
            assert np.flatnonzero(columns.mask(filter_)).tolist() == expected
            cases += 1
            judgements += len(documents)
            passed += len(expected)

    compare()

    with capsys.disabled():
        print(f"\n{cases} filters, {judgements} judgements of which {passed} passed, no disagreement")  # noqa: T201
    assert cases >= 10_000
    assert judgements / 5 < passed < judgements / 2
