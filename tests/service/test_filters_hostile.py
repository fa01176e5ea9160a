"""Ten thousand hostile filters: each is refused, or asks the database for a few operators around scalar values."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from random import Random

import bson
import pytest
from catalog_schema import SCHEMA, all_of, any_of, contains, equals, exists, in_range, none_of, number, one_of, time
from google.protobuf.message import DecodeError
from mutation import mutated

from annserve.catalog.mongo_compile import compile_filter
from annserve.domain.errors import InvalidArgumentError, NoCatalogError
from annserve.domain.query import Mode
from annserve.service import limits
from annserve.service.convert import is_fault_of_caller, similar_query
from annserve.service.status import status_of
from annserve.v1 import filter_pb2 as messages
from annserve.v1 import recommendation_pb2 as values
from annserve.v1 import recommendation_service_pb2 as service_messages

FILTERS = 10_000
MUTATIONS = 10_000
OPERATORS = re.findall(
    r"\S+",
    """
    $abs $accumulator $add $addFields $addToSet $all $allElementsTrue $and $anyElementTrue $arrayElemAt $arrayToObject
    $avg $bit $bitsAllClear $bitsAllSet $bitsAnyClear $bitsAnySet $box $bucket $center $centerSphere $cmp $comment
    $concat $cond $convert $count $currentDate $currentOp $dateFromString $divide $each $elemMatch $eq $exists $exp
    $expr $facet $filter $function $geoIntersects $geoNear $geoWithin $geometry $getField $graphLookup $group $gt $gte
    $hint $ifNull $in $inc $indexStats $jsonSchema $let $limit $literal $lookup $lt $lte $map $max $maxDistance
    $maxTimeMS $merge $meta $min $mod $mul $natural $ne $near $nearSphere $nin $nor $not $objectToArray $or $orderby
    $out $planCacheStats $polygon $pop $position $project $pull $push $query $rand $redact $reduce $regex $rename
    $replaceRoot $sample $sampleRate $search $set $setOnInsert $size $slice $sort $sortByCount $sum $switch $text
    $type $uniqueDocs $unionWith $unset $unwind $where $options $$ROOT $$NOW $ . .. a.b tags.0 0 _id __proto__
    offer.price offer..price .price price. price.$ *
