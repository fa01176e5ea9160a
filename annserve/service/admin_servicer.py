"""AdminService on grpc.aio: each method checks its request, then hands it to the part of the instance that does it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from annserve.domain.catalog import CatalogStore
from annserve.domain.errors import (
    InputError,
    InstanceRefusedError,
    InvalidArgumentError,
    NoCatalogError,
    NotEnabledError,
)
from annserve.service import admin_convert as convert
from annserve.service import placement_messages
from annserve.service.admin import CacheAdmin, FreshItems, Instance, PlacementAdmin
from annserve.service.calls import CODES, Request, abort, decoder, encode, logged_status
from annserve.service.request_id import request_id_of
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.service.user_eraser import UserEraser
from annserve.v1 import admin_service_pb2 as messages

SERVICE: Final = messages.DESCRIPTOR.services_by_name["AdminService"]
SERVICE_NAME: Final = SERVICE.full_name

_READING: Final = ("Get", "List")
_LOGGED_FIELDS: Final = ("snapshot_id", "slot", "worker_count", "validate_only")
"""What the log repeats of a request: neither users nor vectors."""

Response = TypeVar("Response", bound=Message)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operated:
    """Everything that AdminService operates on."""

    instance: Instance
    changes: SnapshotChanges
    items: FreshItems | None
    """None where the instance keeps none."""
    cache: CacheAdmin | None
    """None where the instance has no cache."""
    histories: CatalogStore | None
    """None where it has no catalogue."""
    eraser: UserEraser
    placements: PlacementAdmin | None = None
    """None where it has no placements."""


class AdminServicer:
    """Does what an operator asks of ``operated``."""

    def __init__(self, operated: Operated) -> None:
        self._instance = operated.instance
        self._changes = operated.changes
        self._items = operated.items
        self._cache = operated.cache
        self._histories = operated.histories
        self._eraser = operated.eraser
        self._placements = operated.placements

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Return what grpc needs to serve each method."""
        return {
            "GetStatus": self._handler(self.get_status, messages.GetStatusRequest),
            "ListWorkers": self._handler(self.list_workers, messages.ListWorkersRequest),
            "RestartWorker": self._handler(self.restart_worker, messages.RestartWorkerRequest),
            "ScaleWorkers": self._handler(self.scale_workers, messages.ScaleWorkersRequest),
            "ListSnapshots": self._handler(self.list_snapshots, messages.ListSnapshotsRequest),
            "ActivateSnapshot": self._handler(self.activate_snapshot, messages.ActivateSnapshotRequest),
            "RollBackSnapshot": self._handler(self.roll_back_snapshot, messages.RollBackSnapshotRequest),
            "UpsertItems": self._handler(self.upsert_items, messages.UpsertItemsRequest),
            "DeleteItems": self._handler(self.delete_items, messages.DeleteItemsRequest),
            "GetCacheStats": self._handler(self.get_cache_stats, messages.GetCacheStatsRequest),
            "FlushCache": self._handler(self.flush_cache, messages.FlushCacheRequest),
            "GetHotKeys": self._handler(self.get_hot_keys, messages.GetHotKeysRequest),
            "Reload": self._handler(self.reload, messages.ReloadRequest),
            "ListPlacements": self._handler(self.list_placements, messages.ListPlacementsRequest),
            "ReloadPlacements": self._handler(self.reload_placements, messages.ReloadPlacementsRequest),
            "Drain": self._handler(self.drain, messages.DrainRequest),
            "Undrain": self._handler(self.undrain, messages.UndrainRequest),
            "AppendHistory": self._handler(self.append_history, messages.AppendHistoryRequest),
            "EraseUser": self._handler(self.erase_user, messages.EraseUserRequest),
        }

    async def get_status(self, _request: messages.GetStatusRequest) -> messages.GetStatusResponse:
        """Answer `AdminService.GetStatus`."""
        return messages.GetStatusResponse(status=convert.status_message(await self._instance.status()))

    async def list_workers(self, _request: messages.ListWorkersRequest) -> messages.ListWorkersResponse:
        """Answer `AdminService.ListWorkers`."""
        workers = await self._instance.workers()
        return messages.ListWorkersResponse(workers=map(convert.worker_message, workers))

    async def restart_worker(self, request: messages.RestartWorkerRequest) -> messages.RestartWorkerResponse:
        """Answer `AdminService.RestartWorker`."""
        await self._instance.restart_worker(convert.whole_number("slot", request.slot, convert.SLOT))
        return messages.RestartWorkerResponse()

    async def scale_workers(self, request: messages.ScaleWorkersRequest) -> messages.ScaleWorkersResponse:
        """Answer `AdminService.ScaleWorkers`."""
        await self._instance.scale(convert.whole_number("worker_count", request.worker_count, convert.WORKERS))
        return messages.ScaleWorkersResponse()

    async def list_snapshots(self, _request: messages.ListSnapshotsRequest) -> messages.ListSnapshotsResponse:
        """Answer `AdminService.ListSnapshots`."""
        status = await self._instance.status()
        found = await asyncio.to_thread(self._changes.store.snapshots)
        return messages.ListSnapshotsResponse(
            snapshots=[convert.snapshot_message(info, status.snapshot_id) for info in found]
        )

    async def activate_snapshot(self, request: messages.ActivateSnapshotRequest) -> messages.ActivateSnapshotResponse:
        """Answer `AdminService.ActivateSnapshot`."""
        snapshot_id = convert.required_id("snapshot_id", request.snapshot_id)
        await self._changes.activate(snapshot_id)
        return messages.ActivateSnapshotResponse()

    async def roll_back_snapshot(self, _request: messages.RollBackSnapshotRequest) -> messages.RollBackSnapshotResponse:
        """Answer `AdminService.RollBackSnapshot`."""
        return messages.RollBackSnapshotResponse(snapshot_id=await self._changes.roll_back())

    async def upsert_items(self, request: messages.UpsertItemsRequest) -> messages.UpsertItemsResponse:
        """Answer `AdminService.UpsertItems`."""
        await self._known_items().upsert(convert.upserted_items(request))
        return messages.UpsertItemsResponse()

    async def delete_items(self, request: messages.DeleteItemsRequest) -> messages.DeleteItemsResponse:
        """Answer `AdminService.DeleteItems`."""
        await self._known_items().delete(convert.deleted_item_ids(request))
        return messages.DeleteItemsResponse()

    async def get_cache_stats(self, _request: messages.GetCacheStatsRequest) -> messages.GetCacheStatsResponse:
        """Answer `AdminService.GetCacheStats`."""
        return messages.GetCacheStatsResponse(stats=convert.stats_message(await self._known_cache().stats()))

    async def flush_cache(self, _request: messages.FlushCacheRequest) -> messages.FlushCacheResponse:
        """Answer `AdminService.FlushCache`."""
        await self._known_cache().flush()
        return messages.FlushCacheResponse()

    async def get_hot_keys(self, request: messages.GetHotKeysRequest) -> messages.GetHotKeysResponse:
        """Answer `AdminService.GetHotKeys`."""
        count = convert.whole_number("page_size", request.page_size, convert.HOT_KEYS) or convert.HOT_KEYS_DEFAULT
        found = await self._known_cache().hot_keys(count)
        return messages.GetHotKeysResponse(hot_keys=map(convert.hot_key_message, found))

    async def reload(self, _request: messages.ReloadRequest) -> messages.ReloadResponse:
        """Answer `AdminService.Reload`."""
        await self._changes.reload()
        return messages.ReloadResponse()

    async def list_placements(self, _request: messages.ListPlacementsRequest) -> messages.ListPlacementsResponse:
        """Answer `AdminService.ListPlacements`."""
        return placement_messages.list_response(self._known_placements().report)

    async def reload_placements(self, request: messages.ReloadPlacementsRequest) -> messages.ReloadPlacementsResponse:
        """Answer `AdminService.ReloadPlacements`."""
        try:
            report = await self._known_placements().reload(validate_only=request.validate_only)
        except InputError as error:
            raise InstanceRefusedError("PLACEMENTS_UNREADABLE", error.message) from None
        return placement_messages.reload_response(report)

    async def drain(self, _request: messages.DrainRequest) -> messages.DrainResponse:
        """Answer `AdminService.Drain`."""
        await self._instance.drain()
        return messages.DrainResponse()

    async def undrain(self, _request: messages.UndrainRequest) -> messages.UndrainResponse:
        """Answer `AdminService.Undrain`."""
        await self._instance.undrain()
        return messages.UndrainResponse()

    async def append_history(self, request: messages.AppendHistoryRequest) -> messages.AppendHistoryResponse:
        """Answer `AdminService.AppendHistory`."""
        user_id, entries = convert.history_entries(request)
        await self._known_histories("AppendHistory").add_history(user_id, entries)
        return messages.AppendHistoryResponse()

    async def erase_user(self, request: messages.EraseUserRequest) -> messages.EraseUserResponse:
        """Answer `AdminService.EraseUser`."""
        erased = await self._eraser.erase(convert.required_id("user_id", request.user_id))
        return messages.EraseUserResponse(erased_count=erased.history_entries, erased_event_count=erased.events)

    def _known_items(self) -> FreshItems:
        if self._items is None:
            raise NotEnabledError("fresh items")
        return self._items

    def _known_cache(self) -> CacheAdmin:
        if self._cache is None:
            raise NotEnabledError("a shared cache")
        return self._cache

    def _known_placements(self) -> PlacementAdmin:
        if self._placements is None:
            raise NotEnabledError("placements")
        return self._placements

    def _known_histories(self, method: str) -> CatalogStore:
        if self._histories is None:
            raise NoCatalogError(method)
        return self._histories

    def _handler(
        self, method: Callable[[Request], Awaitable[Response]], request_type: type[Request]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = request_type.DESCRIPTOR.name.removesuffix("Request")

        async def call(
            request: Request | InvalidArgumentError, context: grpc.aio.ServicerContext[Any, Any]
        ) -> Response:
            outcome = "cancelled"
            try:
                if isinstance(request, InvalidArgumentError):
                    raise request
                response = await method(request)
            except Exception as error:  # noqa: BLE001 - the one place where every error of a call ends up
                request_id = request_id_of(context)
                status = logged_status(error, request_id)
                outcome = f"{CODES[status.code].name}: {status.message}"
                await abort(context, status, request_id)
            else:
                outcome = "OK"
                return response
            finally:
                if not name.startswith(_READING):
                    _log.info("%s %s by %s: %s", name, _logged(request), context.peer(), outcome)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=decoder(request_type), response_serializer=encode
        )


def _logged(request: Message | InvalidArgumentError) -> dict[str, str]:
    if isinstance(request, InvalidArgumentError):
        return {}
    return {field.name: str(value)[:64] for field, value in request.ListFields() if field.name in _LOGGED_FIELDS}
