"""What AdminService needs of the rest of an instance, as ports and their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from annserve.placements.problems import Problem
from annserve.placements.recipe import PlacementSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A change from one snapshot to another, ended; times are seconds since 1970."""

    snapshot_id: str
    cause: str = ""
    """One word for why it did not come about, as in `ActivationRefusedError`; empty when it did."""
    problem: str = ""
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """How an instance is; times are seconds since 1970."""

    version: str
    is_serving: bool
    is_draining: bool
    snapshot_id: str | None
    loading_snapshot_id: str | None
    wanted_worker_count: int
    serving_worker_count: int
    started_at: float
    last_swap: Swap | None


class WorkerState(Enum):
    """What a worker does."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that answers calls."""

    slot: int
    pid: int
    state: WorkerState
    snapshot_id: str
    call_count: int
    heartbeat_age_seconds: float


class Instance(Protocol):
    """The supervisor, wherever it is. Each method returns when what it asks for is so.

    All raise InstanceUnavailableError when nobody answers, and InstanceRefusedError when it will not do it.
    """

    async def status(self) -> InstanceStatus:
        """Return how the instance is."""
        ...

    async def workers(self) -> Sequence[Worker]:
        """Return the workers, by slot."""
        ...

    async def activate(self, snapshot_id: str) -> None:
        """Serve a snapshot, which ``CURRENT`` need not name; serving it already is no error.

        Raises:
            ActivationRefusedError: it must not, or cannot, be served; what served before still does.
        """
        ...

    async def reload(self) -> None:
        """Serve the live snapshot with settings read anew; raises as `activate`."""
        ...

    async def scale(self, worker_count: int) -> None:
        """Have so many workers."""
        ...

    async def restart_worker(self, slot: int) -> None:
        """Replace a worker.

        Raises:
            UnknownWorkerError: nobody is in that slot.
        """
        ...

    async def drain(self) -> None:
        """Say in health that calls are not welcome."""
        ...

    async def undrain(self) -> None:
        """Say in health that they are."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsertedItem:
    """An item to recommend from now on: with a vector, or with users who liked it, and not both."""

    item_id: str
    vector: tuple[float, ...] | None
    """Finite, not all 0; whether it is of the snapshot's dimension is for the port to see."""
    liked_by_user_ids: tuple[str, ...]
    popularity: float
    """The popularity prior, at least 0."""


class FreshItems(Protocol):
    """Items that come and go between snapshots, kept for good once a method returns."""

    async def upsert(self, items: Sequence[UpsertedItem]) -> None:
        """Add or replace items of different ids, all or none.

        Raises:
            InvalidArgumentError: a vector is of another dimension, or none of the users has one; the fields are called
                ``items[3].vector`` and ``items[3].liked_by.user_ids``, by place in ``items``.
            CatalogUnavailableError: they cannot be kept now.
        """
        ...

    async def delete(self, item_ids: Sequence[str]) -> None:
        """Take different items out of all answers, whether they are there or not; raises as `upsert`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What the instance's cache holds, and how look-ups in it fared since it was started."""

    entry_count: int
    size_bytes: int
    size_bytes_max: int
    worker_hit_count: int
    instance_hit_count: int
    miss_count: int
    dropped_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotKey:
    """An item that draws much traffic: its share of all questions, and the share of those that the cache answered."""

    item_id: str
    share: float
    hit_ratio: float


class CacheAdmin(Protocol):
    """The answers shared by the instance's workers, and the workers' own."""

    async def stats(self) -> CacheStats:
        """Return what it holds and how it fared."""
        ...

    async def flush(self) -> None:
        """Forget everything, in every worker."""
        ...

    async def hot_keys(self, count: int) -> Sequence[HotKey]:
        """Return the hottest items, hottest first, at most so many."""
        ...


class PlacementsReport(Protocol):
    """What placements there are, and what is wrong with those that are to replace them."""

    @property
    def placements(self) -> PlacementSet:
        """Those that answer."""
        ...

    @property
    def loaded_at(self) -> float | None:
        """Seconds since 1970; None before any."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """Of what was read last; nothing of it is used while there are any."""
        ...


class PlacementAdmin(Protocol):
    """Who follows the placements where they are kept."""

    @property
    def report(self) -> PlacementsReport:
        """How things are."""
        ...

    async def reload(self, *, validate_only: bool = False) -> PlacementsReport:
        """Read them now, and use all of them, or none if anything is wrong.

        Raises:
            InputError, CatalogUnavailableError: they cannot be read.
        """
        ...
