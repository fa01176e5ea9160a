"""What people and machines see of an answer with metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from annserve.cli.answers import json_of, remarks_on, row_of
from annserve.cli.names import Names
from annserve.cli.output import print_rows, say
from annserve_client import CatalogUse, Degradation, PlacementUse, Recommendation, Recommendations, SearchPath, Source

ATTRIBUTION = "t"
NO_NAMES = Names({})
ITEM = Recommendation(
    item_id="a",
    score=1.0,
    source=Source.ITEM_VECTOR,
    explanation=None,
    metadata={"price": (2.5,), "tags": ("x", "상품"), "released": (datetime(2024, 1, 1, tzinfo=UTC),), "none": ()},
)
ANSWER = Recommendations(
    results=(ITEM,),
    snapshot_id="s1",
    missing_ids=(),
    shortfall=None,
    search_path=SearchPath.HNSW,
    selectivity=None,
    user_impact=None,
    attribution_token=ATTRIBUTION,
    stage_seconds={},
    catalog_age_seconds=1.5,
    degradations=(Degradation.CATALOG_STALE,),
    catalog_use=CatalogUse(
        bitmap_hit_count=2,
        bitmap_miss_count=0,
        candidate_round_count=0,
        checked_candidate_count=0,
        database_call_count=1,
        history_hit_count=0,
        metadata_hit_count=0,
    ),
)


def test_fields_asked_for_are_columns_in_that_order_whether_an_item_has_them_or_not() -> None:
    row = row_of(1, ITEM, NO_NAMES, ["tags", "released", "missing", "none", "price"])

    assert list(row.items())[2:7] == [
        ("tags", "x, 상품"),
        ("released", "2024-01-01T00:00:00+00:00"),
        ("missing", None),
        ("none", None),
        ("price", 2.5),
    ]


def test_a_variant_that_is_of_another_experiment_is_remarked_on() -> None:
    def remarks(experiment: str) -> list[str]:
        use = PlacementUse(name="home", version="0f", experiment=experiment, variant="a", mode="similar")
        said = remarks_on(replace(ANSWER, placement=use), ["hom_variety", "home_variety"])
        return [remark for remark in said if remark.startswith("--variant")]

    assert remarks("home_variety") == [
        "--variant hom_variety: not the experiment of placement home, which is home_variety"
    ]
    assert remarks("") == [
        "--variant hom_variety: not the experiment of placement home, which has none",
        "--variant home_variety: not the experiment of placement home, which has none",
    ]


def test_machines_get_every_field_as_a_list() -> None:
    (result,) = json.loads(json.dumps(json_of(ANSWER, NO_NAMES)))["results"]

    assert result["metadata"] == {
        "price": [2.5],
        "tags": ["x", "상품"],
        "released": ["2024-01-01T00:00:00+00:00"],
        "none": [],
    }


def test_people_are_told_how_the_catalogue_stood() -> None:
    assert remarks_on(ANSWER)[1:] == [
        "the catalogue as it was 1.5 s ago",
        "degraded: catalog_stale",
        "of the catalogue: bitmap hit 2, database call 1",
    ]


def test_ids_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"item_id": "[red]a :smile:"}], as_json=False, title="of :one: [b]")
    say("no answer from a:abc:b")

    shown = capsys.readouterr()
    assert "[red]a :smile:" in shown.out
    assert "of :one: [b]" in shown.out
    assert shown.err == "no answer from a:abc:b\n"
