"""What `AdminClient` returns, and what it sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from annserve_client._gen import admin_pb2 as messages
from annserve_client._gen import admin_service_pb2 as service_messages
from annserve_client.mistakes import explaining, ids_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSwap:
    """A change from one snapshot to another, ended."""

    snapshot_id: str
    succeeded: bool
    cause: str
    """Why it did not, in one word; empty when it did."""
    problem: str
    end_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """How an instance is."""

    version: str
    serving: bool
    """Whether health says SERVING."""
    draining: bool
    snapshot_id: str | None
    loading_snapshot_id: str | None
    wanted_worker_count: int
    serving_worker_count: int
    start_time: datetime
    last_swap: SnapshotSwap | None


class WorkerState(Enum):
    """What a worker does."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    UNKNOWN = "unknown"
    """Something that this client is too old to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that answers calls."""

    slot: int
    pid: int
    state: WorkerState
    snapshot_id: str
    call_count: int
    heartbeat_age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot in the instance's folder; counts are None where `problem` says why."""

    snapshot_id: str
    live: bool
    """Whether it starts next time."""
    serving: bool
    """Whether it answers now."""
    item_count: int | None
    user_count: int | None
    dimension: int | None
    trainer: str | None
    size_bytes: int | None
    create_time: datetime | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedUser:
    """What was forgotten of a user."""

    history_count: int
    """Entries of her history."""
    event_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What the cache holds, and how look-ups fared since the instance was started."""

    entry_count: int
    size_bytes: int
    size_bytes_max: int
    worker_hit_count: int
    instance_hit_count: int
    miss_count: int
    dropped_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotKey:
    """An item that draws much traffic."""

    item_id: str
    share: float
    """Of all that was asked about items lately, 0 to 1."""
    hit_ratio: float
    """The share of those calls that the cache answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshItem:
    """An item to recommend from now on: with a `vector`, or with users who liked it."""

    item_id: str
    vector: Sequence[float] | None = None
    liked_by_user_ids: Sequence[str] = ()
    popularity: float | None = None
    """The popularity prior, at least 0; 0 unless set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Something a user did with an item."""

    item_id: str
    event: str = "viewed"
    time: datetime | None = None
    """When, with a time zone; now unless set."""


