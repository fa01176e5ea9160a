from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import Equals, Field, FieldType, In, Leaf

COLOUR = Field(name="colour", type=FieldType.STRING, path="colour")
RED, BLUE, GREEN = (Equals(COLOUR, colour) for colour in ("red", "blue", "green"))


def bitmap_of(leaf: Leaf | None, *rows: int, read_at: float = 0.0) -> LeafBitmap:
    return LeafBitmap(leaf=leaf, bitmap=BitMap(rows), read_at=read_at)


def filled(bytes_max: int, *leaves: Leaf) -> BitmapCache:
    cache = BitmapCache(bytes_max)
    for leaf in leaves:
        cache.put(bitmap_of(leaf, 1))
    return cache


def test_an_equal_leaf_finds_the_bitmap() -> None:
    cache = filled(1 << 20, RED)

    found = cache.get(Equals(COLOUR, "red"))

    assert found is not None
    assert set(found.bitmap) == {1}
    assert cache.get(BLUE) is None


def test_the_leaf_used_longest_ago_gives_way_and_flips_and_peeks_are_no_use() -> None:
    room = 5 * filled(1 << 20, RED).size_bytes // 2
    cache = filled(room, RED, BLUE)
    cache.get(RED)
    cache.flip(BLUE, 7, passes=True)
    cache.peek(BLUE)

    cache.put(bitmap_of(GREEN, 1))

    assert set(cache.leaves()) == {RED, GREEN}
    assert cache.size_bytes <= room


def test_a_bitmap_larger_than_the_cache_is_not_kept_and_takes_the_old_one_along() -> None:
    cache = filled(3_000, RED)

    cache.put(bitmap_of(RED, *range(0, 100_000, 3)))

    assert cache.leaves() == ()


def test_a_leaf_that_flips_make_large_is_accounted_for() -> None:
    cache = filled(1 << 20, RED)

    for row in range(0, 30_000, 3):
        cache.flip(RED, row, passes=True)

    assert cache.size_bytes > 8_000


@given(st.lists(st.tuples(st.sampled_from([RED, None]), st.integers(0, 20), st.booleans())))
def test_flips_say_whether_they_changed_anything_and_every_change_has_a_version_of_its_own(
    flips: list[tuple[Leaf | None, int, bool]],
) -> None:
    cache = BitmapCache()
    expected: dict[Leaf | None, set[int]] = {RED: {1, 2, 3}, None: {1, 2, 3}}
    for kept in expected:
        cache.put(bitmap_of(kept, 1, 2, 3))
    versions = {found.version for leaf in expected if (found := cache.peek(leaf)) is not None}
    assert len(versions) == 2

    for leaf, row, passes in flips:
        found = cache.peek(leaf)
        assert found is not None
        before = found.version
        changes = passes != (row in expected[leaf])

        assert cache.flip(leaf, row, passes) == changes

        (expected[leaf].add if passes else expected[leaf].discard)(row)
        assert set(found.bitmap) == expected[leaf]
        assert (found.version > max(versions)) if changes else (found.version == before)
        versions.add(found.version)


def test_a_rebuild_has_a_larger_version() -> None:
    cache = filled(1 << 20, RED)
    before = cache.get(RED)
    cache.put(bitmap_of(RED, 1))
    after = cache.get(RED)

    assert before is not None
    assert after is not None
    assert after.version > before.version


def test_flipping_a_leaf_that_is_not_here_does_nothing() -> None:
    cache = BitmapCache()

    assert not cache.flip(RED, 1, passes=True)
    assert not cache.flip(None, 1, passes=True)
    assert cache.present is None


def test_clearing_forgets_leaves_and_freshness_and_keeps_present_with_gaps() -> None:
    cache = filled(1 << 20, RED)
    cache.put(bitmap_of(None, 1))
    cache.synced_at = 5.0

    cache.clear()

    assert (cache.leaves(), cache.synced_at) == ((), -math.inf)
    assert cache.present is not None
    assert cache.present.has_gaps


def test_what_is_not_told_of_changes_is_as_old_as_it_was_read() -> None:
    cache = BitmapCache()
    kept, replaced = (LeafBitmap(leaf=RED, bitmap=BitMap([1]), read_at=1.0) for _ in range(2))
    present = LeafBitmap(leaf=None, bitmap=BitMap([1]), read_at=2.0)
    cache.put(replaced)
    cache.put(kept)
    cache.put(present)
    cache.synced_at = 9.0

    assert [cache.age_seconds(bitmap, 10.0) for bitmap in (kept, replaced, present)] == [1.0, 9.0, 1.0]
    cache.clear()
    cache.synced_at = 9.0
    assert cache.age_seconds(present, 10.0) == 8.0


def test_the_values_of_a_leaf_count_towards_the_bound() -> None:
    cache = BitmapCache(bytes_max=1 << 20)
    for number in range(100):
        values = tuple(f"{number}-{value}-{'x' * 250}" for value in range(200))
        cache.put(LeafBitmap(leaf=In(COLOUR, values), bitmap=BitMap([1]), read_at=0.0))

    assert len(cache) < 20


@pytest.mark.parametrize(
    ("read_at", "synced_at", "age"), [(10.0, -math.inf, 5.0), (10.0, 14.0, 1.0), (14.5, 14.0, 0.5)]
)
def test_a_bitmap_is_as_old_as_its_reading_or_the_last_moment_all_changes_were_known(
    read_at: float, synced_at: float, age: float
) -> None:
    cache = BitmapCache()
    bitmap = bitmap_of(RED, read_at=read_at)
    cache.put(bitmap)
    cache.synced_at = synced_at

    assert cache.age_seconds(bitmap, now=15.0) == age
