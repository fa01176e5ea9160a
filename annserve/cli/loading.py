"""The loader's program: what a loader is made of is imported out of the way of whoever answers calls."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from annserve.cli.background import LOADING_NICENESS, in_background

SHARED_MODULES: Final = (
    "annserve.cache.shared",
    "annserve.catalog.file_erasures",
    "annserve.catalog.file_events",
    "annserve.catalog.file_store",
    "annserve.cli.event_source",
    "annserve.cli.placement_source",
    "annserve.engine.catalog_recommender",
    "annserve.engine.kept_shown",
    "annserve.engine.outcomes",
    "annserve.engine.plain_recommender",
    "annserve.keeper.erasures",
    "annserve.keeper.fresh_news",
    "annserve.keeper.keeper",
    "annserve.keeper.link_client",
    "annserve.keeper.placement_news",
    "annserve.service.metrics",
    "annserve.service.process_metrics",
    "annserve.supervisor.attendance",
)
"""What workers are made of besides, as far as it may be there before a fork: neither grpc nor pymongo is among it.

Imported once it is shared, and what is left to a worker takes 0.10 to 0.15 s of a processor; all of it took 0.46.
"""


def _imported() -> Callable[[], None]:
    from annserve.cli.snapshot_loading import main

    for name in SHARED_MODULES:
        importlib.import_module(name)
    return main


if __name__ == "__main__":
    in_background(_imported, LOADING_NICENESS)()
