"""The project's own client and server understand each other."""

from __future__ import annotations

import pytest
from edge_twin import ITEM_IDS, TIMEOUT_SECONDS, TwinRecommender

from annserve_client import (
    AsyncClient,
    InvalidRequestError,
    LimitingRule,
    NotFoundError,
    Options,
    Personalize,
    Related,
    SearchPath,
    ServerError,
    Similar,
    Source,
)
from annserve_client.results import Recommendations


async def test_answer_of_the_server_reaches_the_user_whole(server: str) -> None:
    async with AsyncClient(server, timeout_seconds=TIMEOUT_SECONDS) as client:
        options = Options(page_size=3, candidate_item_ids=["item-2", "상품-1"], explain=True)
        answer = await client.related(["item-0", "없는 상품"], "u", user_impact=0.25, options=options)

    assert [item.item_id for item in answer] == ["상품-1", "item-2"]
    assert answer.results[0].explanation is not None
    assert answer.results[0].explanation.likeness == pytest.approx(599 / 600)
    assert {item.source for item in answer} == {Source.POPULAR}
    assert answer.search_path is SearchPath.EXACT
    assert answer.missing_ids == ("없는 상품",)
    assert answer.user_impact == 0.25
    assert answer.shortfall is not None
    assert answer.shortfall.limiting_rule is LimitingRule.CANDIDATE_ITEMS
    assert answer.stage_seconds == {"query_vectors": 1.5e-6, "search": 20.25e-6}
    assert answer.attribution_token


async def test_refusal_of_the_server_reaches_the_user_with_its_details(server: str) -> None:
    async with AsyncClient(server, timeout_seconds=TIMEOUT_SECONDS) as client:
        with pytest.raises(InvalidRequestError) as invalid:
            await client.similar(["a"], options=Options(page_size=501))
        with pytest.raises(NotFoundError) as not_found:
            await client.similar(["없는 상품"], options=Options(strict=True))

    assert [(v.field, v.description) for v in invalid.value.violations] == [
        ("options.page_size", "must be at most 500, got 501")
    ]
    assert not_found.value.reason == "UNKNOWN_ITEM"
    assert not_found.value.metadata == {"item_id": "없는 상품", "snapshot_id": "snapshot-twin"}
    assert not_found.value.request_id


async def test_fault_of_the_server_tells_the_user_its_request_id(server: str, twin: TwinRecommender) -> None:
    twin.error = ZeroDivisionError("secret")

    async with AsyncClient(server, timeout_seconds=TIMEOUT_SECONDS) as client:
        with pytest.raises(ServerError) as caught:
            await client.similar(["item-0"])

    assert caught.value.request_id
    assert caught.value.metadata == {"request_id": caught.value.request_id}
    assert "secret" not in str(caught.value)


async def test_batch_comes_back_in_order(server: str) -> None:
    async with AsyncClient(server, timeout_seconds=TIMEOUT_SECONDS) as client:
        similar, invalid, related = await client.batch(
            [Similar(item_ids=["item-0"]), Personalize(), Related(item_ids=["item-0"])]
        )

    assert isinstance(similar, Recommendations)
    assert [item.item_id for item in similar] == list(ITEM_IDS[1:11])
    assert isinstance(invalid, InvalidRequestError)
    assert isinstance(related, Recommendations)
    assert related.user_impact == 0.5
