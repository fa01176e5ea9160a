from __future__ import annotations

import time

from engine_catalog import KIND, PRICE
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.domain.filter import And, Equals, Filter, Leaf, Not, Or, canonical
from annserve.domain.query import CatalogUse
from annserve.engine.filters import Filters

COUNT = 40
LEAVES: list[Leaf] = [Equals(KIND, kind) for kind in "abcd"]
ROWS = st.sets(st.integers(0, COUNT - 1))
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=8,
)


def put(cache: BitmapCache, leaf: Leaf | None, rows: set[int]) -> None:
    cache.put(LeafBitmap(leaf=leaf, bitmap=BitMap(rows), read_at=time.monotonic()))


def all_in(rows: BitMap) -> bool:
    return len(rows) == COUNT


def expected(filter_: Filter, passing: dict[Leaf, set[int]], present: set[int]) -> set[int]:
    match filter_:
        case And(filters):
            return set.intersection(*(expected(part, passing, present) for part in filters))
        case Or(filters):
            return set.union(*(expected(part, passing, present) for part in filters))
        case Not(inner):
            return present - expected(inner, passing, present)
        case leaf:
            return passing[leaf] & present


@given(filter_=FILTERS, present=ROWS, rows=st.lists(ROWS, min_size=4, max_size=4), known=st.sets(st.integers(-1, 3)))
def test_bounds_hold_what_passes_and_meet_when_every_leaf_is_known(
    filter_: Filter, present: set[int], rows: list[set[int]], known: set[int]
) -> None:
    filter_ = canonical(filter_)
    passing = {leaf: one & present for leaf, one in zip(LEAVES, rows, strict=True)}
    cache = BitmapCache()
    for number in known:
        put(cache, None if number < 0 else LEAVES[number], present if number < 0 else passing[LEAVES[number]])

    resolved = Filters(cache, COUNT, all_in).resolve(filter_, 60.0, CatalogUse())

    truth = expected(filter_, passing, present)
    possible = set(range(COUNT)) if resolved.possible is None else set(resolved.possible.bitmap)
    assert set(resolved.certain) <= truth <= possible
    if len(known) == 5:
        assert not resolved.missing
    if not resolved.missing:
        assert set(resolved.certain) == truth == possible


def test_a_restriction_is_kept_until_a_leaf_of_it_changes_and_does_not_change_with_it() -> None:
    cache, use = BitmapCache(), CatalogUse()
    put(cache, LEAVES[0], {1, 2, 3})
    put(cache, LEAVES[1], {2, 3, 4})
    filters = Filters(cache, COUNT, all_in)
    both = And((LEAVES[0], LEAVES[1]))

    first = filters.resolve(both, 60.0, use).possible
    again = filters.resolve(both, 60.0, use).possible
    cache.flip(LEAVES[1], 2, passes=False)
    after = filters.resolve(both, 60.0, use).possible

    assert again is first
    assert first is not None
    assert after is not None
    assert (set(first.bitmap), set(after.bitmap)) == ({2, 3}, {3})


def test_a_leaf_older_than_allowed_is_missing() -> None:
    cache = BitmapCache()
    cache.put(LeafBitmap(leaf=LEAVES[0], bitmap=BitMap([1]), read_at=time.monotonic() - 10))
    filters = Filters(cache, COUNT, all_in)

    assert filters.resolve(LEAVES[0], 5.0, CatalogUse()).missing == (LEAVES[0],)
    fresh = filters.resolve(LEAVES[0], 20.0, CatalogUse())
    assert not fresh.missing
    assert fresh.age_seconds is not None
    assert 10 <= fresh.age_seconds < 20

    cache.synced_at = time.monotonic()
    assert not filters.resolve(LEAVES[0], 5.0, CatalogUse()).missing


def test_without_a_filter_only_what_the_catalogue_lacks_is_left_out() -> None:
    cache = BitmapCache()
    filters = Filters(cache, COUNT, all_in)
    assert filters.open().possible is None

    put(cache, None, set(range(COUNT)))
    assert filters.open().possible is None

    put(cache, None, set(range(COUNT - 1)))
    restriction = filters.open().possible
    assert restriction is not None
    assert len(restriction) == COUNT - 1


def test_fields_of_one_path_and_type_share_their_bitmaps_and_others_do_not() -> None:
    cache = BitmapCache()
    put(cache, Equals(PRICE, 1.0), {1})

    assert not Filters(cache, COUNT, all_in).resolve(Equals(PRICE, 1.0), 60.0, CatalogUse()).missing
    assert Filters(cache, COUNT, all_in).resolve(Equals(KIND, "1.0"), 60.0, CatalogUse()).missing
