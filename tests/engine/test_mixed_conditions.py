"""A condition that is taken apart holds exactly for the candidates for which CEL says that the whole of it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.arrays import Rows, Vectors
from annserve.domain.catalog import Schema
from annserve.domain.filter import Field, FieldType
from annserve.domain.query import SearchPath, Source
from annserve.engine.placing.circumstances import Circumstances
from annserve.engine.placing.mixed import MixedConditions
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.ranking import Ranking
from annserve.placements.condition_parts import parts_of
from annserve.placements.expression import CompiledExpression, Returns, compile_expression
from annserve.placements.expression_parser import parse_time
from annserve.placements.parts import Compared, OfEach, OfItems, OfRequest, Part, fields_of, singles_of
from annserve.placements.recipe import ContextField
from annserve.placements.variables import Variables

FIELDS: Mapping[str, Field] = {
    name: Field(name=name, type=type_, many=many, path=name)
    for name, type_, many in (
        ("price", FieldType.NUMBER, False),
        ("stock", FieldType.NUMBER, False),
        ("status", FieldType.STRING, False),
        ("on_sale", FieldType.BOOLEAN, False),
        ("released", FieldType.TIME, False),
        ("tags", FieldType.STRING, True),
    )
}
VARIABLES = Variables(
    Schema(FIELDS.values()),
    {
        "device": ContextField(type="string"),
        "budget": ContextField(type="double"),
        "at": ContextField(type="timestamp"),
        "vip": ContextField(type="bool"),
    },
)
TIMES = [parse_time(text, 0) for text in ("1969-12-31T23:59:59.999Z", "2024-05-01", "2024-05-02")]
SINGLES = st.sampled_from(
    [
        "item.price < 2", "item.price != 1", "item.on_sale", "has(item.status)", '"a" in item.tags',
        "item.stock in [0, 1]",
        "request.hour > 12", 'context.device == "a"', "context.vip", "has(item.price)", "true", "context.budget == 1",
        "item.price <= context.budget", "context.budget < item.stock", "item.price == context.budget",
        "item.status == context.device", "item.status >= context.device", "context.device != item.status",
        "item.released < context.at", "context.at == item.released", "item.on_sale == context.vip",
        "score > 0.5", "0.25 >= score", "score != context.budget", "score < item.price",
        "similarity(context, item) > 0.1", "similarity(user, item) < similarity(context, item)",
        "similarity(user, item) <= context.budget", "item.price < item.stock", "context.device in item.tags",
        "item.price + 1 > context.budget", "size(item.tags) > 1", 'item.status.startsWith("a")',
        "(context.vip ? item.price : item.stock) > 1", "item.on_sale == (context.budget > 1)",
    ]
)  # fmt: skip
CONDITIONS = st.recursive(
    SINGLES,
    lambda inner: st.one_of(
        inner.map("!({})".format),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " && ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " || ".join(parts) + ")"),
        st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts)),
    ),
    max_leaves=6,
)
NUMBERS = st.sampled_from([0, 1, 2, 0.5, -1.5, 2**60, 1e300])
TEXTS = st.sampled_from(["", "a", "ab", "b", "\uffff", "z\U0001f600"])
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "price": NUMBERS,
        "stock": NUMBERS,
        "status": TEXTS,
        "on_sale": st.booleans(),
        "released": st.sampled_from(TIMES),
        "tags": st.lists(TEXTS, max_size=2),
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "request.hour": st.sampled_from([0.0, 13.0]),
        "context.device": TEXTS,
        "context.budget": NUMBERS.map(float),
        "context.at": st.sampled_from(TIMES),
        "context.vip": st.booleans(),
    },
)


class Vectored:
    """Items that have vectors, and nothing else."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors[rows]


