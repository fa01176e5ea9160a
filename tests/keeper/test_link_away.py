"""A keeper that goes and comes back, and workers that do not keep up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from catalog_twin import CHEAP, DEAR, RED, CatalogTwin
from linked import QUICK, Linked, Worker, linked

from annserve.cache.bitmaps import BitmapCache
from annserve.domain.errors import CatalogUnavailableError
from annserve.keeper.frames import Frame, Header, read_frame
from annserve.keeper.link_client import KeeperLink

DOCUMENTS = {f"i{number}": {"price": number, "colour": "red" if number % 2 else "blue"} for number in range(8)}


async def knowing(under_test: Linked) -> Worker:
    """Return the worker once it has used CHEAP and has been sent DEAR, which nobody used."""
    await under_test.settled()
    worker = under_test.workers[0]
    await asyncio.gather(worker.link.build(CHEAP), worker.link.build(DEAR))
    worker.bitmaps.get(CHEAP)
    return worker


async def test_a_new_keeper_reads_again_what_was_used_and_what_changed_meanwhile_is_in_it() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin) as under_test:
        worker = await knowing(under_test)
        old, losses = worker.bitmaps.peek(CHEAP), len(worker.losses)
        await under_test.hub.stop()
        twin.write("i0", None)
        twin.write("i7", {"price": 1})
        await under_test.replace_hub()
        await under_test.until(lambda: worker.link.connected and not worker.bitmaps.stale)
        await under_test.settled()

        assert worker.bitmaps.peek(CHEAP) is not old
        assert CHEAP in worker.bitmaps.leaves()
        under_test.assert_true()
        assert len(worker.losses) > losses


async def test_what_was_known_is_kept_and_stale_as_long_as_keeper_and_catalogue_are_away() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin) as under_test:
        worker = await knowing(under_test)
        known, present = worker.bitmaps.peek(CHEAP), worker.bitmaps.present
        twin.available = False
        twin.write("i0", None)
        await under_test.until(lambda: worker.bitmaps.stale)
        synced_at = worker.bitmaps.synced_at
        await under_test.replace_hub()
        await under_test.until(lambda: worker.link.connected)
        failures = under_test.keeper().counters
        await under_test.until(lambda: failures.build_failures > 8)

        assert (worker.bitmaps.stale, worker.bitmaps.synced_at) == (True, synced_at)
        assert worker.bitmaps.present is present
        assert worker.bitmaps.peek(CHEAP) is known

        twin.available = True
        await under_test.settled()
        under_test.assert_true()


async def test_leaves_that_the_keeper_has_are_not_read_again_for_a_link_that_broke() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin) as under_test:
        worker = await knowing(under_test)
        original = under_test.publication().bitmaps.peek(CHEAP)
        assert original is not None
        asked_at = original.used_at
        worker.bitmaps.get(CHEAP)
        await under_test.until(lambda: original.used_at > asked_at)
        assert worker.link._writer is not None
        worker.link._writer.transport.abort()
        await under_test.until(lambda: not worker.link.connected)
        twin.write("i0", {"price": 9})
        await under_test.settled()

        assert twin.reads.count(CHEAP) == 1
        assert CHEAP in worker.bitmaps.leaves()
        under_test.assert_true()


async def test_the_keeper_rebuilds_what_workers_used_and_sends_it_unasked() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin) as under_test:
        worker = await knowing(under_test)
        losses = len(worker.losses)
        twin.lose_changes()
        twin.documents["i0"] = {"price": 9}  # Nobody will tell of this.
        await under_test.until(
            lambda: len(twin.streams) == 2 and len(worker.losses) > losses and not worker.bitmaps.leaves()
        )
        await under_test.until(lambda: set(worker.bitmaps.leaves()) == {CHEAP, DEAR})
        await under_test.settled()

        under_test.assert_true()


@pytest.mark.parametrize("room_bytes", [0, 1 << 20])
async def test_without_changes_what_workers_use_is_read_again_and_the_rest_is_dropped(room_bytes: int) -> None:
    twin = CatalogTwin(DOCUMENTS)
    twin.tells_changes = False
    settings = replace(QUICK, ttl_seconds=0.05, room_bytes=room_bytes)
    async with linked(twin, settings=settings) as under_test:
        (worker,) = under_test.workers
        await under_test.until(lambda: worker.link.connected and worker.bitmaps.present is not None)
        await asyncio.gather(worker.link.build(CHEAP), worker.link.build(RED))
        twin.write("i0", None)

        def is_renewed() -> bool:
            bitmap = worker.bitmaps.get(CHEAP)
            if bitmap is None:
                worker.link.build(CHEAP, 0.0)  # There was no room to send it unasked.
            return bitmap is not None and 0 not in bitmap.bitmap

        await under_test.until(is_renewed)
        await under_test.until(lambda: RED not in worker.bitmaps.leaves())
        assert twin.reads.count(RED) == 2  # To be asked for is a use.


async def test_a_worker_that_does_not_read_is_cut_off_and_holds_up_nobody() -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        heard: list[int] = []
        under_test.workers[0].link.subscribe("news", lambda header, _: heard.append(header["number"]))
        reader, writer = await asyncio.open_unix_connection(under_test.path, limit=1)
        writer.write(Frame({"do": "hello", "snapshot_id": "s1", "slot": 9}).encoded())
        publication = under_test.publication()
        await under_test.until(lambda: len(publication.subscribers) == 2)
        for number in range(10):
            under_test.hub.broadcast("news", {"number": number}, bytes(1 << 20))
            await under_test.until(partial(heard.__contains__, number))

        await under_test.until(lambda: len(publication.subscribers) == 1)
        assert heard == list(range(10))
        writer.transport.abort()
        del reader


async def test_a_worker_that_speaks_nonsense_is_let_go_and_others_stay(caplog: pytest.LogCaptureFixture) -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        hello = Frame({"do": "hello", "snapshot_id": "s1", "slot": 9}).encoded()
        asks: list[Header] = [
            {"do": "dance"},
            {"do": "build", "ask": 1, "leaf": {"kind": "Or"}, "since": 0, "here": False},
        ]
        for sent in (b"\x00" * 64, struct.pack("<II", 1 << 31, 0), *(hello + Frame(ask).encoded() for ask in asks)):
            reader, writer = await asyncio.open_unix_connection(under_test.path)
            writer.write(sent)
            async with asyncio.timeout(5):
                with contextlib.suppress(EOFError, OSError):
                    while True:
                        await read_frame(reader)
            writer.close()
        assert under_test.workers[0].link.connected
    assert caplog.text.count("is let go") == 4


async def test_a_keeper_that_falls_silent_counts_as_gone() -> None:
    welcomed: list[asyncio.StreamWriter] = []

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(Frame({"do": "welcome", "uses_seconds": 1.0}).encoded())
        welcomed.append(writer)

    with tempfile.TemporaryDirectory() as folder:
        path, bitmaps = Path(folder) / "keeper.sock", BitmapCache()
        async with await asyncio.start_unix_server(welcome, path):
            settings = replace(QUICK, keeper_silence_seconds=0.5, reconnect_seconds=10.0)
            link = KeeperLink(path, "s1", bitmaps, settings=settings)
            link.start()
            async with asyncio.timeout(5):
                while not link.connected:
                    await asyncio.sleep(0)
                with pytest.raises(CatalogUnavailableError):
                    await link.build(CHEAP)
            assert bitmaps.stale
            await link.stop()
            for writer in welcomed:
                writer.close()
        assert len(welcomed) == 1


def test_frames_are_lengths_a_header_and_bytes() -> None:
    header, payload = json.dumps({"do": "x"}, separators=(",", ":")).encode(), b"\x00\x01"

    assert Frame({"do": "x"}, payload).encoded() == struct.pack("<II", len(header), 2) + header + payload