_STATES = {
    messages.WORKER_STATE_STARTING: WorkerState.STARTING,
    messages.WORKER_STATE_SERVING: WorkerState.SERVING,
    messages.WORKER_STATE_DRAINING: WorkerState.DRAINING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A placement that answers."""

    name: str
    version: str
    """Names the content of its file."""
    description: str
    modes: tuple[str, ...]
    """Which questions it may ask: ``similar``, ``personalize``, ``related``."""
    experiment: str
    """Empty without one."""
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementProblem:
    """Something that is wrong with a placement."""

    file: str
    line: int
    """From 1 on, as `column`."""
    column: int
    field: str
    """The key, for example ``boosts[0].when``; empty where it is the file as a whole."""
    description: str
    """What is wrong, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementList:
    """The placements of an instance."""

    placements: list[Placement]
    load_time: datetime | None
    """When this set of them was first used; None before any, and where it was not asked for."""
    problems: list[PlacementProblem]
    """What is wrong with what was read last; empty when it is what answers."""


def placement_list_of(
    message: service_messages.ListPlacementsResponse | service_messages.ReloadPlacementsResponse,
) -> PlacementList:
    """Return what ``message`` says."""
    load_time: datetime | None = None
    if isinstance(message, service_messages.ListPlacementsResponse) and message.HasField("load_time"):
        load_time = message.load_time.ToDatetime(UTC)
    return PlacementList(
        placements=[
            Placement(
                name=placement.name,
                version=placement.version,
                description=placement.description,
                modes=tuple(placement.modes),
                experiment=placement.experiment,
                variants=tuple(placement.variants),
            )
            for placement in message.placements
        ],
        load_time=load_time,
        problems=[
            PlacementProblem(
                file=problem.file,
                line=problem.line,
                column=problem.column,
                field=problem.field,
                description=problem.description,
            )
            for problem in message.problems
        ],
    )


def status_of(message: messages.InstanceStatus) -> InstanceStatus:
    """Return what ``message`` says."""
    return InstanceStatus(
        version=message.version,
        serving=message.serving,
        draining=message.draining,
        snapshot_id=message.snapshot_id or None,
        loading_snapshot_id=message.loading_snapshot_id or None,
        wanted_worker_count=message.wanted_worker_count,
        serving_worker_count=message.serving_worker_count,
        start_time=message.start_time.ToDatetime(UTC),
        last_swap=_swap_of(message.last_swap) if message.HasField("last_swap") else None,
    )


def _swap_of(message: messages.SnapshotSwap) -> SnapshotSwap:
    return SnapshotSwap(
        snapshot_id=message.snapshot_id,
        succeeded=message.succeeded,
        cause=message.cause,
        problem=message.problem,
        end_time=message.end_time.ToDatetime(UTC),
    )


def worker_of(message: messages.Worker) -> Worker:
    """Return what ``message`` says."""
    return Worker(
        slot=message.slot,
        pid=message.pid,
        state=_STATES.get(message.state, WorkerState.UNKNOWN),
        snapshot_id=message.snapshot_id,
        call_count=message.call_count,
        heartbeat_age_seconds=message.heartbeat_age.ToNanoseconds() / 1e9,
    )


def snapshot_of(message: messages.Snapshot) -> Snapshot:
    """Return what ``message`` says."""
    known = not message.problem
    return Snapshot(
        snapshot_id=message.snapshot_id,
        live=message.live,
        serving=message.serving,
        item_count=message.item_count if known else None,
        user_count=message.user_count if known else None,
        dimension=message.dimension if known else None,
        trainer=message.trainer if known else None,
        size_bytes=message.size_bytes if known else None,
        create_time=message.create_time.ToDatetime(UTC) if known else None,
        problem=message.problem or None,
    )


def stats_of(message: messages.CacheStats) -> CacheStats:
    """Return what ``message`` says."""
    return CacheStats(
        entry_count=message.entry_count,
        size_bytes=message.size_bytes,
        size_bytes_max=message.size_bytes_max,
        worker_hit_count=message.worker_hit_count,
        instance_hit_count=message.instance_hit_count,
        miss_count=message.miss_count,
        dropped_count=message.dropped_count,
    )


def hot_key_of(message: messages.HotKey) -> HotKey:
    """Return what ``message`` says."""
    return HotKey(item_id=message.item_id, share=message.share, hit_ratio=message.hit_ratio)


@explaining
def item_message(item: FreshItem) -> messages.FreshItem:
    """Return ``item`` as a message.

    Raises:
        TypeError: a value is not of the type that the wire can hold.
        ValueError: it has both a vector and users.
    """
    if item.vector is not None and item.liked_by_user_ids:
        raise ValueError(f"{item.item_id!r}: give a vector, or users who liked it, not both")
    message = messages.FreshItem(item_id=item.item_id, popularity=item.popularity)
    if item.vector is not None:
        message.vector.values.extend(item.vector)
    elif item.liked_by_user_ids:
        message.liked_by.user_ids.extend(ids_of(item.liked_by_user_ids))
    return message


@explaining
def entry_message(entry: HistoryEntry) -> messages.HistoryEntry:
    """Return ``entry`` as a message.

    Raises:
        ValueError: its time has no time zone.
    """
    message = messages.HistoryEntry(item_id=entry.item_id, event=entry.event)
    if entry.time is not None:
        if entry.time.tzinfo is None:
            raise ValueError(f"{entry.time} has no time zone: which one does it mean?")
        message.time.FromDatetime(entry.time)
    return message
