from __future__ import annotations

import os

from annserve.cli.background import in_background


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_thread_stands_back_behind_whoever_started_it_who_does_not() -> None:
    before = niceness()

    assert in_background(lambda: in_background(niceness, 2), 3) == min(before + 5, 19)
    assert niceness() == before