class Candidates:
    """A ranking of items with these documents, in a request with these values."""

    def __init__(self, documents: list[dict[str, Any]], request: Mapping[str, object], seed: int) -> None:
        random = np.random.default_rng(seed)
        count = len(documents)
        vectors = random.standard_normal((count, 3)).astype(np.float32)
        user, context = (random.standard_normal(size).astype(np.float32) for size in (4, 3))
        self.metadata = [metadata_of(list(FIELDS.values()), document) for document in documents]
        self.documents = documents
        self.request = request
        self.ranking = Ranking(
            snapshot_id="s",
            items=Vectored(vectors),  # type: ignore[arg-type]
            rows=np.arange(count),
            scores=random.choice([0.0, 0.25, 0.5, 1.0], count).astype(np.float32),
            source=Source.BLEND,
            search_path=SearchPath.EXACT,
            selectivity=None,
            vectors=QueryVectors(
                seed_rows=np.empty(0, np.int64),
                likeness=context if random.random() < 0.7 else None,
                affinity=user if random.random() < 0.7 else None,
                affinity_source=Source.USER_VECTOR,
                user_row=None,
                recent_rows=np.empty(0, np.int64),
                missing_ids=(),
            ),
            eligibility=None,  # type: ignore[arg-type]
            user_impact=None,
            stage_us=(),
        )

    def held_by_parts(self, part: Part) -> list[bool]:
        passing = {
            single.filter: np.array([matches(single.filter, document) for document in self.documents], np.bool_)
            for single in singles_of(part)
            if isinstance(single, OfItems)
        }
        fields = {field.name: [one.get(field.name, ()) for one in self.metadata] for field in fields_of(part)}
        conditions = MixedConditions(self.ranking, Circumstances(values=self.request), passing, fields)
        held: list[bool] = conditions.flags(part).tolist()
        return held

    def held_by_cel(self, condition: CompiledExpression) -> list[bool]:
        vectors, items = self.ranking.vectors, self.ranking.items
        matrix = items.vectors(self.ranking.rows)
        held = []
        for number, metadata in enumerate(self.metadata):
            known = dict(self.request) | {f"item.{name}": values for name, values in metadata.items()}
            known["score"] = float(self.ranking.scores[number])
            user = None if vectors.affinity is None else vectors.affinity[:-1]
            for name, vector in (("user", user), ("context", vectors.likeness)):
                if vector is not None:
                    lengths = np.linalg.norm(matrix[number]) * np.linalg.norm(vector)
                    known[f"similarity({name}, item)"] = float(matrix[number] @ vector / lengths)
            held.append(condition.evaluate(known) is True)
        return held


def compiled(text: str) -> tuple[CompiledExpression, Part]:
    condition = compile_expression(text, VARIABLES, Returns.BOOLEAN)
    return condition, parts_of(condition.node, text, VARIABLES)


@settings(max_examples=600, deadline=None)
@given(
    text=CONDITIONS,
    documents=st.lists(DOCUMENTS, min_size=1, max_size=8),
    request_values=REQUESTS,
    seed=st.integers(0, 99),
)
def test_parts_hold_where_the_whole_condition_does(
    text: str, documents: list[dict[str, Any]], request_values: Mapping[str, object], seed: int
) -> None:
    condition, part = compiled(text)
    candidates = Candidates(documents, request_values, seed)

    assert candidates.held_by_parts(part) == candidates.held_by_cel(condition)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("item.price < 10 && request.hour == 7", [OfRequest, OfItems]),
        ('!(item.price < 10 && item.on_sale) || context.device == "tv"', [OfRequest, OfItems, OfItems]),
        ("context.vip ? item.price < 1 : item.on_sale", [OfRequest, OfItems, OfRequest, OfItems]),
        ("item.price <= context.budget", [Compared]),
        ("score > 0.5 && item.price < 10", [OfItems, Compared]),
        ("item.price < item.stock && context.vip", [OfRequest, OfEach]),
        ("context.device in item.tags", [OfEach]),
    ],
)
def test_only_what_truly_mixes_is_left_to_candidates_and_comes_last(text: str, kinds: list[type]) -> None:
    assert [type(single) for single in singles_of(compiled(text)[1])] == kinds


class Counting:
    """An expression that counts how often it is evaluated."""

    def __init__(self, expression: CompiledExpression) -> None:
        self.text, self.names = expression.text, expression.names
        self.evaluate_count = 0
        self._evaluate: Callable[[Mapping[str, object]], Any] = expression.evaluate

    def evaluate(self, values: Mapping[str, object]) -> Any:
        self.evaluate_count += 1
        return self._evaluate(values)


def test_an_expression_is_evaluated_once_for_candidates_with_equal_values() -> None:
    counting = Counting(compiled("item.price < item.stock")[0])
    part = OfEach(expression=counting, fields=(FIELDS["price"], FIELDS["stock"]))
    candidates = Candidates([{"price": number % 3, "stock": 1} for number in range(30)], {}, 0)

    assert candidates.held_by_parts(part) == [number % 3 < 1 for number in range(30)]
    assert counting.evaluate_count == 3
