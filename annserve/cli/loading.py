"""The loader's program: what a loader is made of is imported out of the way of whoever answers calls."""

from __future__ import annotations

from collections.abc import Callable

from annserve.cli.background import NICENESS, in_background


def _imported() -> Callable[[], None]:
    from annserve.cli.snapshot_loading import main

    return main


if __name__ == "__main__":
    in_background(_imported, NICENESS)()
