"""AdminService, called by the project's own client, on a real server around twins."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from admin_twins import WAIT_SECONDS, Admin, three_snapshots, wait_until
from checked_traffic import two_snapshots
from google.protobuf.timestamp_pb2 import Timestamp
from hostile_frames import wild_paths
from instances import instance, until
from mutation import mutated

from annserve.domain.errors import (
    AnnserveError,
    CatalogUnavailableError,
    InputError,
    InstanceRefusedError,
    InstanceUnavailableError,
    InvalidArgumentError,
)
from annserve.service.admin import Swap, UpsertedItem
from annserve.service.admin_server import AdminServer, AdminSettings
from annserve.service.admin_servicer import SERVICE
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import admin_pb2, admin_service_pb2, admin_service_pb2_grpc
from annserve_client import AnnserveError as ClientError
from annserve_client import DeadlineError, InvalidRequestError, NotFoundError, PreconditionError, UnavailableError
from annserve_client.admin import AdminClient, ErasedUser, FreshItem, HistoryEntry, WorkerState


@pytest.fixture(scope="session")
def store_of_three(tmp_path_factory: pytest.TempPathFactory) -> SnapshotStore:
    return three_snapshots(tmp_path_factory.mktemp("admin") / "snapshots")


@pytest.fixture
def admin(store_of_three: SnapshotStore, tmp_path: Path) -> Admin:
    shutil.copytree(store_of_three.root, tmp_path / "snapshots")
    return Admin(SnapshotStore(tmp_path / "snapshots"), tmp_path / "histories.jsonl")


@pytest.fixture
def client(admin: Admin) -> Iterator[AdminClient]:
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        yield client


def test_every_method_of_the_contract_is_served(admin: Admin) -> None:
    codes = {}
    with admin.served() as address, grpc.insecure_channel(address) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        for name, method in SERVICE.methods_by_name.items():
            request = getattr(admin_service_pb2, method.input_type.name)()
            codes[name] = getattr(stub, name).future(request, timeout=WAIT_SECONDS).code()

    assert len(codes) == 19
    assert set(codes.values()) == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def test_status_tells_how_the_instance_is(admin: Admin, client: AdminClient) -> None:
    before = client.status()
    admin.instance.last_swap = Swap(
        snapshot_id="s", cause="MEMORY", problem="takes 3 GB, 2 are free", ended_at=1_700_000_001.25
    )
    client.drain()
    after = client.status()

    assert (before.version, before.snapshot_id, before.loading_snapshot_id) == (
        "1.2.3",
        admin.snapshots.current_id(),
        None,
    )
    assert (before.serving, before.draining, after.serving, after.draining) == (True, False, False, True)
    assert (before.wanted_worker_count, before.serving_worker_count) == (2, 2)
    assert before.start_time == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert before.last_swap is None
    assert after.last_swap is not None
    assert (after.last_swap.succeeded, after.last_swap.cause, after.last_swap.problem) == (
        False,
        "MEMORY",
        "takes 3 GB, 2 are free",
    )
    assert after.last_swap.end_time.microsecond == 250_000
    client.undrain()
    assert client.status().serving


def test_workers_are_listed_restarted_and_scaled(admin: Admin, client: AdminClient) -> None:
    first, second = client.workers()
    client.restart_worker(1)
    client.scale(3)

    assert (first.slot, first.pid, first.state, first.call_count) == (0, 100, WorkerState.STARTING, 0)
    assert (second.state, second.call_count, second.heartbeat_age_seconds) == (WorkerState.SERVING, 3, 0.25)
    assert second.snapshot_id == admin.snapshots.current_id()
    assert admin.instance.calls[1:] == [("restart_worker", 1), ("scale", 3)]
    with pytest.raises(NotFoundError, match="there is no worker in slot 7") as caught:
        client.restart_worker(7)
    assert caught.value.reason == "UNKNOWN_WORKER"


def test_snapshots_are_listed_newest_first_with_the_live_the_serving_and_the_broken(
    admin: Admin, client: AdminClient
) -> None:
    newest, middle, oldest = admin.snapshots.ids()
    admin.instance.snapshot_id = middle
    manifest = admin.snapshots.path(oldest) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{}")

    found = client.snapshots()

    assert [snapshot.snapshot_id for snapshot in found] == [newest, middle, oldest]
    assert [snapshot.live for snapshot in found] == [True, False, False]
    assert [snapshot.serving for snapshot in found] == [False, True, False]
    assert (found[0].item_count, found[0].user_count, found[0].dimension, found[0].trainer) == (12, 2, 4, "random")
    assert found[0].size_bytes == sum(file.size_bytes for file in admin.snapshots.verify(newest).files.values())
    assert found[0].create_time == admin.snapshots.verify(newest).created_time
    assert found[2].problem is not None
    assert found[2].item_count is None


def test_activated_snapshot_serves_before_it_becomes_the_live_one(admin: Admin, client: AdminClient) -> None:
    newest, _, oldest = admin.snapshots.ids()
    admin.instance.gate = threading.Event()
    caller = threading.Thread(target=client.activate, args=(oldest,))
    caller.start()
    assert admin.instance.entered.wait(WAIT_SECONDS)
    while_loading = admin.snapshots.current_id()
    admin.instance.gate.set()
    caller.join(WAIT_SECONDS)

    assert while_loading == newest
    assert admin.snapshots.current_id() == admin.instance.snapshot_id == oldest


def test_refused_snapshot_leaves_the_live_one_and_says_why(admin: Admin, client: AdminClient) -> None:
    newest, _, oldest = admin.snapshots.ids()
    admin.instance.refused[oldest] = "recall@10 of 0.71, 0.98 was promised"

    with pytest.raises(PreconditionError, match=r"0\.98 was promised") as caught:
        client.activate(oldest)

    assert caught.value.reason == "ACTIVATION_REFUSED"
    assert caught.value.metadata == {
        "snapshot_id": oldest,
        "cause": "SNAPSHOT_RECALL",
        "problem": "recall@10 of 0.71, 0.98 was promised",
    }
    assert admin.snapshots.current_id() == newest


@pytest.mark.parametrize("snapshot_id", ["20010101T000000Z-00000000", "../../etc", "CURRENT"])
def test_snapshot_that_is_not_here_is_not_found(admin: Admin, client: AdminClient, snapshot_id: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.activate(snapshot_id)

    assert (caught.value.reason, caught.value.metadata) == ("UNKNOWN_SNAPSHOT", {"snapshot_id": snapshot_id})
    assert admin.instance.calls == []


def test_roll_back_goes_further_back_each_time_and_passes_over_what_is_damaged(
    admin: Admin, client: AdminClient
) -> None:
    _, middle, oldest = admin.snapshots.ids()
    vectors = admin.snapshots.path(middle) / "items" / "vectors.npy"
    vectors.chmod(0o644)
    vectors.write_bytes(b"\0" * vectors.stat().st_size)

    assert client.roll_back() == oldest
    assert admin.snapshots.current_id() == admin.instance.snapshot_id == oldest
    with pytest.raises(NotFoundError, match="no earlier snapshot") as caught:
        client.roll_back()

    assert caught.value.reason == "UNKNOWN_SNAPSHOT"
    assert admin.instance.calls == [("activate", oldest)]


def test_refused_roll_back_leaves_the_live_one(admin: Admin, client: AdminClient) -> None:
    newest, middle, _ = admin.snapshots.ids()
    admin.instance.refused[middle] = "would take 3 GB, 2 GB are free"

    with pytest.raises(PreconditionError):
        client.roll_back()

    assert admin.snapshots.history()[:2] == (newest, middle)


def test_change_goes_on_to_its_end_when_the_caller_stops_waiting(admin: Admin) -> None:
    oldest = admin.snapshots.ids()[-1]
    admin.instance.gate = threading.Event()
    with admin.served() as address, AdminClient(address, change_timeout_seconds=0.3) as client:
        with pytest.raises(DeadlineError):
            client.activate(oldest)
        admin.instance.gate.set()

        wait_until(lambda: admin.snapshots.current_id() == oldest)


async def test_changes_are_made_one_at_a_time(admin: Admin) -> None:
    _, middle, oldest = admin.snapshots.ids()
    admin.instance.gate = threading.Event()
    changes = SnapshotChanges(admin.instance, admin.snapshots)
    first = asyncio.create_task(changes.activate(middle))
    assert await asyncio.to_thread(admin.instance.entered.wait, WAIT_SECONDS)
    second = asyncio.create_task(changes.activate(oldest))
    async with asyncio.timeout(WAIT_SECONDS):
        while len(changes._begun) < 2:
            await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0)
    while_the_first_goes_on = list(admin.instance.calls)
    admin.instance.gate.set()
    await asyncio.gather(first, second)

    assert while_the_first_goes_on == [("activate", middle)]
    assert admin.snapshots.history()[:2] == (oldest, middle)


def test_folder_that_cannot_be_written_is_said(
    admin: Admin, client: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_store: SnapshotStore, _snapshot_id: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(SnapshotStore, "activate", fail)

    with pytest.raises(PreconditionError, match="CURRENT cannot be written") as caught:
        client.activate(admin.snapshots.ids()[-1])

    assert caught.value.metadata["cause"] == "CURRENT_NOT_WRITTEN"


def test_reload_reaches_the_instance(admin: Admin, client: AdminClient) -> None:
    client.reload()

    assert admin.instance.calls == [("reload",)]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (InstanceUnavailableError("nobody listens on control.sock"), UnavailableError, "INSTANCE_UNAVAILABLE"),
        (InstanceRefusedError("STOPPING", "it is stopping"), PreconditionError, "INSTANCE_REFUSED"),
    ],
)
def test_instance_that_does_not_do_it_is_told_apart(
    admin: Admin, client: AdminClient, error: AnnserveError, kind: type[ClientError], reason: str
) -> None:
    admin.instance.error = error

    with pytest.raises(kind) as caught:
        client.scale(2)

    assert caught.value.reason == reason
    assert str(error) in str(caught.value)


def test_fault_says_nothing_of_itself_but_its_request_id(admin: Admin, client: AdminClient) -> None:
    admin.instance.error = ZeroDivisionError("secret")

    with pytest.raises(ClientError) as caught:
        client.status()

    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in str(caught.value)
    assert caught.value.request_id


def test_upserted_items_reach_the_instance_as_they_were_given(admin: Admin, client: AdminClient) -> None:
    client.upsert_items(
        [
            FreshItem(item_id="새 상품", vector=[0.5, -1.0, 0.0, 2.0], popularity=1.5),
            FreshItem(item_id="b", liked_by_user_ids=["u1", "u2", "u1"]),
        ]
    )
    client.delete_items(["c", "d", "c"])

    assert admin.items.items == {
        "새 상품": UpsertedItem(item_id="새 상품", vector=(0.5, -1.0, 0.0, 2.0), liked_by_user_ids=(), popularity=1.5),
        "b": UpsertedItem(item_id="b", vector=None, liked_by_user_ids=("u1", "u2"), popularity=0.0),
    }
    assert admin.items.deleted == ["c", "d"]


@pytest.mark.parametrize(
    ("items", "field", "problem"),
    [
        ([], "items", "must have at least 1 entries, got 0"),
        ([FreshItem(item_id=str(n), vector=[1]) for n in range(1_001)], "items", "must have at most 1,000 entries"),
        ([FreshItem(item_id="", vector=[1])], "items[0].item_id", "must not be empty"),
        ([FreshItem(item_id="a")], "items[0]", "one of vector, liked_by must be set"),
        ([FreshItem(item_id="a", vector=[])], "items[0].vector.values", "must have at least 1 entries, got 0"),
        ([FreshItem(item_id="a", vector=[0, 0])], "items[0].vector.values", "must not all be 0"),
        ([FreshItem(item_id="a", vector=[1, math.nan])], "items[0].vector.values[1]", "must be a finite number"),
        ([FreshItem(item_id="a", vector=[math.inf])], "items[0].vector.values[0]", "must be a finite number"),
        ([FreshItem(item_id="a", vector=[1], popularity=-1)], "items[0].popularity", "must be at least 0, got -1"),
        ([FreshItem(item_id="a", vector=[1], popularity=math.nan)], "items[0].popularity", "must be a finite number"),
        ([FreshItem(item_id="a", liked_by_user_ids=[""])], "items[0].liked_by.user_ids[0]", "must not be empty"),
        ([FreshItem(item_id="a", vector=[1])] * 2, "items[1].item_id", "repeats that of items[0]"),
    ],
)
def test_items_outside_the_contract_are_refused_all_together(
    admin: Admin, client: AdminClient, items: list[FreshItem], field: str, problem: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.upsert_items(items)

    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.violations[0].description.startswith(problem)
    assert admin.items.items == {}


def test_single_string_is_no_list_of_items_to_delete(admin: Admin, client: AdminClient) -> None:
    with pytest.raises(TypeError, match="got the single string 'abc'"):
        client.delete_items("abc")

    assert admin.items.deleted == []


@pytest.mark.parametrize(("liked_by", "problem"), [([12347], "liked_by_user_ids[0] must"), ("12347", "single string")])
def test_item_that_cannot_be_sent_says_why(client: AdminClient, liked_by: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=re.escape(problem)):
        client.upsert_items([FreshItem(item_id="a", liked_by_user_ids=liked_by)])


def test_item_that_the_snapshot_cannot_place_is_the_callers_mistake(admin: Admin, client: AdminClient) -> None:
    admin.items.error = InvalidArgumentError.of("items[0].vector", "must have 4 entries, got 1")

    with pytest.raises(InvalidRequestError, match="must have 4 entries"):
        client.upsert_items([FreshItem(item_id="a", vector=[1])])


def test_items_that_cannot_be_kept_may_be_sent_again(admin: Admin, client: AdminClient) -> None:
    admin.items.error = CatalogUnavailableError("no server answers")

    with pytest.raises(UnavailableError):
        client.upsert_items([FreshItem(item_id="a", vector=[1])])


def test_cache_is_told_of_and_flushed(client: AdminClient) -> None:
    before = client.cache_stats()
    client.flush_cache()

    assert (before.entry_count, before.size_bytes, before.size_bytes_max) == (12, 34_000, 64 << 20)
    assert (before.worker_hit_count, before.instance_hit_count, before.miss_count, before.dropped_count) == (
        60,
        30,
        10,
        1,
    )
    assert client.cache_stats().entry_count == 0


def test_hot_keys_come_hottest_first_twenty_unless_told(client: AdminClient) -> None:
    hottest = client.hot_keys(2)

    assert [(hot.item_id, hot.share, hot.hit_ratio) for hot in hottest] == [("상품-0", 0.3, 0.9), ("상품-1", 0.15, 0.9)]
    assert len(client.hot_keys(0)) == 20


def test_what_the_instance_was_started_without_is_said(admin: Admin) -> None:
    admin.cache, admin.histories, admin.keeps_items = None, None, False
    reasons = []
    with admin.served() as address, AdminClient(address) as client:
        for ask in (
            client.cache_stats,
            client.flush_cache,
            client.hot_keys,
            lambda: client.upsert_items([FreshItem(item_id="a", vector=[1])]),
            lambda: client.delete_items(["a"]),
            lambda: client.append_history("u", [HistoryEntry(item_id="a")]),
        ):
            with pytest.raises(PreconditionError) as caught:
                ask()
            reasons.append(caught.value.reason)
        assert client.erase_user("u") == ErasedUser(history_count=0, event_count=0)

    assert reasons == [*["NOT_ENABLED"] * 5, "NO_CATALOG"]


def test_history_is_appended_and_erased(admin: Admin, client: AdminClient) -> None:
    assert admin.histories is not None
    met = datetime(2026, 11, 24, 12, 0, 0, 250_000, UTC)

    client.append_history("사용자", [HistoryEntry(item_id="a", time=met), HistoryEntry(item_id="b", event="bought")])

    assert client.erase_user("사용자") == ErasedUser(history_count=2, event_count=0)
    assert client.erase_user("사용자") == ErasedUser(history_count=0, event_count=0)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (HistoryEntry(item_id=""), "entries[0].item_id"),
        (HistoryEntry(item_id="a", event="x" * 65), "entries[0].event"),
        (HistoryEntry(item_id="a", event="a\nb"), "entries[0].event"),
    ],
)
def test_history_outside_the_contract_is_refused(client: AdminClient, entry: HistoryEntry, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.append_history("u", [entry])

    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ScaleWorkers", admin_service_pb2.ScaleWorkersRequest(worker_count=65), "worker_count"),
        ("ScaleWorkers", admin_service_pb2.ScaleWorkersRequest(), "worker_count"),
        ("RestartWorker", admin_service_pb2.RestartWorkerRequest(slot=-1), "slot"),
        ("GetHotKeys", admin_service_pb2.GetHotKeysRequest(page_size=1_001), "page_size"),
        ("ActivateSnapshot", admin_service_pb2.ActivateSnapshotRequest(), "snapshot_id"),
        ("DeleteItems", admin_service_pb2.DeleteItemsRequest(), "item_ids"),
        ("EraseUser", admin_service_pb2.EraseUserRequest(), "user_id"),
        (
            "AppendHistory",
            admin_service_pb2.AppendHistoryRequest(
                user_id="u", entries=[admin_pb2.HistoryEntry(item_id="a", time=Timestamp(seconds=1 << 40))]
            ),
            "entries[0].time",
        ),
    ],
)
def test_number_or_id_outside_the_contract_is_refused_before_anything_is_done(
    admin: Admin, client: AdminClient, method: str, request_: object, field: str
) -> None:
    client.status()
    with grpc.insecure_channel(admin.address) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, method)(request_, timeout=WAIT_SECONDS)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith(f"{field}: ")
    assert admin.instance.calls == [("status",)]


def test_bytes_that_do_not_decode_are_refused_by_name(admin: Admin) -> None:
    with admin.served() as address, grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/annserve.v1.AdminService/ActivateSnapshot"
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff", timeout=WAIT_SECONDS)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_nothing_that_is_sent_is_a_fault_of_ours(admin: Admin) -> None:
    random = Random(5)
    good = [
        admin_service_pb2.UpsertItemsRequest(
            items=[
                admin_pb2.FreshItem(item_id="상품", vector=admin_pb2.Vector(values=[1.0, 2.0]), popularity=1.0),
                admin_pb2.FreshItem(item_id="b", liked_by=admin_pb2.LikedBy(user_ids=["u"])),
            ]
        ).SerializeToString(),
        admin_service_pb2.AppendHistoryRequest(
            user_id="u", entries=[admin_pb2.HistoryEntry(item_id="a", event="bought", time=Timestamp(seconds=1))]
        ).SerializeToString(),
        admin_service_pb2.ActivateSnapshotRequest(snapshot_id=admin.snapshots.ids()[0]).SerializeToString(),
    ]
    codes = set()
    with admin.served() as address, grpc.insecure_channel(address) as channel:
        for method in SERVICE.methods_by_name:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
            sent = [call.future(mutated(random.choice(good), random), timeout=WAIT_SECONDS) for _ in range(40)]
            codes |= {each.code() for each in sent}

    assert grpc.StatusCode.OK in codes
    assert codes <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }


def test_changes_are_logged_with_what_and_who_and_nothing_of_users(
    admin: Admin, client: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    oldest = admin.snapshots.ids()[-1]
    with caplog.at_level(logging.INFO, logger="annserve.service.admin_servicer"):
        client.activate(oldest)
        client.upsert_items([FreshItem(item_id="secret-item", liked_by_user_ids=["secret-user"])])
        client.erase_user("secret-user")
        client.status()
        wait_until(lambda: "EraseUser" in caplog.text)

    assert f"ActivateSnapshot {{'snapshot_id': '{oldest}'}} by ipv4:127.0.0.1:" in caplog.text
    assert caplog.text.count(": OK") == 3
    assert "secret" not in caplog.text
    assert "GetStatus" not in caplog.text


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
async def test_port_that_others_reach_is_not_served_unless_told(admin: Admin, address: str) -> None:
    operated = admin.operated()
    server = AdminServer(AdminSettings(address=address), operated)
    with pytest.raises(InputError, match="ANNSERVE_ADMIN_ALLOW_REMOTE"):
        await server.start()
    await server.stop()
    told = AdminServer(AdminSettings(address="0.0.0.0:0", allow_remote=True), operated)

    assert (await told.start()).startswith("0.0.0.0:")
    await told.stop()


def test_keeper_whose_server_grpc_has_stopped_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    two_snapshots(root, 200)
    with instance(root, tmp_path, workers=1) as running:
        before = running.keeper_pid()
        host, _, port = running.admin_address.rpartition(":")

        def answers() -> bool:
            # Connected anew each time: a client that is there waits ever longer between its attempts.
            with AdminClient(running.admin_address, timeout_seconds=1.0) as client:
                try:
                    return bool(client.status())
                except ClientError:
                    return False

        until(answers, WAIT_SECONDS)
        with socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) as connection:
            connection.sendall(wild_paths(Random(0)))
            while connection.recv(65_536):
                pass

        until(lambda: running.keeper_pid() not in (None, before) and answers(), 4 * WAIT_SECONDS)
