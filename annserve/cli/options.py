"""Options and settings that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import ValidationError

from annserve.domain.errors import InputError, NoSnapshotError
from annserve.domain.value_problems import value_problem
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
    return _settings()


def settings_with(options: Mapping[str, object]) -> Settings:
    """Return the settings once ``options``, by name, are part of the environment, where children inherit them."""
    given = {name: str(value) for name, value in options.items() if value is not None}
    os.environ.update({variable_of(name): value for name, value in given.items()})
    settings.cache_clear()
    return _settings(given)


def variable_of(setting: str) -> str:
    """Return what ``setting`` is called in the environment."""
    return f"ANNSERVE_{setting.upper()}"


def _settings(given: Collection[str] = ()) -> Settings:
    """Return the settings; of what is wrong with them, the names of those ``given`` are those of options."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{_name_of(str(problem['loc'][0]), given)}: {value_problem(problem)}" for problem in error.errors()
        )
        raise InputError(wrong) from None


def _name_of(setting: str, given: Collection[str]) -> str:
    return f"--{setting.replace('_', '-')}" if setting in given else variable_of(setting)


def misspelt() -> list[str]:
    """Return what to say of each variable of the environment that looks like a setting and is none."""
    known = set(map(variable_of, Settings.model_fields))
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
