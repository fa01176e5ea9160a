from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from arrangements import (
    Case,
    candidates_of,
    cap,
    cases,
    crowded,
    no_vectors,
    pin,
    recipe_of,
    slowly_arranged,
    units,
)
from hypothesis import given
from hypothesis import strategies as st

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.query import RuleEffect
from annserve.engine.arrangement import Arranged, arrange
from annserve.engine.order.weights import weighted_scores

OFF = st.just(0.0)


@given(case=cases())
def test_rows_are_shown_once_with_their_weighted_scores_and_none_is_of_weight_0(case: Case) -> None:
    arranged = case.arranged()

    scores, _ = weighted_scores(case.candidates.scores, case.candidates.weights)
    assert len(set(arranged.positions.tolist())) == len(arranged.positions) <= case.k
    assert set(arranged.positions.tolist()) <= set(case.kept)
    assert np.array_equal(arranged.scores, scores[arranged.positions])
    assert arranged.scores.dtype == np.float32
    assert np.isfinite(arranged.scores).all()


@given(case=cases())
def test_no_window_holds_a_value_too_often_unless_pins_alone_do(case: Case) -> None:
    arranged = case.arranged()

    shown = arranged.positions.tolist()
    for one in case.recipe.caps:
        width = one.window or len(shown)
        for start in range(max(1, len(shown) - width + 1)):
            window = range(start, min(start + width, len(shown)))
            for value in "abc":
                holders = [at for at in window if value in case.candidates.values[one.name][shown[at]]]
                assert len(holders) <= one.at_most or set(holders) <= arranged.pinned


@given(case=cases())
def test_an_answer_is_short_only_where_caps_deny_the_next_place_to_all_that_are_left(case: Case) -> None:
    shown = case.arranged().positions.tolist()

    if len(shown) < min(case.k, len(case.kept)):
        below = dict(enumerate(shown))
        left = set(case.kept) - set(shown)
        assert all(crowded(case, {**below, len(shown): position}, len(shown)) for position in left)


@given(case=cases())
def test_what_rules_took_and_what_is_shown_is_all_there_was_when_the_answer_is_short(case: Case) -> None:
    arranged = case.arranged()

    zeros = len(case.candidates.scores) - len(case.kept)
    is_short = len(arranged.positions) < case.k
    assert arranged.taken_by_rules == (len(case.candidates.scores) - len(arranged.positions) if is_short else zeros)


@given(case=cases())
def test_a_row_that_a_pin_placed_stands_at_the_pins_rank(case: Case) -> None:
    arranged = case.arranged()

    wanted = {(one.rank - 1, position) for one, position in case.pins}
    assert all((at, arranged.positions[at]) in wanted for at in arranged.pinned)


@given(case=cases(caps_max=0))
def test_without_caps_every_pin_within_the_answer_is_exact(case: Case) -> None:
    arranged = case.arranged()

    places: dict[int, int] = {}
    for one, position in case.pins:
        if one.rank <= len(arranged.positions) and position in case.kept and position not in places.values():
            places.setdefault(one.rank - 1, position)
    assert {at: int(arranged.positions[at]) for at in arranged.pinned} == places


@given(case=cases(diversities=OFF, shares=OFF))
def test_caps_and_pins_place_whom_a_count_of_every_window_would(case: Case) -> None:
    scores, _ = weighted_scores(case.candidates.scores, case.candidates.weights)

    assert case.arranged().positions.tolist() == slowly_arranged(case, scores)


