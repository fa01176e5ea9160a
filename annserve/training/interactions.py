"""Who had what, how much and when: interactions read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from annserve.domain.errors import InputError
from annserve.domain.ids import id_problem
from annserve.domain.progress import Progress, no_progress
from annserve.training.bad_rows import BadRows, ReadReport, Sieve
from annserve.training.columns import (
    NO_TIME,
    TimeUnit,
    id_values,
    number_values,
    time_problem,
    time_values,
    value_shown,
)
from annserve.training.readers import Chunk, Column, Format, files_of, format_of, read_chunks
from annserve.training.records import MATRIX_COLUMNS

Number = TypeVar("Number", np.int32, np.int64, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The names of the columns, and what the numbers in the time column count. Matrix Market needs none of them."""

    user: str = "user_id"
    item: str = "item_id"
    weight: str | None = None
    """None gives every interaction the weight 1."""
    time: str | None = None
    time_unit: TimeUnit | None = None
    """Needed where times are numbers: a guess by magnitude would be wrong in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Interactions in the order they were read; the arrays are parallel, ``(n,)``. A pair may occur more than once."""

    user_ids: Sequence[str]
    """Every user with an interaction, once, in an order that is the same whenever the files are."""
    item_ids: Sequence[str]
    """Every item with an interaction, likewise."""
    users: npt.NDArray[np.int32]
    """Positions in `user_ids`."""
    items: npt.NDArray[np.int32]
    """Positions in `item_ids`."""
    weights: npt.NDArray[np.float32]
    """Finite, above 0."""
    times: npt.NDArray[np.int64] | None
    """Milliseconds since 1970-01-01 UTC; None where no time column was named."""
    report: ReadReport

    def __len__(self) -> int:
        return len(self.users)


def read_interactions(
    paths: Path | Sequence[Path],
    *,
    columns: Columns | None = None,
    format_: Format | None = None,
    max_bad_share: float = 0.01,
    progress: Progress = no_progress,
) -> Interactions:
    """Read interactions from files and folders, all with the same columns.

    Ids are text of any script or whole numbers, taken as they are written. A row is bad when an id is absent or
    invalid (`domain.ids`), its weight is not a number above 0 that float32 can hold, or its time cannot be understood;
    bad rows are left out and counted. Memory is 12 bytes an interaction, 8 more with times, plus the ids.

    Args:
        paths: Parquet, CSV, TSV, JSON Lines or Matrix Market, the text formats also compressed; of folders
            `readers.files_of`. A Matrix Market file has a user per matrix row and an item per column, numbered from 1.
        columns: None takes the default names of `Columns`.
        format_: None goes by the suffix of each file.
        max_bad_share: Bad rows allowed, as a share of all rows, 0 to 1.
        progress: Told the bytes read of the bytes to read.

    Raises:
        TooManyBadRowsError: more bad rows than ``max_bad_share``.
        InputError: a file or column cannot be used, or no usable row is left.
    """
    columns = columns or Columns()
    files = [file for path in ([paths] if isinstance(paths, Path) else paths) for file in files_of(path, format_)]
    total_bytes = sum(file.stat().st_size for file in files)
    done_bytes = 0
    collector = Collector()
    for file in files:
        roles = _roles(file, format_ or format_of(file), columns)
        for chunk in read_chunks(file, list(roles.values()), format_):
            collector.add(file, chunk, roles, columns.time_unit)
            progress("reading", done_bytes + chunk.bytes_read, total_bytes)
        done_bytes += file.stat().st_size
    return collector.interactions(max_bad_share)


def _roles(file: Path, format_: Format, columns: Columns) -> dict[str, str]:
    """Return which column of ``file`` holds what."""
    roles = {"user": columns.user, "item": columns.item, "weight": columns.weight, "time": columns.time}
    if format_ is Format.MATRIX_MARKET:
        if columns.time is not None:
            raise InputError(f"{file}: Matrix Market has no times, so there is no column {columns.time!r}", path=file)
        roles = dict(zip(roles, MATRIX_COLUMNS, strict=False))
    return {role: name for role, name in roles.items() if name is not None}


@dataclass(frozen=True, slots=True)
class _ChunkIds:
    codes: npt.NDArray[np.int64]
    """For each row, where in `texts` its id is."""
    texts: Sequence[str]
    positions: npt.NDArray[np.int32]
    """Of each text among the ids met in all chunks; -1 for one not met before."""


