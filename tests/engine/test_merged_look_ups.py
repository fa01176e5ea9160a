from __future__ import annotations

import asyncio
import time

import pytest
from engine_catalog import KIND, SCHEMA, TwinCatalog

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError
from annserve.domain.filter import Equals
from annserve.engine.merged_look_ups import IDS_MAX, MergedLookUps

FIELDS = tuple(SCHEMA.fields.values())


@pytest.fixture
async def store() -> TwinCatalog:
    return TwinCatalog({f"item-{number}": {"price": number, "kind": "a"} for number in range(5_000)})


def look_ups_of(store: TwinCatalog) -> MergedLookUps:
    return MergedLookUps(store, Equals(KIND, "a"), FIELDS)  # type: ignore[arg-type]


async def test_what_comes_while_one_is_under_way_goes_out_together_and_everyone_finds_their_own(
    store: TwinCatalog,
) -> None:
    store.gate.clear()
    look_ups = look_ups_of(store)
    asking = [asyncio.ensure_future(look_ups.find([f"item-{number}", "item-0"], NO_DEADLINE)) for number in range(9)]
    while not store.selected:
        await asyncio.sleep(0)
    later = [asyncio.ensure_future(look_ups.find([f"item-{number}"], NO_DEADLINE)) for number in range(9, 12)]
    await asyncio.sleep(0)
    store.gate.set()

    for number, found in enumerate(await asyncio.gather(*asking, *later)):
        assert found.metadata[f"item-{number}"] == {"price": (float(number),), "kind": ("a",)}
    assert len(store.selected) == 2
    assert set(store.selected[1]) == {"item-9", "item-10", "item-11"}
    assert look_ups.idle


async def test_no_call_looks_up_more_than_a_call_may(store: TwinCatalog) -> None:
    look_ups = look_ups_of(store)
    parts = [[f"item-{number}" for number in range(start, start + 900)] for start in range(0, 4_500, 900)]

    found = await asyncio.gather(*(look_ups.find(part, NO_DEADLINE) for part in parts))

    assert all(set(part) <= set(one.metadata) for part, one in zip(parts, found, strict=True))
    assert max(map(len, store.selected)) <= IDS_MAX
    await asyncio.sleep(0)
    assert look_ups.idle


async def test_everyone_learns_of_a_failure_and_the_next_look_up_is_not_harmed(store: TwinCatalog) -> None:
    look_ups = look_ups_of(store)
    store.error = CatalogUnavailableError("gone")
    failed = await asyncio.gather(*(look_ups.find(["item-1"], NO_DEADLINE) for _ in range(3)), return_exceptions=True)
    store.error = None

    assert [type(error) for error in failed] == [CatalogUnavailableError] * 3
    assert "item-1" in (await look_ups.find(["item-1"], NO_DEADLINE)).metadata


async def test_one_who_leaves_at_her_deadline_takes_nothing_from_the_others(store: TwinCatalog) -> None:
    store.gate.clear()
    look_ups = look_ups_of(store)
    patient = asyncio.ensure_future(look_ups.find(["item-1"], NO_DEADLINE))
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError):
        await look_ups.find(["item-2"], Deadline.after(0.02))

    assert time.monotonic() - started < 1.0
    store.gate.set()
    assert "item-1" in (await patient).metadata