@given(case=cases(diversities=st.floats(0.01, 1.0), shares=OFF))
def test_each_row_adds_the_most_to_those_above_of_all_whom_caps_allow(case: Case) -> None:
    arranged = case.arranged()

    scores = weighted_scores(case.candidates.scores, case.candidates.weights)[0].astype(np.float64)
    kept, shown = case.kept, arranged.positions.tolist()
    spread = np.ptp(scores[kept]) if kept else 0.0
    relevance = (scores - scores[kept].min()) / spread if spread else np.zeros(len(scores))
    vectors = case.candidates.vectors(np.arange(len(case.candidates.rows)))
    cosines = vectors.astype(np.float64) @ vectors.T
    ahead = {at: shown[at] for at in arranged.pinned}
    has_released = len(arranged.pinned) < len(case.pins)

    def gain(position: int, above: list[int]) -> float:
        likeness = max((cosines[position, one] for one in above), default=0.0)
        return float((1 - case.recipe.diversity) * relevance[position] - case.recipe.diversity * likeness)

    for place, chosen in enumerate(shown):
        above = shown[:place]
        # A pin that let go may have held someone back on the way: only who could be placed despite it is compared.
        held = {one.rank - 1: position for one, position in reversed(case.pins) if position in kept}
        standing = {**(held if has_released else ahead), **dict(enumerate(above))}
        if place not in arranged.pinned:
            rivals = set(kept) - set(above) - set(standing.values())
            allowed = [one for one in rivals if not crowded(case, {**standing, place: one}, place)]
            assert gain(chosen, above) >= max((gain(one, above) for one in allowed), default=-math.inf) - 1e-5


@given(case=cases(diversities=OFF, shares=OFF, caps_max=0, pins_max=0))
def test_without_rules_the_order_is_that_of_the_scores_and_equal_ones_stay(case: Case) -> None:
    arranged = case.arranged()

    scores, _ = weighted_scores(case.candidates.scores, case.candidates.weights)
    order = sorted(case.kept, key=lambda position: (-scores[position], position))
    assert arranged.positions.tolist() == order[: case.k]


@given(case=cases(diversities=OFF))
def test_a_diversity_of_0_reads_no_vector(case: Case) -> None:
    blind = replace(case.candidates, vectors=no_vectors)

    assert replace(case, candidates=blind).arranged().positions.tobytes() == case.arranged().positions.tobytes()


def test_diversity_reads_the_vectors_of_those_that_weights_leave_best_first() -> None:
    asked: list[list[int]] = []

    def vectors(positions: Rows) -> Vectors:
        asked.append(positions.tolist())
        return np.eye(4, dtype=np.float32)[positions]

    candidates = replace(candidates_of([1, 4, 3, 2], weights={"boosts[0]": [1, 1, 0, 1]}), vectors=vectors)

    assert arrange(candidates, recipe_of(diversity=0.5), 4, (), 0).positions.tolist() == [1, 3, 0]
    assert asked == [[1, 3, 0]]


@given(count=st.integers(1, 14), seed=st.integers(0, 99), k=st.integers(1, 14))
def test_a_diversity_that_is_almost_0_keeps_the_order_of_scores_that_differ(count: int, seed: int, k: int) -> None:
    scores = np.random.default_rng(seed).permutation(count).tolist()
    candidates = candidates_of(scores, vectors=units(np.random.default_rng(seed), count))

    alike = arrange(candidates, recipe_of(diversity=1e-4), k, (), 0)

    assert alike.positions.tobytes() == arrange(candidates, recipe_of(), k, (), 0).positions.tobytes()


@given(case=cases(shares=st.floats(0.0, 1.0), caps_max=0, pins_max=0))
def test_exploration_takes_its_share_of_the_places_as_far_as_there_are_fresh_candidates(case: Case) -> None:
    arranged = case.arranged()

    fresh = [position for position in case.kept if case.candidates.is_fresh[position]]
    share = case.recipe.exploration_share * min(case.k, len(case.kept))
    shown_fresh = [at for at, position in enumerate(arranged.positions) if case.candidates.is_fresh[position]]
    assert arranged.explored <= set(shown_fresh)
    assert len(arranged.explored) <= math.ceil(share)
    assert len(shown_fresh) >= min(math.floor(share), len(fresh))


@given(case=cases(diversities=OFF, shares=st.floats(0.1, 1.0), caps_max=0))
def test_exploration_places_the_best_fresh_candidate_that_is_not_shown_above_or_pinned(case: Case) -> None:
    arranged = case.arranged()

    scores, _ = weighted_scores(case.candidates.scores, case.candidates.weights)
    fresh = [position for position in case.kept if case.candidates.is_fresh[position]]
    pinned = {int(arranged.positions[at]) for at in arranged.pinned}
    for at in arranged.explored:
        left = set(fresh) - set(arranged.positions[:at].tolist()) - pinned
        assert arranged.scores[at] == max(scores[position] for position in left)


