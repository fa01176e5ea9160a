"""Messages of AdminService to values and back. What a request can get wrong by itself is found here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from annserve.domain.catalog import HistoryEntry
from annserve.domain.ids import id_problem
from annserve.service import limits
from annserve.service.admin import CacheStats, HotKey, InstanceStatus, Swap, UpsertedItem, Worker, WorkerState
from annserve.service.checks import Checks
from annserve.service.limits import Limit
from annserve.snapshot.store import SnapshotInfo
from annserve.v1 import admin_pb2 as messages
from annserve.v1 import admin_service_pb2 as service_messages

ITEMS: Final = Limit("UpsertItemsRequest.items", 1, 1_000, counted="entries")
ITEM_IDS: Final = Limit("DeleteItemsRequest.item_ids", 1, 1_000, counted="entries")
USER_IDS: Final = Limit("LikedBy.user_ids", 1, 1_000, counted="entries")
VALUES: Final = Limit("Vector.values", 1, 65_536, counted="entries")
POPULARITY: Final = Limit("FreshItem.popularity", 0, 1_000_000)
ENTRIES: Final = Limit("AppendHistoryRequest.entries", 1, 1_000, counted="entries")
EVENT_BYTES: Final = Limit("HistoryEntry.event", 0, 64, counted="bytes")
SLOT: Final = Limit("RestartWorkerRequest.slot", 0, 2**31 - 1)
WORKERS: Final = Limit("ScaleWorkersRequest.worker_count", 1, 64)
HOT_KEYS: Final = Limit("GetHotKeysRequest.page_size", 0, 1_000)
HOT_KEYS_DEFAULT: Final = 20

WORKER_STATES: Final = {
    WorkerState.STARTING: messages.WORKER_STATE_STARTING,
    WorkerState.SERVING: messages.WORKER_STATE_SERVING,
    WorkerState.DRAINING: messages.WORKER_STATE_DRAINING,
}


def whole_number(field: str, value: int, limit: Limit) -> int:
    """Return ``value``.

    Raises:
        InvalidArgumentError: it is outside ``limit``. So do all functions here where a field is outside its own.
    """
    checks = Checks(None)
    checks.number(field, value, limit)
    checks.finish()
    return value


def required_id(field: str, value: str) -> str:
    """Return an id, which must be one."""
    checks = Checks(None)
    _check_id(checks, field, value)
    checks.finish()
    return value


def deleted_item_ids(request: service_messages.DeleteItemsRequest) -> tuple[str, ...]:
    """Return the ids to delete, each once."""
    checks = Checks(None)
    ids = checks.ids("item_ids", request.item_ids, ITEM_IDS)
    checks.finish()
    return tuple(dict.fromkeys(ids))


def upserted_items(request: service_messages.UpsertItemsRequest) -> list[UpsertedItem]:
    """Return the items to upsert."""
    checks = Checks(None)
    if problem := ITEMS.problem(len(request.items)):
        checks.add("items", problem)
        checks.finish()
    items = [_upserted(checks, f"items[{place}]", item) for place, item in enumerate(request.items)]
    first: dict[str, int] = {}
    for place, item in enumerate(items):
        if first.setdefault(item.item_id, place) != place:
            checks.add(f"items[{place}].item_id", f"repeats that of items[{first[item.item_id]}]")
    checks.finish()
    return items


def _upserted(checks: Checks, path: str, item: messages.FreshItem) -> UpsertedItem:
    _check_id(checks, f"{path}.item_id", item.item_id)
    checks.number(f"{path}.popularity", item.popularity, POPULARITY)
    vector: tuple[float, ...] | None = None
    user_ids: tuple[str, ...] = ()
    match item.WhichOneof("position"):
        case "vector":
            vector = _vector(checks, f"{path}.vector.values", item.vector.values)
        case "liked_by":
            user_ids = checks.ids(f"{path}.liked_by.user_ids", item.liked_by.user_ids, USER_IDS)
        case _:
            checks.add(path, "one of vector, liked_by must be set")
    return UpsertedItem(
        item_id=item.item_id,
        vector=vector,
        liked_by_user_ids=tuple(dict.fromkeys(user_ids)),
        popularity=item.popularity,
    )


def _vector(checks: Checks, path: str, values: Sequence[float]) -> tuple[float, ...] | None:
    if problem := VALUES.problem(len(values)):
        checks.add(path, problem)
    elif not all(map(math.isfinite, values)):
        place = next(place for place, value in enumerate(values) if not math.isfinite(value))
        checks.add(f"{path}[{place}]", f"must be a finite number, got {values[place]}")
    elif not any(values):
        checks.add(path, "must not all be 0")
    else:
        return tuple(values)
    return None


def history_entries(request: service_messages.AppendHistoryRequest) -> tuple[str, list[HistoryEntry]]:
    """Return the user and what she did; what has no time was done now."""
    checks = Checks(None)
    _check_id(checks, "user_id", request.user_id)
    entries: list[HistoryEntry] = []
    if problem := ENTRIES.problem(len(request.entries)):
        checks.add("entries", problem)
    else:
        now_ms = time.time_ns() // 1_000_000
        entries = [_entry(checks, f"entries[{place}]", entry, now_ms) for place, entry in enumerate(request.entries)]
    checks.finish()
    return request.user_id, entries


def _entry(checks: Checks, path: str, entry: messages.HistoryEntry, now_ms: int) -> HistoryEntry:
    _check_id(checks, f"{path}.item_id", entry.item_id)
    event = entry.event or "viewed"
    if problem := EVENT_BYTES.problem(len(event.encode())) or id_problem(event):
        checks.add(f"{path}.event", problem)
    time_ms = now_ms
    if entry.HasField("time"):
        if not limits.TIME_SECONDS_MIN <= entry.time.seconds <= limits.TIME_SECONDS_MAX:
            checks.add(f"{path}.time", "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")
        time_ms = entry.time.seconds * 1_000 + entry.time.nanos // 1_000_000
    return HistoryEntry(item_id=entry.item_id, event=event, time_ms=time_ms)


def _check_id(checks: Checks, field: str, value: str) -> None:
    if problem := id_problem(value):
        checks.add(field, problem)


def status_message(status: InstanceStatus) -> messages.InstanceStatus:
    """Return ``status`` as a message."""
    message = messages.InstanceStatus(
        version=status.version,
        serving=status.is_serving,
        draining=status.is_draining,
        snapshot_id=status.snapshot_id or "",
        loading_snapshot_id=status.loading_snapshot_id or "",
        wanted_worker_count=status.wanted_worker_count,
        serving_worker_count=status.serving_worker_count,
        start_time=_timestamp(status.started_at),
    )
    if status.last_swap is not None:
        message.last_swap.CopyFrom(_swap_message(status.last_swap))
    return message


def _swap_message(swap: Swap) -> messages.SnapshotSwap:
    return messages.SnapshotSwap(
        snapshot_id=swap.snapshot_id,
        succeeded=not swap.cause,
        cause=swap.cause,
        problem=swap.problem,
        end_time=_timestamp(swap.ended_at),
    )


def worker_message(worker: Worker) -> messages.Worker:
    """Return ``worker`` as a message."""
    message = messages.Worker(
        slot=worker.slot,
        pid=worker.pid,
        state=WORKER_STATES[worker.state],
        snapshot_id=worker.snapshot_id,
        call_count=worker.call_count,
    )
    message.heartbeat_age.FromNanoseconds(round(worker.heartbeat_age_seconds * 1e9))
    return message


def snapshot_message(info: SnapshotInfo, serving_id: str | None) -> messages.Snapshot:
    """Return ``info`` as a message; ``serving_id`` is the snapshot that answers."""
    message = messages.Snapshot(
        snapshot_id=info.snapshot_id,
        live=info.is_current,
        serving=info.snapshot_id == serving_id,
        problem=info.problem or "",
    )
    if (manifest := info.manifest) is not None:
        message.item_count = manifest.kinds.items.count
        message.user_count = manifest.kinds.users.count
        message.dimension = manifest.kinds.items.dimension
        message.trainer = manifest.training.trainer
        message.size_bytes = sum(file.size_bytes for file in manifest.files.values())
        message.create_time.FromDatetime(manifest.created_time)
    return message


def stats_message(stats: CacheStats) -> messages.CacheStats:
    """Return ``stats`` as a message."""
    return messages.CacheStats(
        entry_count=stats.entry_count,
        size_bytes=stats.size_bytes,
        size_bytes_max=stats.size_bytes_max,
        worker_hit_count=stats.worker_hit_count,
        instance_hit_count=stats.instance_hit_count,
        miss_count=stats.miss_count,
        dropped_count=stats.dropped_count,
    )


def hot_key_message(hot_key: HotKey) -> messages.HotKey:
    """Return ``hot_key`` as a message."""
    return messages.HotKey(item_id=hot_key.item_id, share=hot_key.share, hit_ratio=hot_key.hit_ratio)


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(round(seconds * 1e3))
    return timestamp
