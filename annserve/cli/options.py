"""Options and settings that several commands share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from annserve.domain.errors import InputError, NoSnapshotError
from annserve.settings import Settings
from annserve.snapshot.store import SnapshotStore

SnapshotsOption = Annotated[
    Path | None,
    typer.Option("--snapshots", metavar="FOLDER", help="Where snapshots are kept. [env: ANNSERVE_SNAPSHOTS]"),
]


@cache
def settings() -> Settings:
    """Return the settings of this process, from its environment."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"ANNSERVE_{str(problem['loc'][0]).upper()}: {problem['msg']}, got {problem['input']!r}"
            for problem in error.errors()
        )
        raise InputError(wrong) from None


def open_store(folder: Path | None) -> SnapshotStore:
    """Return the store in ``folder``, or the one that the settings name."""
    return SnapshotStore(folder if folder is not None else settings().snapshots)


def live_id(store: SnapshotStore) -> str:
    """Return the id of the live snapshot.

    Raises:
        NoSnapshotError: there is none; the message says how to get one.
    """
    snapshot_id = store.current_id()
    if snapshot_id is None:
        raise NoSnapshotError(
            f"no live snapshot in {store.root}: `annserve train --demo` makes one of the bundled data", root=store.root
        )
    return snapshot_id
