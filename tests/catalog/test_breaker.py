from __future__ import annotations

import asyncio
import contextlib

from annserve.catalog.breaker import Breaker


class Patient:
    """What is probed: it gives the answers put into the queue."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bool] = asyncio.Queue()
        self.probes = 0
        self.under_way = 0
        self.most_under_way = 0

    async def probe(self) -> bool:
        self.probes += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self.answers.get()
        finally:
            self.under_way -= 1


async def closed(breaker: Breaker) -> None:
    async with asyncio.timeout(5):
        while breaker.is_open:
            await asyncio.sleep(0)


async def test_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    breaker = Breaker(Patient().probe, failures_max=3)
    for _ in range(2):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.openings == 0

    for _ in range(3):
        breaker.failed()

    assert breaker.is_open
    await breaker.close()


async def test_one_silence_opens_it_once_however_many_calls_were_silent() -> None:
    breaker = Breaker(Patient().probe)
    for _ in range(4):
        breaker.open()

    assert breaker.is_open
    assert breaker.openings == 1
    await breaker.close()


async def test_probes_come_one_at_a_time_until_one_is_answered() -> None:
    patient = Patient()
    breaker = Breaker(patient.probe, probe_every_seconds=0)
    breaker.open()
    for answer in (False, False, True):
        patient.answers.put_nowait(answer)

    await closed(breaker)

    assert patient.probes == 3
    assert patient.most_under_way == 1


async def test_after_closing_it_takes_as_many_failures_to_open_again() -> None:
    patient = Patient()
    breaker = Breaker(patient.probe, failures_max=2, probe_every_seconds=0)
    breaker.failed()
    breaker.failed()
    patient.answers.put_nowait(True)
    await closed(breaker)

    breaker.failed()
    assert breaker.openings == 1
    breaker.failed()

    assert breaker.openings == 2
    await breaker.close()
    assert not breaker.is_open


async def test_closing_ends_the_probing_although_the_driver_swallows_it() -> None:
    probing = asyncio.Event()

    async def deaf() -> bool:
        probing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return False

    breaker = Breaker(deaf, probe_every_seconds=0.01)
    breaker.open()
    await probing.wait()

    async with asyncio.timeout(5):
        await breaker.close()
