from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from scenarios import (
    BATCH_ROWS,
    HOT_SHARE,
    SCENARIOS,
    ZIPF_EXPONENT,
    Population,
    calls_of,
    catalogue_lines,
    ids_drawn,
    one_hot,
    uniform,
    zipf,
)

from annserve.v1 import recommendation_service_pb2 as messages

ITEM_IDS = [f"item-{number}" for number in range(500)]
POPULATION = Population(ITEM_IDS, [f"user-{number}" for number in range(50)])
DRAWN = 20_000


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_asks_the_same(scenario: str) -> None:
    first, again, other = (itertools.islice(calls_of(scenario, POPULATION, seed), 50) for seed in (1, 1, 2))

    asked = list(first)

    assert asked == list(again)
    assert asked != list(other)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_call_is_a_message_that_its_method_takes(scenario: str) -> None:
    for call in itertools.islice(calls_of(scenario, POPULATION), 200):
        request = getattr(messages, call.method.rpartition("/")[2] + "Request")
        assert request.FromString(call.message).SerializeToString() == call.message


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_population_without_users_can_be_asked_about(scenario: str) -> None:
    assert len(list(itertools.islice(calls_of(scenario, Population(ITEM_IDS, [])), 100))) == 100


def test_zipf_asks_about_an_item_in_proportion_to_a_power_of_its_rank() -> None:
    shares = np.bincount(zipf(np.random.default_rng(0), 500, DRAWN), minlength=500) / DRAWN

    expected = np.arange(1, 501) ** -ZIPF_EXPONENT
    assert shares[:20] == pytest.approx((expected / expected.sum())[:20], abs=0.01)


def test_a_supernode_draws_its_share_and_the_others_draw_alike() -> None:
    counts = Counter(one_hot(np.random.default_rng(0), 500, DRAWN).tolist())

    assert counts.pop(0) / DRAWN == pytest.approx(HOT_SHARE, abs=0.02)
    assert max(counts.values()) < 3 * DRAWN * (1 - HOT_SHARE) / 500


def test_draws_go_on_past_what_is_drawn_at_once() -> None:
    drawn = set(itertools.islice(ids_drawn(uniform, ITEM_IDS, np.random.default_rng(0)), 10_000))

    assert drawn == set(ITEM_IDS)


def test_a_batch_asks_for_items_and_for_users() -> None:
    call = next(calls_of("batch", POPULATION))

    rows = messages.BatchRecommendRequest.FromString(call.message).rows
    assert Counter(row.WhichOneof("request") for row in rows) == {
        "similar": BATCH_ROWS // 2,
        "personalize": BATCH_ROWS // 2,
    }


def test_prices_of_the_catalogue_let_a_known_share_pass() -> None:
    prices = np.array([line["price"] for line in catalogue_lines([str(number) for number in range(DRAWN)])])

    assert (prices < 20).mean() == pytest.approx(0.2, abs=0.01)
