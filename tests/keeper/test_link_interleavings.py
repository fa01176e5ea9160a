"""Whatever happens in whatever order: a worker's bitmap is what the keeper's of that version was, and none lies."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from catalog_twin import LEAVES, CatalogTwin, Rows
from linked import Linked, linked

from annserve.cache.bitmaps import LeafBitmap
from annserve.domain.catalog import Document
from annserve.domain.errors import AnnserveError
from annserve.domain.filter import Leaf
from annserve.keeper.publication import Publication
from annserve.keeper.settings import KeeperSettings

SEEDS = range(150)
OPERATIONS_EACH = 100
CATALOGUE = {"write": 30, "lose": 1, "flood": 2, "down": 1, "up": 3, "hold reads": 1, "read on": 4}
WORKERS = {"ask": 14, "step": 40, "deaf": 3, "hear again": 6, "cut": 2, "keeper dies": 1, "join": 1}
WEIGHTS = CATALOGUE | WORKERS
ITEMS = [f"i{number}" for number in range(11)]
"""More than have a row."""
ROW_COUNT = 8
# Every step gives the loop back, so that whatever can fall between two steps does.
RESTLESS = KeeperSettings(
    retry_seconds=0.0,
    slice_seconds=0.0,
    flood_changes=8,
    builds_at_once=2,
    reconnect_seconds=0.0,
    beat_seconds=0.001,
    uses_seconds=0.001,
)
ROOM_FOR_TWO = 2_200


class Record:
    """Every content that a bitmap of the keeper had, and what was there when all changes were told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[int, tuple[Leaf | None, frozenset[int]]] = {}
        self.synced: dict[float, dict[Leaf | None, int]] = {}
        replaced, flipped, state_changed = Publication.replaced, Publication.flipped, Publication.state_changed

        def note(publication: Publication, leaf: Leaf | None) -> None:
            bitmap = publication.bitmaps.peek(leaf)
            assert bitmap is not None
            assert bitmap.version not in self.contents
            self.contents[bitmap.version] = (leaf, frozenset(bitmap.bitmap))

        def on_replaced(publication: Publication, leaf: Leaf | None) -> None:
            note(publication, leaf)
            replaced(publication, leaf)

        def on_flipped(publication: Publication, leaf: Leaf | None, row: int, passes: bool, version: int) -> None:
            note(publication, leaf)
            flipped(publication, leaf, row, passes, version)

        def on_state(publication: Publication) -> None:
            if hasattr(publication, "bitmaps"):
                bitmaps = publication.bitmaps
                kept = {leaf: bitmaps.peek(leaf) for leaf in (None, *bitmaps.leaves())}
                versions = {leaf: bitmap.version for leaf, bitmap in kept.items() if bitmap is not None}
                self.synced.setdefault(bitmaps.synced_at, versions)
            state_changed(publication)

        monkeypatch.setattr(Publication, "replaced", on_replaced)
        monkeypatch.setattr(Publication, "flipped", on_flipped)
        monkeypatch.setattr(Publication, "state_changed", on_state)

    def check(self, under_test: Linked, seen: Counter[str]) -> None:
        for worker in under_test.workers:
            synced_at = worker.bitmaps.synced_at
            for leaf in (None, *worker.bitmaps.leaves()):
                copy = worker.bitmaps.peek(leaf)
                if copy is not None:
                    assert self.contents[copy.version] == (leaf, frozenset(copy.bitmap))
                    if not math.isinf(synced_at):
                        assert copy.version >= self.synced[synced_at].get(leaf, 0)
                    seen["copies looked at"] += 1


def test_every_copy_is_what_its_original_was_and_in_the_end_what_a_fresh_evaluation_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[str] = Counter()
    record = Record(monkeypatch)
    for seed in SEEDS:
        record.contents.clear()
        record.synced.clear()
        asyncio.run(_play(seed, record, seen))

    print(dict(seen))  # noqa: T201  (the figures of the run)
    assert seen["bitmaps compared"] > 3 * len(SEEDS)
    assert min(seen[name] for name in ("resyncs", "floods", "losses", "refused", "answered")) > len(SEEDS) // 4, seen


