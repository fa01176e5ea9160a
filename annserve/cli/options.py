"""Options and settings that several commands share."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import ValidationError

from annserve.domain.errors import InputError, NoSnapshotError
from annserve.settings import Settings

if TYPE_CHECKING:
    from annserve.snapshot.store import SnapshotStore

SnapshotsOption = Annotated[
    Path | None,
    typer.Option("--snapshots", metavar="FOLDER", help="Where snapshots are kept. [env: ANNSERVE_SNAPSHOTS]"),
]

_OF_KUBERNETES: Final = re.compile(r"ANNSERVE_(SERVICE|PORT)(_|$)")


@cache
def settings() -> Settings:
    """Return the settings of this process, from its environment."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"ANNSERVE_{str(problem['loc'][0]).upper()}: {_problem_of(problem)}, got {problem['input']!r}"
            for problem in error.errors()
        )
        raise InputError(wrong) from None


def _problem_of(problem: Any) -> str:
    """Return what is wrong with a setting; an expression for texts says it to nobody."""
    if problem["type"] == "string_pattern_mismatch" and str(problem["loc"][0]).endswith("address"):
        return "the form is host:port, for example 127.0.0.1:50051"
    return str(problem["msg"])


def misspelt() -> list[str]:
    """Return what to say of each variable of the environment that looks like a setting and is none."""
    known = {f"ANNSERVE_{name.upper()}" for name in Settings.model_fields}
    # Kubernetes tells pods of a service called annserve by such names.
    names = (name for name in os.environ if name.startswith("ANNSERVE_") and not _OF_KUBERNETES.match(name))
    return [
        f"{name} is no setting" + (f"; {near[0]} is" if (near := get_close_matches(name, known, 1)) else "")
        for name in sorted(names)
        if name not in known
    ]


def open_store(folder: Path | None) -> SnapshotStore:
    """Return the store in ``folder``, or the one that the settings name."""
    from annserve.snapshot.store import SnapshotStore

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
