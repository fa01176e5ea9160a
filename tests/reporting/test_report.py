from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_month import (
    MONTH_MS,
    START_MS,
    chunks,
    covers,
    intervals,
    month_question,
    reported_month,
    simulated_month,
)

from annserve.domain.events import Event, EventType
from annserve.domain.query import Mode, PlacementUse
from annserve.reporting.dimensions import Dimension
from annserve.reporting.report import Question, Report, report


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return simulated_month(7, 400)


@pytest.fixture(scope="module")
def month(events: list[Event]) -> Report:
    return reported(events)


def reported(events: Sequence[Event], question: Question | None = None) -> Report:
    return asyncio.run(report(chunks(events), question or month_question()))


def test_intervals_cover_the_truth_of_simulated_months_as_often_as_they_promise() -> None:
    """`loadtest/report_coverage.py` in short: forty months, always the same."""
    asked: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    for seed in range(40):
        for name, interval, truth in intervals(asyncio.run(reported_month(seed, 100))):
            # So small a month does not always show that the lines cross.
            if name != "crossing":
                asked[name] += 1
                covered[name] += covers(interval, truth)

    assert {name: covered[name] for name, count in asked.items() if covered[name] < 0.88 * count} == {}
    assert covered.total() >= 0.94 * asked.total()


def test_the_planted_effect_is_found_and_none_where_there_is_none(month: Report) -> None:
    p_values = {crossover.placement: crossover.p_value for crossover in month.crossovers}

    assert p_values["popup"] is not None
    assert p_values["popup"] < 0.001
    assert p_values["home"] is not None
    assert p_values["home"] > 0.05


def test_every_impression_is_counted_once_in_each_table(events: list[Event], month: Report) -> None:
    shown = Counter(event.placement.name for event in events if event.placement is not None)

    for names in ((), ("variant",), ("mode",), ("hour",), ("user_context",), ("context_shown",)):
        counted: Counter[str] = Counter()
        for cell in month.by(*names):
            counted[cell.placement] += cell.impressions
        assert counted == shown


def test_every_conversion_is_credited_once(events: list[Event], month: Report) -> None:
    conversions = sum(event.type is EventType.CONVERSION for event in events)

    assert sum(cell.converted + cell.later for cell in month.by()) == conversions
    assert month.unmatched_conversions == 0


def test_the_report_does_not_depend_on_how_events_come_in_chunks(events: list[Event], month: Report) -> None:
    assert asyncio.run(report(chunks(events, 37), month_question())) == month


