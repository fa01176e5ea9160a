"""Where training finds what users did: events and histories in MongoDB, or the log of events of an embedded store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from annserve.catalog.config import CatalogConfig
from annserve.catalog.file_events import FileEventStore
from annserve.cli.event_source import event_words_of, known_erased
from annserve.cli.options import settings
from annserve.cli.output import say
from annserve.domain.erasure import Erasure
from annserve.domain.errors import InputError
from annserve.domain.events import EventType
from annserve.domain.progress import Progress
from annserve.settings import Settings
from annserve.training.erased import without_erased
from annserve.training.interactions import Interactions
from annserve.training.outcomes import OutcomeWeights, read_outcomes

CONFIGURED = "events"
"""Stands for wherever the settings say that events are: an address with a password is no option of a command line."""

_OTHERS_TOLD = 5

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="mongodb://…|FILE|events",
        help="Train on what users did: events and histories in MongoDB, or a log of events as the embedded store "
        "writes it. `events`: wherever ANNSERVE_CATALOG and ANNSERVE_EVENTS say.",
    ),
]


def outcome_interactions(address: str, config: Path | None, max_bad_share: float, progress: Progress) -> Interactions:
    """Return the interactions that the store at ``address`` tells of until now, without those of erased users.

    Raises:
        InputError: the address cannot be used, or there is nothing to read.
        CatalogUnavailableError: the store does not answer.
    """
    known = settings()
    weights = outcome_weights_of(known)
    interactions, others, erasures = asyncio.run(
        _read(known, _located(known, address), config, weights, max_bad_share, progress)
    )
    # After what it is about, so that none who was erased meanwhile is missed.
    erased = known_erased()
    erased.add(erasures)
    report = interactions.report
    if report.bad_count:
        say(f"left out {report.bad_count:,} of {report.row_count:,} rows: {report.summary()}")
    if others:
        most = sorted(others.items(), key=lambda other: -other[1])[:_OTHERS_TOLD]
        say("entries of histories without a weight: " + ", ".join(f"{word!r} {count:,}" for word, count in most))
    left = without_erased(interactions, erased)
    if len(left) < len(interactions):
        say(f"left out {len(interactions) - len(left):,} interactions of users who were erased since")
    if not len(left):
        raise InputError("nothing is left to train on: all of it is of users who were erased")
    return left


def outcome_weights_of(known: Settings) -> OutcomeWeights:
    """Return what counts how much: each type of event, and what it is called in histories, unless that is named too."""
    named = {name: float(weight) for name, weight in (pair.split("=") for pair in known.event_weights.split(","))}
    types = {type_.value: type_ for type_ in EventType}
    if {EventType.IMPRESSION.value, EventType.DISLIKE.value} & named.keys():
        raise InputError("ANNSERVE_EVENT_WEIGHTS: what was shown, or disliked, is no taste and has no weight")
    of_types = {types[name]: weight for name, weight in named.items() if name in types and weight > 0}
    words = event_words_of(known)
    of_words: dict[str, float] = {}
    for type_, weight in of_types.items():
        if type_ in words:
            of_words[words[type_]] = max(weight, of_words.get(words[type_], 0.0))
    of_words |= {name: weight for name, weight in named.items() if name not in types}
    return OutcomeWeights(of_types=of_types, of_words={word: weight for word, weight in of_words.items() if weight > 0})


def _located(known: Settings, address: str) -> str:
    if address != CONFIGURED:
        return address
    catalog = "" if known.catalog is None else known.catalog.get_secret_value()
    if _is_mongodb(catalog):
        return catalog
    if not known.events.exists():
        raise InputError(
            f"{known.events}: no events there; name where they are with --from, or ANNSERVE_EVENTS or ANNSERVE_CATALOG"
        )
    return str(known.events)


def _is_mongodb(address: str) -> bool:
    return address.startswith(("mongodb://", "mongodb+srv://"))


async def _read(
    known: Settings,
    address: str,
    config: Path | None,
    weights: OutcomeWeights,
    max_bad_share: float,
    progress: Progress,
) -> tuple[Interactions, Mapping[str, int], Sequence[Erasure]]:
    until_ms = time.time_ns() // 1_000_000
    if not _is_mongodb(address):
        if "://" in address or not Path(address).exists():
            raise InputError(f"--from {address}: must be a mongodb:// address, or a log of events that is there")
        log = FileEventStore(Path(address))
        events = log.read(0, until_ms, tuple(weights.of_types))
        interactions, others = await read_outcomes(
            events, None, weights, until_ms, max_bad_share=max_bad_share, progress=progress
        )
        return interactions, others, ()
    from annserve.catalog.mongo_store import MongoCatalog

    path = config or known.catalog_config
    catalog = MongoCatalog(address, CatalogConfig() if path is None else CatalogConfig.read(path))
    try:
        events = catalog.event_store().read(0, until_ms, tuple(weights.of_types))
        interactions, others = await read_outcomes(
            events, catalog.histories(), weights, until_ms, max_bad_share=max_bad_share, progress=progress
        )
        return interactions, others, await catalog.erasure_store().since(0)
    finally:
        await catalog.close()
