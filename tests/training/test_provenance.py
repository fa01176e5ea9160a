"""Data are known again whatever their order, and nothing else is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from drifting import START_MS, Deed, interactions_of
from hypothesis import given
from hypothesis import strategies as st

from annserve.training.interactions import Interactions
from annserve.training.provenance import METRIC, provenance_of, trained_on

IDS = st.text("ab가", min_size=1, max_size=3)
DEEDS = st.lists(st.builds(Deed, IDS, IDS, st.integers(0, 5).map(float)), min_size=1, max_size=30)


@given(deeds=DEEDS, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_reading_makes_no_difference(deeds: Sequence[Deed], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(deeds))

    assert provenance_of(interactions_of([deeds[place] for place in order])) == provenance_of(interactions_of(deeds))


@given(deeds=DEEDS, others=DEEDS)
def test_other_data_have_another_digest(deeds: Sequence[Deed], others: Sequence[Deed]) -> None:
    is_same = sorted(map(repr, deeds)) == sorted(map(repr, others))

    assert (provenance_of(interactions_of(deeds)) == provenance_of(interactions_of(others))) is is_same


@given(deeds=DEEDS)
def test_weights_and_times_are_part_of_it(deeds: Sequence[Deed]) -> None:
    whole = interactions_of(deeds)
    weights, timeless = whole.weights.copy(), replace(whole, times=None)
    weights[-1] = 2.0

    variants: list[Interactions] = [whole, replace(whole, weights=weights), timeless]

    assert len({provenance_of(variant).digest for variant in variants}) == 3


def test_a_manifest_tells_it_again() -> None:
    provenance = provenance_of(interactions_of([Deed("u", "a", 0.0), Deed("u", "b", 1.0)]))

    assert trained_on({METRIC: provenance.as_metric()}) == provenance
    assert (provenance.interaction_count, provenance.newest_ms) == (2, START_MS + 86_400_000)
    assert provenance.as_metric()["oldest_ms"] == START_MS
    # As a snapshot of before says it: the same data are nothing new.
    assert trained_on({METRIC: {**provenance.as_metric(), "oldest_ms": None}}) == provenance
    assert trained_on({}) is None
    assert trained_on({METRIC: {"digest": 1}}) is None