def test_impressions_outside_the_period_are_not_counted_but_keep_their_outcomes(events: list[Event]) -> None:
    first, second = (
        replace(month_question(), since_ms=START_MS + start, until_ms=START_MS + start + MONTH_MS // 2)
        for start in (0, MONTH_MS // 2)
    )
    whole = {cell.placement: cell for cell in reported(events).by()}
    halves = [{cell.placement: cell for cell in reported(events, half).by()} for half in (first, second)]

    for placement, cell in whole.items():
        parts = [half[placement] for half in halves]
        assert sum(part.impressions for part in parts) == cell.impressions
        assert sum(part.converted for part in parts) == cell.converted
        assert sum(part.later for part in parts) == cell.later


def test_only_the_placements_asked_for_are_reported(events: list[Event]) -> None:
    asked = reported(events, replace(month_question(), placements=frozenset({"home"})))

    assert {cell.placement for cell in asked.cells} == {"home"}
    assert {exposure.placement for exposure in asked.exposures} == {"home"}


def test_dimensions_can_be_crossed(events: list[Event]) -> None:
    by = ((Dimension.VARIANT, Dimension.HOUR),)

    crossed = reported(events, replace(month_question(), by=by)).by("variant", "hour")

    assert {cell.values[0] for cell in crossed} == {"modes/taste", "modes/context"}
    assert len({cell.values[1] for cell in crossed}) == 24


def test_users_shared_out_as_declared_are_no_mismatch_and_lost_ones_are(events: list[Event]) -> None:
    # Two thirds of those who got taste go missing: their variant crashed, say.
    kept = [event for event in events if is_spared(event.user_id) or not is_of(event, "taste")]

    whole, lost = ({one.placement: one for one in reported(some).assignments}["popup"] for some in (events, kept))
    declared = {one.placement: one for one in reported(kept, with_shares({"taste": 0.25, "context": 0.75})).assignments}

    assert not whole.is_mismatched
    assert lost.is_mismatched
    assert not lost.are_shares_declared
    assert declared["popup"].are_shares_declared
    assert not declared["popup"].is_mismatched


def with_shares(shares: dict[str, float]) -> Question:
    return replace(month_question(), shares={f"modes/{variant}": share for variant, share in shares.items()})


def is_spared(user_id: str) -> bool:
    return int(user_id.removeprefix("user-")) % 3 == 0


def is_of(event: Event, variant: str) -> bool:
    return event.placement is not None and event.placement.variant == variant


def test_no_events_make_an_empty_report() -> None:
    empty = reported([])

    assert (empty.cells, empty.comparisons, empty.effects, empty.exposures) == ((), (), (), ())


IMPRESSIONS = st.lists(
    st.tuples(
        st.integers(0, 3),  # user
        st.sampled_from(["control", "other"]),
        st.sampled_from([Mode.RELATED, Mode.PERSONALIZE]),
        st.none() | st.floats(-1, 1),
        st.integers(1, 300),  # how often
        st.sampled_from([None, 0.0, 12.5]),  # what a conversion was worth
    ),
    max_size=6,
)


@given(shown=IMPRESSIONS, confidence=st.sampled_from([0.5, 0.95, 0.999]))
@settings(deadline=None, max_examples=150)
@example(
    shown=[
        (0, "control", Mode.RELATED, None, 1, 0.0),
        (1, "control", Mode.RELATED, None, 300, None),
        (2, "other", Mode.RELATED, None, 1, 0.0),
        (3, "other", Mode.RELATED, None, 2, None),
    ],
    confidence=0.95,
)
def test_however_few_events_there_are_the_report_is_made_of_numbers(
    shown: list[tuple[int, str, Mode, float | None, int, float | None]], confidence: float
) -> None:
    events: list[Event] = []
    for user, variant, mode, similarity, times, value in shown:
        use = PlacementUse(
            name="popup", version="1", experiment="x", variant=variant, mode=mode, user_context_similarity=similarity
        )
        for number in range(times):
            id_ = f"{len(events)}"
            events.append(event(id_, EventType.IMPRESSION, user, START_MS + len(events), id_, placement=use))
            if value is not None and number == 0:
                events.append(event(f"{id_}!", EventType.CONVERSION, user, START_MS + len(events), id_, value=value))

    made = reported(events, replace(month_question(), confidence=confidence))

    json.dumps(asdict(made), allow_nan=False)
    for interval in [cell.conversion for cell in made.cells] + [one.lift for one in made.comparisons if one.lift]:
        assert interval.low <= interval.value <= interval.high


def event(id_: str, type_: EventType, user: int, time_ms: int, impression_id: str, **more: Any) -> Event:
    return Event(
        event_id=id_,
        type=type_,
        user_id=f"u{user}",
        item_ids=("a",),
        time_ms=time_ms,
        impression_id=impression_id,
        **more,
    )


@pytest.mark.parametrize("cosine", [1e200, float("nan"), float("-inf")])
def test_a_similarity_that_is_no_cosine_is_taken_for_unknown(events: list[Event], month: Report, cosine: float) -> None:
    use = PlacementUse(name="popup", version="1", mode=Mode.RELATED, user_context_similarity=cosine)
    wrong = event("wrong", EventType.IMPRESSION, 1, START_MS, "wrong", placement=use)

    effects = reported([wrong, *events]).effects

    assert effects == month.effects
