from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from annserve.domain.deadline import NO_DEADLINE
from annserve.engine.workbench import FALLBACK_US, LOOP_US, Workbench
from annserve.search.index import LongScanError


@pytest.mark.parametrize(("estimated_us", "is_quick"), [(LOOP_US, True), (LOOP_US + 1, False)])
async def test_quick_work_is_done_on_the_loop_and_long_work_in_a_thread(estimated_us: float, is_quick: bool) -> None:
    seen: list[tuple[bool, float]] = []

    def work(fallback_us: float) -> str:
        seen.append((threading.current_thread() is threading.main_thread(), fallback_us))
        return "done"

    with ThreadPoolExecutor(1) as executor:
        assert await Workbench(executor).run(estimated_us, work, NO_DEADLINE) == "done"

    assert seen == [(True, FALLBACK_US) if is_quick else (False, math.inf)]


async def test_quick_work_that_meets_a_long_scan_is_done_again_in_a_thread() -> None:
    on_loop: list[bool] = []

    def work(fallback_us: float) -> str:
        on_loop.append(threading.current_thread() is threading.main_thread())
        if fallback_us < math.inf:
            raise LongScanError
        return "done"

    with ThreadPoolExecutor(1) as executor:
        assert await Workbench(executor).run(10.0, work, NO_DEADLINE) == "done"

    assert on_loop == [True, False]