""",
)
NAMES = [*SCHEMA.fields] * 30 + OPERATORS + ["", "\x00", "price\x00", "가격", "x" * 5_000, '{"$gt": ""}', "price$"]
STRINGS = [
    *OPERATORS[::5], "", "France", "\x00", "x\x00y", "상품", "😀", "\ufeff", "\u202e", "\ud7ff", "'; return true; //",
    '{"$gt": ""}', "/.*/", "x" * 256, "x" * 257, "상" * 85, "상" * 86, "null", "true", "1e999", "ObjectId()",
]  # fmt: skip
NUMBERS = [0.0, -0.0, 1.0, 1.5, -1e308, 1e308, 5e-324, 2.0**53, 2.0**63, math.nan, math.inf, -math.inf]
SECONDS = [0, 1, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 2**63 - 1, -(2**63)]
NANOS = [0, 0, 0, 1, 999_999_999, 1_000_000_000, -1, 2**31 - 1]
LOGICAL = {"$and", "$or", "$nor"}
COMPARISONS = {"$eq", "$gt", "$gte", "$lt", "$lte"}
PATHS = {field.path for field in SCHEMA.fields.values()}


def _value(random: Random, kind: int | None = None) -> messages.FieldValue:
    match random.randrange(40) if kind is None else kind:
        case 0:
            return messages.FieldValue()
        case pick if pick % 4 == 0:
            return messages.FieldValue(string_value=random.choice(STRINGS))
        case pick if pick % 4 == 1:
            return number(random.choice(NUMBERS))
        case pick if pick % 4 == 2:
            return messages.FieldValue(bool_value=random.random() < 0.5)
        case _:
            return time(random.choice(SECONDS), random.choice(NANOS))


def _condition(random: Random) -> messages.Filter:
    name = random.choice(NAMES)
    field = SCHEMA.field(name)
    # Mostly of the declared type, or nothing would get past that.
    kind = None
    if field is not None and random.random() < 0.8:
        kind = 4 + ["string", "number", "boolean", "time"].index(field.type.value)
    match random.randrange(12):
        case 0:
            return exists(name, random.random() < 0.5)
        case 1 | 2 | 3:
            test = contains if (field is not None and field.many) == (random.random() < 0.9) else equals
            return test(name, _value(random, kind))
        case 4 | 5 | 6:
            count = random.choice([0, 1, 2, 3, 5, 5, 5, 5, 200, 201])
            return one_of(name, *(_value(random, kind) for _ in range(count)))
        case 7:
            return messages.Filter(condition=messages.FieldCondition(field=name))
        case _:
            sides = [random.choice([None, "minimum", "above"]), random.choice([None, "maximum", "below"])]
            return in_range(name, **{side: _value(random, kind) for side in sides if side is not None})


def _tree(random: Random, depth: int) -> messages.Filter:
    if depth <= 1 or random.random() < 0.3:
        return messages.Filter() if random.random() < 0.02 else _condition(random)
    join: Callable[..., messages.Filter] = random.choice([all_of, any_of, none_of])
    # Wide or deep: what is both takes hours to build.
    if random.random() < 0.05:
        return join(*(_condition(random) for _ in range(random.choice([0, 3, 20, 63, 64, 200]))))
    return join(*(_tree(random, depth - 1) for _ in range(random.choice([1, 1, 1, 2]))))


def _request(filter_: messages.Filter) -> service_messages.SimilarRequest:
    return service_messages.SimilarRequest(item_ids=["a"], options=values.RecommendOptions(filter=filter_))


def _assert_safe(document: object, depth: int = 0) -> None:
    """Check that ``document`` is made of the allowed operators, declared paths and scalar values."""
    # `none_of` becomes two levels.
    assert depth <= 2 * limits.FILTER_DEPTH_MAX
    assert isinstance(document, dict)
    assert len(document) == 1
    ((key, value),) = document.items()
    if key in LOGICAL:
        assert isinstance(value, list)
        assert value
        for inner in value:
            _assert_safe(inner, depth + 1)
        return
    assert key in PATHS
    assert isinstance(value, dict)
    assert 1 <= len(value) <= 2
    for operator, operand in value.items():
        if operator == "$exists":
            assert operand is True
        elif operator == "$in":
            assert isinstance(operand, list)
            assert 1 <= len(operand) <= 200
            assert all(map(_is_scalar, operand))
        else:
            assert operator in COMPARISONS
            assert _is_scalar(operand)


def _is_scalar(value: object) -> bool:
    match value:
        case str() | bool():
            return True
        case float():
            return math.isfinite(value)
        case datetime():
            return value.tzinfo is not None and value.microsecond % 1_000 == 0
    return False


def _outcome(request: service_messages.SimilarRequest) -> str:
    """Return what became of ``request``; any other error than those of the contract goes up."""
    try:
        filter_ = similar_query(request, SCHEMA).options.filter
    except InvalidArgumentError as error:
        return _refused(error)
    if filter_ is None:
        return "without a filter"
    document = compile_filter(filter_)
    _assert_safe(document)
    bson.encode(document)
    return "compiled"


def _refused(error: InvalidArgumentError) -> str:
    assert is_fault_of_caller(error, Mode.SIMILAR)
    assert status_of(error, "id").ByteSize() <= 4_096
    return "refused"


def test_ten_thousand_hostile_filters_are_refused_or_compiled_to_what_is_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = Random(20)
    outcomes: Counter[str] = Counter()

    for _ in range(FILTERS):
        request = _request(_tree(random, random.choice([1, 2, 3, 4, 7, 8, 9, 12])))
        outcomes[_outcome(request)] += 1
        with pytest.raises(NoCatalogError):
            similar_query(request, None)

    assert outcomes.total() == FILTERS
    # Were nearly all refused at the first look, little would be shown.
    assert min(outcomes["refused"], outcomes["compiled"]) >= FILTERS / 10
    with capsys.disabled():
        sys.stdout.write(f"\n{FILTERS:,} hostile filters: {dict(outcomes)}\n")


def _damaged(data: bytes, random: Random) -> bytes:
    """Return ``data`` with one byte changed, which often leaves a message, or with more done to it."""
    if random.random() < 0.2:
        return mutated(data, random)
    array = bytearray(data)
    array[random.randrange(len(array))] = random.randrange(256)
    return bytes(array)


def test_ten_thousand_damaged_filters_are_refused_or_compiled_to_what_is_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = Random(21)
    outcomes: Counter[str] = Counter()

    for _ in range(MUTATIONS):
        data = _damaged(_request(_tree(random, random.choice([1, 2, 3]))).SerializeToString(), random)
        try:
            request = service_messages.SimilarRequest.FromString(data)
        except DecodeError:
            outcomes["no message"] += 1
            continue
        outcomes[_outcome(request)] += 1

    assert outcomes.total() == MUTATIONS
    assert min(outcomes["no message"], outcomes["refused"], outcomes["compiled"]) >= MUTATIONS / 50
    with capsys.disabled():
        sys.stdout.write(f"\n{MUTATIONS:,} damaged filters: {dict(outcomes)}\n")


def test_filter_nested_deeper_than_a_message_may_be_is_no_message() -> None:
    data = exists("price").SerializeToString()
    for _ in range(2_000):
        inner = b"\x0a" + _length(len(data)) + data
        data = b"\x12" + _length(len(inner)) + inner

    with pytest.raises(DecodeError):
        messages.Filter.FromString(data)


def _length(count: int) -> bytes:
    encoded = bytearray()
    while count > 127:
        encoded.append(count & 127 | 128)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)
