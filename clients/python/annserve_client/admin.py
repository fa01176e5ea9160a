"""The blocking client of AdminService, which operates an instance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from annserve_client._gen import admin_service_pb2 as messages
from annserve_client._gen.admin_service_pb2_grpc import AdminServiceStub
from annserve_client.admin_results import (
    CacheStats,
    ErasedUser,
    FreshItem,
    HistoryEntry,
    HotKey,
    InstanceStatus,
    Placement,
    PlacementList,
    PlacementProblem,
    Snapshot,
    SnapshotSwap,
    Worker,
    WorkerState,
    entry_message,
    hot_key_of,
    item_message,
    placement_list_of,
    snapshot_of,
    stats_of,
    status_of,
    worker_of,
)
from annserve_client.channel import CHANNEL_OPTIONS, key_metadata
from annserve_client.errors import error_of_call
from annserve_client.mistakes import ids_of

__all__ = [
    "AdminClient",
    "CacheStats",
    "ErasedUser",
    "FreshItem",
    "HistoryEntry",
    "HotKey",
    "InstanceStatus",
    "Placement",
    "PlacementList",
    "PlacementProblem",
    "Snapshot",
    "SnapshotSwap",
    "Worker",
    "WorkerState",
]

TIMEOUT_SECONDS = 10.0
CHANGE_TIMEOUT_SECONDS = 900.0


class AdminClient:
    """Operates one annserve instance through its admin port. Threads may share it; `close` it, or use ``with``.

    Nothing is retried. Every method raises AnnserveError when it was not done, with the reason.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        change_timeout_seconds: float = CHANGE_TIMEOUT_SECONDS,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Make a client; it connects with the first call.

        Args:
            target: Where the admin port is, in gRPC's naming: ``127.0.0.1:50052``.
            timeout_seconds: How long to wait for an answer.
            change_timeout_seconds: How long to wait for another snapshot to serve, which has to be loaded. When the
                time is up the instance goes on with it: `status` tells how it ended.
            credentials: How to secure the connection; it is not secured unless set.
            api_key: What the server asks for, where it does.
        """
        self._metadata = key_metadata(api_key)
        self._timeout_seconds = timeout_seconds
        self._change_timeout_seconds = change_timeout_seconds
        # Items with their vectors are sent, and lists of snapshots come back.
        options = [*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", 4 * 1024 * 1024)]
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._stub = AdminServiceStub(self._channel)

    def status(self) -> InstanceStatus:
        """Return how the instance is."""
        return status_of(self._call(self._stub.GetStatus, messages.GetStatusRequest()).status)

    def workers(self) -> list[Worker]:
        """Return the workers, by slot."""
        return [
            worker_of(worker) for worker in self._call(self._stub.ListWorkers, messages.ListWorkersRequest()).workers
        ]

    def restart_worker(self, slot: int) -> None:
        """Replace a worker, which finishes its calls."""
        self._call(self._stub.RestartWorker, messages.RestartWorkerRequest(slot=slot))

    def scale(self, worker_count: int) -> None:
        """Have so many workers, 1 to 64."""
        self._call(self._stub.ScaleWorkers, messages.ScaleWorkersRequest(worker_count=worker_count))

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots that are there, newest first."""
        answer = self._call(self._stub.ListSnapshots, messages.ListSnapshotsRequest())
        return [snapshot_of(snapshot) for snapshot in answer.snapshots]

    def activate(self, snapshot_id: str) -> None:
        """Serve another snapshot; returns when it does."""
        request = messages.ActivateSnapshotRequest(snapshot_id=snapshot_id)
        self._call(self._stub.ActivateSnapshot, request, self._change_timeout_seconds)

    def roll_back(self) -> str:
        """Serve the snapshot that was live before the live one; returns its id when it does."""
        request = messages.RollBackSnapshotRequest()
        snapshot_id: str = self._call(self._stub.RollBackSnapshot, request, self._change_timeout_seconds).snapshot_id
        return snapshot_id

    def upsert_items(self, items: Iterable[FreshItem]) -> None:
        """Add or replace 1 to 1,000 items: all of them, or none."""
        self._call(self._stub.UpsertItems, messages.UpsertItemsRequest(items=map(item_message, items)))

    def delete_items(self, item_ids: Sequence[str]) -> None:
        """Take 1 to 1,000 items out of all answers."""
        self._call(self._stub.DeleteItems, messages.DeleteItemsRequest(item_ids=ids_of(item_ids)))

    def placements(self) -> PlacementList:
        """Return the placements that answer, and what is wrong with those that are to replace them."""
        return placement_list_of(self._call(self._stub.ListPlacements, messages.ListPlacementsRequest()))

    def reload_placements(self, *, validate_only: bool = False) -> PlacementList:
        """Read the placements anew: all are used, or none and the result says what is wrong.

        Args:
            validate_only: Look only; the result tells of what is there as if it were used.
        """
        request = messages.ReloadPlacementsRequest(validate_only=validate_only)
        return placement_list_of(self._call(self._stub.ReloadPlacements, request))

    def cache_stats(self) -> CacheStats:
        """Return what the cache holds and how it fared."""
        return stats_of(self._call(self._stub.GetCacheStats, messages.GetCacheStatsRequest()).stats)

    def flush_cache(self) -> None:
        """Forget all cached answers."""
        self._call(self._stub.FlushCache, messages.FlushCacheRequest())

    def hot_keys(self, count: int = 20) -> list[HotKey]:
        """Return the items that are asked about most, 1 to 1,000 of them."""
        answer = self._call(self._stub.GetHotKeys, messages.GetHotKeysRequest(page_size=count))
        return [hot_key_of(hot_key) for hot_key in answer.hot_keys]

    def reload(self) -> None:
        """Read settings and the live snapshot anew; returns when new workers serve."""
        self._call(self._stub.Reload, messages.ReloadRequest(), self._change_timeout_seconds)

    def drain(self) -> None:
        """Say in health that calls are not welcome."""
        self._call(self._stub.Drain, messages.DrainRequest())

    def undrain(self) -> None:
        """Say in health that they are."""
        self._call(self._stub.Undrain, messages.UndrainRequest())

    def append_history(self, user_id: str, entries: Iterable[HistoryEntry]) -> None:
        """Add 1 to 1,000 entries to what a user did. After a time-out they may be there: to repeat may double them."""
        request = messages.AppendHistoryRequest(user_id=user_id, entries=map(entry_message, entries))
        self._call(self._stub.AppendHistory, request)

    def erase_user(self, user_id: str) -> ErasedUser:
        """Forget a user, and return how much was known of her; takes a second at least."""
        answer = self._call(self._stub.EraseUser, messages.EraseUserRequest(user_id=user_id))
        return ErasedUser(history_count=answer.erased_count, event_count=answer.erased_event_count)

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._channel.close()

    def _call(self, method: Any, request: Any, timeout_seconds: float | None = None) -> Any:
        try:
            timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of_call(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