class _Ids:
    """The ids of one kind met so far, each with its position."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.positions: dict[str, int] = {}

    def read(self, column: Column, where: str, sieve: Sieve) -> _ChunkIds:
        """Return the ids of a chunk; rows without a valid id are refused."""
        codes, texts = id_values(column, where)
        sieve.refuse(codes < 0, f"no {self.kind} id")
        positions = np.fromiter((self.positions.get(text, -1) for text in texts), np.int32, len(texts))
        # An id that is known was looked at before.
        problems = {code: id_problem(texts[code]) for code in np.flatnonzero(positions < 0).tolist()}
        invalid = [code for code, problem in problems.items() if problem]
        if invalid:
            sieve.refuse(np.isin(codes, invalid), f"invalid {self.kind} id", lambda row: problems[codes[row]] or "")
        return _ChunkIds(codes, texts, positions)

    def keep(self, chunk: _ChunkIds, good: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Return the position of the id of each good row; an id gets one when a good row has it."""
        codes = chunk.codes[good]
        is_new = (np.bincount(codes, minlength=len(chunk.texts)) > 0) & (chunk.positions < 0)
        for code in np.flatnonzero(is_new).tolist():
            chunk.positions[code] = self.positions.setdefault(chunk.texts[code], len(self.positions))
        return chunk.positions[codes]


@dataclass(slots=True)
class Collector:
    """Gathers the good rows of chunk after chunk."""

    user_ids: _Ids = field(default_factory=lambda: _Ids("user"))
    item_ids: _Ids = field(default_factory=lambda: _Ids("item"))
    users: list[npt.NDArray[np.int32]] = field(default_factory=list)
    items: list[npt.NDArray[np.int32]] = field(default_factory=list)
    weights: list[npt.NDArray[np.float32]] = field(default_factory=list)
    times: list[npt.NDArray[np.int64]] = field(default_factory=list)
    bad_rows: BadRows = field(default_factory=BadRows)

    def add(self, file: Path, chunk: Chunk, roles: dict[str, str], unit: TimeUnit | None) -> None:
        """Take the rows of ``chunk``, whose columns are ``roles``: user and item, and maybe weight and time."""
        self.bad_rows.row_count += len(chunk.rows) + len(chunk.broken)
        for row, reason in chunk.broken:
            self.bad_rows.note(file, [row], reason)
        sieve = Sieve(file, chunk.rows, self.bad_rows)
        where = {role: f"{file}: column {name!r}" for role, name in roles.items()}
        columns = dict(zip(roles, chunk.columns, strict=True))
        users = self.user_ids.read(columns["user"], where["user"], sieve)
        items = self.item_ids.read(columns["item"], where["item"], sieve)
        weights = np.ones(len(chunk.rows), np.float32)
        if "weight" in roles:
            weights = _weights(columns["weight"], where["weight"], sieve)
        if "time" in roles:
            times = time_values(columns["time"], where["time"], unit)
            sieve.refuse(times == NO_TIME, "time not understood", lambda row: time_problem(columns["time"], row, unit))
            self.times.append(times[sieve.good])
        self.weights.append(weights[sieve.good])
        self.users.append(self.user_ids.keep(users, sieve.good))
        self.items.append(self.item_ids.keep(items, sieve.good))

    def interactions(self, max_bad_share: float) -> Interactions:
        """Return what was gathered; raises as `read_interactions` does."""
        report = self.bad_rows.report()
        report.check(max_bad_share)
        return Interactions(
            user_ids=list(self.user_ids.positions),
            item_ids=list(self.item_ids.positions),
            users=_joined(self.users),
            items=_joined(self.items),
            weights=_joined(self.weights),
            times=_joined(self.times) if self.times else None,
            report=report,
        )


def _joined(parts: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Return the parts as one, and let go of them: at 20 M rows another column is 80 MB."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _weights(column: Column, where: str, sieve: Sieve) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        weights = number_values(column, where).astype(np.float32)
    sieve.refuse(
        ~(np.isfinite(weights) & (weights > 0)),
        "weight not above 0",
        lambda row: f"must be a number above 0 that float32 can hold, got {value_shown(column, row)}",
    )
    return weights