async def _play(seed: int, record: Record, seen: Counter[str]) -> None:
    chance = random.Random(seed)
    documents = {item_id: document for item_id in ITEMS if (document := _document(chance)) is not None}
    twin = CatalogTwin(documents)
    twin.steps_a_chunk = lambda: chance.choice([1, 1, 2, 12])
    bytes_max = chance.choice([1 << 20, ROOM_FOR_TWO])
    settings = replace(RESTLESS, room_bytes=chance.choice([0, 1 << 20]))
    async with linked(twin, Rows.numbered(ROW_COUNT), settings, workers=2, bytes_max=bytes_max) as under_test:
        for operation in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=OPERATIONS_EACH):
            await _do(operation, under_test, chance, seen)
            record.check(under_test, seen)
        twin.available = True
        twin.gate.set()
        _hear_again(under_test)
        await under_test.settled()

        under_test.assert_true()
        record.check(under_test, seen)
        for worker in under_test.workers:
            seen["bitmaps compared"] += 1 + len(worker.bitmaps)
            seen["losses"] += len(worker.losses) - 1
        for name in ("resyncs", "floods", "flips"):
            seen[name] += getattr(under_test.keeper().counters, name)


async def _do(operation: str, under_test: Linked, chance: random.Random, seen: Counter[str]) -> None:
    twin, worker = under_test.twin, chance.choice(under_test.workers)
    match operation:
        case "write":
            twin.write(chance.choice(ITEMS), _document(chance))
        case "ask":
            leaf = chance.choice(LEAVES)
            if worker.bitmaps.get(leaf) is None or chance.random() < 0.1:
                build = worker.link.build(leaf, chance.choice([0.0, math.inf]))
                build.add_done_callback(lambda done: _judge(done, leaf, seen))
        case "step":
            for _ in range(chance.randint(1, 6)):
                await asyncio.sleep(0)
        case "lose":
            twin.lose_changes()
            for item_id in ITEMS:  # Of this nobody tells.
                twin.documents[item_id] = {"price": chance.randint(1, 10)}
        case "flood":
            for _ in range(60):
                twin.write(chance.choice(ITEMS), _document(chance))
        case "down" | "up":
            twin.available = operation == "up"
        case "hold reads" | "read on":
            (twin.gate.set if operation == "read on" else twin.gate.clear)()
        case "deaf":
            if worker.link._writer is not None:
                worker.link._writer.transport.pause_reading()  # type: ignore[attr-defined]
        case "hear again":
            _hear_again(under_test)
        case "cut":
            if worker.link._writer is not None:
                worker.link._writer.transport.abort()
        case "keeper dies":
            await under_test.replace_hub()
        case "join":
            await under_test.join(bytes_max=chance.choice([1 << 20, ROOM_FOR_TWO]))


def _judge(done: asyncio.Future[LeafBitmap], leaf: Leaf, seen: Counter[str]) -> None:
    if not done.cancelled():
        error = done.exception()
        assert error is None or isinstance(error, AnnserveError), leaf
        seen["answered" if error is None else "refused"] += 1


def _hear_again(under_test: Linked) -> None:
    for worker in under_test.workers:
        if worker.link._writer is not None and not worker.link._writer.transport.is_closing():
            worker.link._writer.transport.resume_reading()  # type: ignore[attr-defined]


def _document(chance: random.Random) -> Document | None:
    if chance.random() < 0.2:
        return None
    document = {"price": chance.choice([1, 5, 6.5, 9, "dear", None]), "colour": chance.choice(["red", "blue", 1])}
    return {name: value for name, value in document.items() if chance.random() < 0.8}
