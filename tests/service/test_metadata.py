"""What an answer knows of the catalogue goes over the wire as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annserve.domain.catalog import Metadata
from annserve.domain.query import (
    Answer,
    CatalogUse,
    Degradation,
    Explanation,
    LimitingRule,
    SearchPath,
    Shortfall,
    Source,
)
from annserve.service.convert import (
    DEGRADATIONS,
    LIMITING_RULES,
    SEARCH_PATHS,
    SOURCES,
    write_answer,
    write_serving_info,
)
from annserve.v1 import recommendation_pb2 as messages

ANSWER = Answer(
    snapshot_id="s1",
    item_ids=("a",),
    scores=(1.0,),
    source=Source.ITEM_VECTOR,
    search_path=SearchPath.EXACT,
    selectivity=None,
)


def _written(answer: Answer) -> tuple[messages.Recommendations, messages.ServingInfo]:
    recommendations, serving_info = messages.Recommendations(), messages.ServingInfo()
    write_answer(answer, recommendations)
    write_serving_info(answer, recommendations.results, serving_info)
    return recommendations, serving_info


def _metadata(metadata: Metadata) -> dict[str, list[object]]:
    recommendations, _ = _written(replace(ANSWER, metadata=(metadata,)))
    assert messages.Recommendations.FromString(recommendations.SerializeToString()) == recommendations
    return {
        name: [getattr(value, str(value.WhichOneof("kind"))) for value in values.values]
        for name, values in recommendations.results[0].metadata.items()
    }


def test_values_of_every_type_arrive() -> None:
    assert _metadata({"a": ("상품", ""), "b": (2.5,), "c": (True, False), "d": ()}) == {
        "a": ["상품", ""],
        "b": [2.5],
        "c": [True, False],
        "d": [],
    }


@pytest.mark.parametrize(
    ("time_ms", "seconds", "nanos"),
    [(0, 0, 0), (1_500, 1, 500_000_000), (-1, -1, 999_000_000), (253_402_300_799_999, 253_402_300_799, 999_000_000)],
)
def test_time_arrives_to_the_millisecond(time_ms: int, seconds: int, nanos: int) -> None:
    (time,) = _metadata({"released": (time_ms,)})["released"]

    assert (time.seconds, time.nanos) == (seconds, nanos)  # type: ignore[attr-defined]  # a Timestamp


def test_what_a_message_cannot_hold_is_left_out() -> None:
    metadata: Metadata = {
        "half": ("\ud800",),
        "late": (253_402_300_800_000,),
        "early": (-(2**63),),
        "some": ("a", "b\udfff", "😀"),
    }

    assert _metadata(metadata) == {"some": ["a", "😀"]}


def test_rows_have_their_own_metadata() -> None:
    answer = replace(ANSWER, item_ids=("a", "b"), scores=(2.0, 1.0), metadata=({"n": (1.0,)}, {"n": (2.0,)}))

    recommendations, _ = _written(answer)

    assert [result.metadata["n"].values[0].number_value for result in recommendations.results] == [1.0, 2.0]


def test_what_is_not_known_is_not_set() -> None:
    recommendations, serving_info = _written(ANSWER)

    assert not recommendations.HasField("selectivity")
    assert not serving_info.HasField("catalog_age")
    assert not serving_info.HasField("catalog_use")
    assert not serving_info.degradations


def test_zero_is_set_where_it_is_known() -> None:
    recommendations, serving_info = _written(
        replace(ANSWER, selectivity=0.0, catalog_age_seconds=0.0, explanation=Explanation(catalog_use=CatalogUse()))
    )

    assert recommendations.HasField("selectivity")
    assert serving_info.HasField("catalog_age")
    assert serving_info.HasField("catalog_use")


def test_age_and_degradations_and_use_of_the_catalogue_are_told() -> None:
    use = CatalogUse(
        bitmap_hits=1,
        bitmap_misses=2,
        candidate_rounds=3,
        candidates_checked=4,
        database_calls=5,
        history_hits=6,
        metadata_hits=7,
    )
    shortfall = Shortfall(requested=10, returned=1, eligible=1, limiting_rule=LimitingRule.FILTER)

    recommendations, serving_info = _written(
        replace(
            ANSWER,
            catalog_age_seconds=1.25,
            degradations=tuple(Degradation),
            shortfall=shortfall,
            explanation=Explanation(catalog_use=use),
        )
    )

    assert serving_info.catalog_age.ToMilliseconds() == 1_250
    assert list(serving_info.degradations) == [1, 2, 3, 4, 5]
    assert [value for _, value in serving_info.catalog_use.ListFields()] == [1, 2, 3, 4, 5, 6, 7]
    assert recommendations.shortfall.limiting_rule == messages.LIMITING_RULE_FILTER


@pytest.mark.parametrize(
    ("table", "kind", "descriptor"),
    [
        (SOURCES, Source, messages.Source.DESCRIPTOR),
        (SEARCH_PATHS, SearchPath, messages.SearchPath.DESCRIPTOR),
        (LIMITING_RULES, LimitingRule, messages.LimitingRule.DESCRIPTOR),
        (DEGRADATIONS, Degradation, messages.Degradation.DESCRIPTOR),
    ],
)
def test_every_member_has_its_number_and_every_number_its_member(
    table: dict[object, int], kind: type[Source], descriptor: object
) -> None:
    assert set(table) == set(kind)
    assert sorted(table.values()) == sorted(descriptor.values_by_number)[1:]  # type: ignore[attr-defined]  # protobuf's descriptors are untyped here
