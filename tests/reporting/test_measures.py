from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from annserve.domain.errors import InputError
from annserve.domain.events import Event, EventType
from annserve.domain.query import Mode
from annserve.reporting.context_shown import ContextShown
from annserve.reporting.dimensions import Dimension, band, label, zone_named
from annserve.reporting.exposure import exposure_counts, gini
from annserve.reporting.groups import GROUPS, Distinct, GroupedSums, hash_of
from annserve.reporting.join import Answerer, Shown


class Ids:
    def __init__(self, ids: Sequence[str]) -> None:
        self._rows = {id_: row for row, id_ in enumerate(ids)}

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, id_: str) -> int | None:
        return self._rows.get(id_)


def shown_at(time_ms: int, user_context_similarity: float | None = None) -> Shown:
    return Shown(
        time_ms=time_ms,
        impression_id="",
        user_id="u",
        token="",
        item_ids=(),
        answerer=Answerer("popup", "v", "", "", Mode.RELATED),
        user_context_similarity=user_context_similarity,
        context_shown_similarity=None,
    )


@pytest.mark.parametrize(
    ("cosine", "name"),
    [(None, "-"), (float("nan"), "-"), (-0.01, "< 0"), (0.0, "0.0 to 0.1"), (0.1, "0.1 to 0.2"), (1.0, "0.9 to 1.0")],
)
def test_a_cosine_falls_into_one_band(cosine: float | None, name: str) -> None:
    assert band(cosine) == name


def test_hours_are_those_of_the_zone_also_when_its_clocks_change() -> None:
    zone = zone_named("Europe/Berlin")
    before, after = 1_774_745_940_000, 1_774_746_000_000  # 2026-03-29, 00:59 and 01:00 UTC

    assert [label(shown_at(time_ms), Dimension.HOUR, zone) for time_ms in (before, after)] == ["01", "03"]


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_a_zone_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match="time zone"):
        zone_named(name)


def test_gini_is_0_when_all_are_shown_alike_and_nearly_1_when_one_is() -> None:
    assert gini(np.full(10, 7)) == pytest.approx(0)
    assert gini(np.array([0] * 9 + [5])) == pytest.approx(0.9)
    assert gini(np.array([1, 2, 3, 4])) == pytest.approx(0.25)
    assert gini(np.zeros(4, np.int64)) is None


def test_items_that_were_never_shown_count_and_items_outside_the_catalogue_do_not() -> None:
    counts = exposure_counts({"a": 3, "gone": 8}, Ids(["a", "b", "c"]))

    assert counts.tolist() == [3, 0, 0]


def test_context_and_shown_are_as_like_as_their_vectors() -> None:
    measure = ContextShown(Ids(["x", "y", "xx"]), np.array([[1, 0], [0, 2], [5, 0]], np.float32))

    def impression(context: tuple[str, ...], shown: tuple[str, ...]) -> Event:
        return Event(
            event_id="e", type=EventType.IMPRESSION, user_id="u", item_ids=shown, context_item_ids=context, time_ms=0
        )

    half = 0.5**0.5
    cosines = measure(
        [
            impression(("x",), ("xx", "xx")),
            impression(("x",), ("xx", "y", "unknown")),
            impression(("x", "y"), ("xx",)),
            impression((), ("x",)),
            impression(("unknown",), ("x",)),
        ]
    )

    assert cosines == [pytest.approx(1), pytest.approx(0.5), pytest.approx(half), None, None]
    assert measure([]) == []


def test_sums_are_kept_by_key_and_group_however_many_keys_there_are() -> None:
    sums: GroupedSums[str] = GroupedSums(2)
    keys = [f"key {number % 40}" for number in range(400)]
    groups = np.arange(400) % GROUPS

    sums.add(keys, groups, np.stack([np.ones(400), np.arange(400.0)], axis=1))

    assert sorted(sums) == sorted(set(keys))
    assert sums.of("key 3").sum(axis=0).tolist() == [10, sum(range(3, 400, 40))]
    assert np.flatnonzero(sums.of("key 3")[:, 0]).tolist() == list(range(3, 400, 40))


def test_users_are_counted_once_to_a_thousandth() -> None:
    users = Distinct()
    hashes = np.array([hash_of(f"user {number}") for number in range(200_000)])

    users.add(hashes)
    users.add(hashes[:50_000])

    assert len(users) == pytest.approx(200_000, rel=1e-3)