def test_over_many_seeds_exploration_has_its_share_at_every_place() -> None:
    candidates = candidates_of([float(-n) for n in range(40)], fresh=range(30, 40))
    runs = 4_000

    explored = [arrange(candidates, recipe_of(exploration_share=0.125), 10, (), seed).explored for seed in range(runs)]

    by_place = [sum(place in one for one in explored) / runs for place in range(10)]
    assert {len(one) for one in explored} == {1, 2}
    # Six standard errors of a share of 0.125 in 4,000 draws.
    assert all(abs(share - 0.125) < 6 * math.sqrt(0.125 * 0.875 / runs) for share in by_place)


@given(case=cases())
def test_the_same_question_has_the_same_answer_explained_or_not(case: Case) -> None:
    first, again, explained = case.arranged(), case.arranged(), case.arranged(explain=True)

    assert first.positions.tobytes() == again.positions.tobytes() == explained.positions.tobytes()
    assert (first.explored, first.pinned) == (again.explored, again.pinned) == (explained.explored, explained.pinned)
    assert first.effects == ()
    assert len(explained.effects) == len(explained.positions)


@given(case=cases(diversities=OFF, shares=OFF, caps_max=0, pins_max=0, zero_weights=False), data=st.data())
def test_a_weight_above_1_never_makes_a_rank_worse_and_one_below_never_better(case: Case, data: st.DataObject) -> None:
    count = len(case.candidates.scores)
    if not count:
        return
    whole = replace(case, k=count)
    position, factor = data.draw(st.integers(0, count - 1)), data.draw(st.floats(0.125, 8.0, width=32))
    weight = np.ones(count, np.float32)
    weight[position] = factor
    weighted = replace(case.candidates, weights={**case.candidates.weights, "rotation": weight})

    before = whole.arranged().positions.tolist().index(position)
    after = replace(whole, candidates=weighted).arranged().positions.tolist().index(position)

    assert (after - before) * (factor - 1) <= 0


@given(case=cases(caps_max=2))
def test_only_rules_that_did_something_are_told_of_in_their_order(case: Case) -> None:
    arranged = case.arranged(explain=True)

    order = [*case.candidates.weights, "diversity", *(one.name for one in case.recipe.caps)]
    for at, effects in enumerate(arranged.effects):
        rules = [effect.rule for effect in effects]
        weights = {effect.rule: effect.weight for effect in effects if effect.weight is not None}
        position = arranged.positions[at]
        assert weights == {rule: w[position] for rule, w in case.candidates.weights.items() if w[position] != 1}
        assert ("exploration" in rules) == (at in arranged.explored)
        assert any(rule.startswith("pins") for rule in rules) == (at in arranged.pinned)
        ordered = [rule for rule in rules if rule in order]
        assert ordered == sorted(ordered, key=order.index)
        assert rules[: len(ordered)] == ordered


@given(case=cases(shares=OFF, pins_max=0))
def test_a_rank_that_no_rule_is_told_of_is_that_of_the_scores_but_for_closing_up(case: Case) -> None:
    arranged = case.arranged(explain=True)

    unmoved = [at for at, effects in enumerate(arranged.effects) if all(one.weight is not None for one in effects)]
    scores = arranged.scores[unmoved]
    assert (scores[:-1] >= scores[1:]).all()


def effects_of(arranged: Arranged) -> list[list[str]]:
    return [[effect.rule for effect in effects] for effects in arranged.effects]


def test_a_cap_tells_whom_it_held_back_and_who_came_instead() -> None:
    authors = [("ann",), ("ann",), ("ann",), ("ben",), ("cem",)]
    candidates = candidates_of([5, 4, 3, 2, 1], values={"caps[0]": authors})

    arranged = arrange(candidates, recipe_of(caps=(cap(0, at_most=1, window=2),)), 5, (), 0, explain=True)

    assert arranged.positions.tolist() == [0, 3, 1, 4, 2]
    # Whom the second row passed, the fourth row only follows.
    assert effects_of(arranged) == [[], ["caps[0]"], ["caps[0]"], [], ["caps[0]"]]


