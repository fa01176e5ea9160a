from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from annserve.domain.events import Event, EventType
from annserve.domain.query import Mode, PlacementUse
from annserve.reporting.context_shown import nothing_known
from annserve.reporting.join import Join, Outcome, Shown, Windows

WINDOWS = Windows(outcome_ms=100, later_ms=1_000)
TOKEN, OTHER = "t", "o"
USE = PlacementUse(name="popup", version="v", mode=Mode.RELATED, user_context_similarity=0.5)


def impression(time_ms: int, id_: str = "", **changes: Any) -> Event:
    event = Event(
        event_id=f"i{time_ms}{id_}",
        type=EventType.IMPRESSION,
        user_id="u",
        item_ids=("a", "b"),
        time_ms=time_ms,
        attribution_token=TOKEN,
        impression_id=id_,
        placement=USE,
    )
    return replace(event, **changes)


def conversion(time_ms: int, **changes: Any) -> Event:
    event = Event(
        event_id=f"c{time_ms}", type=EventType.CONVERSION, user_id="u", item_ids=("b",), time_ms=time_ms, value=2.0
    )
    return replace(event, **changes)


def joined(*events: Event) -> tuple[list[Shown], Join]:
    join = Join(WINDOWS, nothing_known)
    return [*join.add(events), *join.finish()], join


def outcomes(*events: Event) -> list[Outcome]:
    return [shown.outcome for shown in joined(*events)[0]]


def test_a_conversion_within_the_window_counts_to_the_impression_it_names() -> None:
    shown, _ = joined(impression(0, "1"), impression(10, "2"), conversion(100, impression_id="1"))

    assert [(one.impression_id, one.outcome, one.value) for one in shown] == [
        ("1", Outcome.CONVERTED, 2.0),
        ("2", Outcome.NONE, 0.0),
    ]


def test_a_value_that_is_no_amount_spoils_no_sum() -> None:
    values = (float("inf"), 1.5, float("nan"), -1e300, 2.0)
    conversions = [conversion(10 + place, impression_id="1", value=value) for place, value in enumerate(values)]

    (shown,), join = joined(impression(0, "1"), *conversions)

    assert (shown.value, join.unusable_values) == (3.5, 3)


def test_one_after_the_window_is_credited_apart() -> None:
    assert outcomes(impression(0, "1"), conversion(101, impression_id="1")) == [Outcome.LATER]


def test_one_within_the_window_outweighs_later_ones() -> None:
    early, late = conversion(50, impression_id="1"), conversion(500, impression_id="1")

    assert outcomes(impression(0, "1"), early, late) == [Outcome.CONVERTED]


def test_one_after_the_last_window_belongs_to_no_impression() -> None:
    shown, join = joined(impression(0, "1"), conversion(1_001, impression_id="1"))

    assert shown[0].outcome is Outcome.NONE
    assert join.unmatched[EventType.CONVERSION] == 1


def test_without_an_impressions_id_the_token_the_user_and_an_item_find_the_latest() -> None:
    shows = [impression(0), impression(10), impression(20, attribution_token=OTHER)]

    assert outcomes(*shows, conversion(30, attribution_token=TOKEN)) == [Outcome.NONE, Outcome.CONVERTED, Outcome.NONE]


def test_an_item_that_was_not_shown_or_another_user_is_no_match() -> None:
    not_shown = conversion(30, attribution_token=TOKEN, item_ids=("z",))
    another = conversion(30, attribution_token=TOKEN, user_id="v")

    assert outcomes(impression(0), not_shown, another) == [Outcome.NONE]


def test_a_conversion_that_names_no_answer_is_credited_apart_however_soon() -> None:
    assert outcomes(impression(0, "1"), conversion(1)) == [Outcome.LATER]


def test_a_click_counts_once_and_only_where_it_names_the_answer() -> None:
    click = conversion(5, type=EventType.CLICK)

    named, _ = joined(impression(0, "1"), replace(click, impression_id="1"), replace(click, impression_id="1"))
    unnamed, join = joined(impression(0, "1"), click)

    assert [one.is_clicked for one in (*named, *unnamed)] == [True, False]
    assert join.unmatched[EventType.CLICK] == 1


def test_a_second_impression_with_the_same_id_is_left_out() -> None:
    shown, join = joined(impression(0, "1"), impression(5, "1"))

    assert (len(shown), join.repeated_count) == (1, 1)


def test_suppressed_answers_and_answers_of_no_placement_were_shown_to_nobody() -> None:
    suppressed = impression(0, placement=replace(USE, mode=None, suppressed_reason="early"))

    assert outcomes(suppressed, impression(0, placement=None)) == []


@given(times=st.lists(st.integers(0, 5_000), max_size=60), size=st.integers(1, 20))
def test_each_impression_is_handed_on_once_in_order_and_none_is_kept_beyond_its_window(
    times: list[int], size: int
) -> None:
    events = [impression(time_ms, str(number)) for number, time_ms in enumerate(sorted(times))]
    join = Join(WINDOWS, nothing_known)
    handed: list[Shown] = []

    for start in range(0, len(events), size):
        chunk = events[start : start + size]
        handed += join.add(chunk)
        kept = sum(len(of_user) for of_user in join._by_user.values())
        assert kept == len(join._open) == len(join._by_id)
        assert all(chunk[-1].time_ms - shown.time_ms <= WINDOWS.later_ms for shown in join._open)
    handed += join.finish()

    assert [shown.impression_id for shown in handed] == [event.impression_id for event in events]
    assert not join._by_user