def test_those_who_close_up_behind_what_a_cap_took_out_were_not_moved() -> None:
    authors = [("ann",), ("ann",), ("ben",), ("cem",)]
    candidates = candidates_of([5, 4, 3, 2], values={"caps[0]": authors})

    arranged = arrange(candidates, recipe_of(caps=(cap(0, at_most=1),)), 4, (), 0, explain=True)

    assert arranged.positions.tolist() == [0, 2, 3]
    assert arranged.taken_by_rules == 1
    assert effects_of(arranged) == [[], ["caps[0]"], []]


def test_diversity_tells_whom_it_held_back_and_who_came_instead() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    candidates = candidates_of([4, 3.9, 3.5, 0], vectors=np.array([east, east, north, north], np.float32))

    arranged = arrange(candidates, recipe_of(diversity=0.4), 3, (), 0, explain=True)

    assert arranged.positions.tolist() == [0, 2, 1]
    assert effects_of(arranged) == [[], ["diversity"], ["diversity"]]


def test_weights_a_pin_and_exploration_are_told_of() -> None:
    candidates = candidates_of([3, 2, 1, 1], weights={"boosts[0]": [1, 2, 0, 1]}, fresh=[3])

    arranged = arrange(candidates, recipe_of(exploration_share=0.5), 2, [pin(4, 1, 0)], 0, explain=True)

    assert arranged.positions.tolist() == [0, 3]
    assert arranged.effects == [(RuleEffect(rule="pins[4]"),), (RuleEffect(rule="exploration"),)]
    without = arrange(candidates, recipe_of(), 2, (), 0, explain=True)
    assert without.effects == [(RuleEffect(rule="boosts[0]", weight=2.0),), ()]


def test_a_pin_stands_though_a_cap_is_full_and_the_cap_makes_room_above_it() -> None:
    authors = [("ann",), ("ben",), ("cem",), ("ann",)]
    candidates = candidates_of([4, 3, 2, 1], values={"caps[0]": authors})

    arranged = arrange(candidates, recipe_of(caps=(cap(0, at_most=1),)), 3, [pin(0, 3, 3)], 0)

    assert arranged.positions.tolist() == [1, 2, 3]


def test_two_pins_stand_though_they_exceed_a_cap() -> None:
    candidates = candidates_of([4, 3, 2], values={"caps[0]": [("ann",), ("ben",), ("ann",)]})

    arranged = arrange(candidates, recipe_of(caps=(cap(0, at_most=1),)), 3, [pin(0, 1, 2), pin(1, 2, 0)], 0)

    assert arranged.positions.tolist() == [2, 0, 1]


def test_a_pin_whose_rank_the_answer_does_not_reach_is_a_candidate_like_any_other() -> None:
    candidates = candidates_of([4, 3, 2], values={"caps[0]": [("ann",), ("ann",), ("ben",)]})

    arranged = arrange(candidates, recipe_of(caps=(cap(0, at_most=1),)), 3, [pin(0, 3, 2)], 0)

    assert arranged.positions.tolist() == [0, 2]
    assert arranged.pinned == frozenset()


def test_nothing_is_made_of_nothing() -> None:
    recipe = recipe_of(diversity=0.5, caps=(cap(0, at_most=1),), exploration_share=0.5)

    nobody = candidates_of([], vectors=np.empty((0, 2), np.float32), values={"caps[0]": []})
    arranged = arrange(nobody, recipe, 10, (), 0, explain=True)

    assert (len(arranged.positions), len(arranged.scores), arranged.effects, arranged.taken_by_rules) == (0, 0, [], 0)


def test_weights_of_0_for_all_leave_nothing_not_even_a_pin() -> None:
    candidates = candidates_of([2, 1], weights={"boosts[0]": [0, 0]})

    arranged = arrange(candidates, recipe_of(), 10, [pin(0, 1, 0)], 0)

    assert arranged.positions.size == 0
    assert arranged.taken_by_rules == 2


def test_the_first_of_several_pins_of_an_item_or_to_a_rank_holds() -> None:
    candidates = candidates_of([5, 4, 3, 2, 1])

    arranged = arrange(candidates, recipe_of(), 4, [pin(0, 2, 4), pin(1, 3, 4), pin(2, 2, 3)], 0, explain=True)

    assert arranged.positions.tolist() == [0, 4, 1, 2]
    assert effects_of(arranged) == [[], ["pins[0]"], [], []]
