"""Only who has a key that is valid, and good for what it calls, gets in: every method, before any work is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import yaml
from admin_twins import TwinInstance
from edge_twin import TIMEOUT_SECONDS, TwinRecommender
from google.rpc import error_details_pb2, status_pb2

from annserve.cache.shared import SharedCache
from annserve.catalog.file_erasures import FileErasureStore
from annserve.catalog.file_events import FileEventStore
from annserve.domain.errors import InputError
from annserve.service.access import TokenBucket
from annserve.service.access_keys import PREFIX, AccessKey, AccessKeys, hashed, new_key, read_keys
from annserve.service.admin_server import AdminServer, AdminSettings
from annserve.service.admin_servicer import Operated
from annserve.service.event_queue import EventQueue
from annserve.service.metrics import Metrics
from annserve.service.security import Security
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.service.transport import TransportName
from annserve.service.user_eraser import UserEraser
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import admin_service_pb2, event_service_pb2, recommendation_service_pb2

QUERY, ADMIN, EVENTS, OLD, NEXT = "ann_query", "ann_admin", "ann_events", "ann_old", "ann_next"
NOW = datetime.now(UTC)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for module, name in (
        (recommendation_service_pb2, "RecommendationService"),
        (event_service_pb2, "EventService"),
        (admin_service_pb2, "AdminService"),
    )
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Check"
UNAUTHENTICATED, PERMISSION_DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


def write_keys(path: Path, *keys: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({"keys": list(keys)}))
    return path


def entry(key: str, *scopes: str, **more: object) -> dict[str, object]:
    return {"name": key.removeprefix(PREFIX), "sha256": hashed(key), "scopes": list(scopes), **more}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_keys(
        tmp_path / "keys.yaml",
        entry(QUERY, "query"),
        entry(ADMIN, "admin"),
        entry(EVENTS, "events"),
        entry(OLD, "query", "admin", "events", expires=NOW - timedelta(seconds=1)),
        entry(NEXT, "query", expires=NOW + timedelta(hours=1)),
    )


@pytest.fixture
async def addresses(
    keys: Path, twin: TwinRecommender, tmp_path: Path, transport: TransportName
) -> AsyncIterator[dict[str, str]]:
    """Both servers, by the services they have."""
    security = Security(api_keys=keys)
    events = EventQueue(FileEventStore(tmp_path / "events"))
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, security=security)
    server = Server(settings, twin, events=events)
    instance = TwinInstance(None)
    operated = Operated(
        instance=instance,
        changes=SnapshotChanges(instance, SnapshotStore(tmp_path / "snapshots")),
        items=None,
        cache=None,
        histories=None,
        eraser=UserEraser(FileErasureStore(tmp_path / "erased"), FileEventStore(tmp_path / "events"), None),
    )
    admin = AdminServer(AdminSettings(address="127.0.0.1:0", security=security), operated)
    address = await server.start()
    yield {"RecommendationService": address, "EventService": address, "AdminService": await admin.start()}
    assert not instance.calls, "a call that was refused did something"
    await admin.stop()
    await server.stop()


async def call(address: str, method: str, key: str | None, request: bytes = b"\xff") -> grpc.aio.AioRpcError | bytes:
    """Return the answer, or the error, of a call whose request does not even decode unless given."""
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            answer = await ask(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error
    return answer


def code_of(outcome: grpc.aio.AioRpcError | bytes) -> grpc.StatusCode:
    return grpc.StatusCode.OK if isinstance(outcome, bytes) else outcome.code()


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_refused_without_a_key_that_is_valid_and_good_for_it(
    addresses: dict[str, str], method: str, twin: TwinRecommender
) -> None:
    service = method.split("/")[1].rpartition(".")[2]
    wrong = ADMIN if service == "RecommendationService" else QUERY
    right = {"RecommendationService": QUERY, "EventService": EVENTS, "AdminService": ADMIN}[service]
    address = addresses[service]

    assert code_of(await call(address, method, None)) is UNAUTHENTICATED
    assert code_of(await call(address, method, "ann_unknown")) is UNAUTHENTICATED
    assert code_of(await call(address, method, OLD)) is UNAUTHENTICATED
    assert code_of(await call(address, method, hashed(right))) is UNAUTHENTICATED
    assert code_of(await call(address, method, wrong)) is PERMISSION_DENIED
    # With the right one the request is looked at, and is no message.
    assert code_of(await call(address, method, right)) is grpc.StatusCode.INVALID_ARGUMENT
    assert not twin.queries


async def test_health_needs_no_key_and_reflection_any(addresses: dict[str, str]) -> None:
    address = addresses["RecommendationService"]

    assert code_of(await call(address, HEALTH, None, b"")) is grpc.StatusCode.OK
    async with grpc.aio.insecure_channel(address) as channel:
        list_of: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REFLECTION)
        listing = list_of(iter([b""]), timeout=TIMEOUT_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(listing))
    assert caught.value.code() is UNAUTHENTICATED


async def test_what_is_refused_says_why_and_not_which_keys_there_are(addresses: dict[str, str]) -> None:
    outcomes = [await call(addresses["AdminService"], METHODS[-1], key) for key in (None, "ann_unknown", OLD)]

    statuses = {status_of(outcome).SerializeToString() for outcome in outcomes}
    assert len(statuses) == 1, "an expired key is told from one that never was"
    assert reason_of(outcomes[0]) == "UNAUTHENTICATED"
    assert reason_of(await call(addresses["AdminService"], METHODS[-1], QUERY)) == "WRONG_SCOPE"


def status_of(outcome: grpc.aio.AioRpcError | bytes) -> status_pb2.Status:
    assert isinstance(outcome, grpc.aio.AioRpcError)
    return status_pb2.Status.FromString(dict(outcome.trailing_metadata() or ())["grpc-status-details-bin"])


def reason_of(outcome: grpc.aio.AioRpcError | bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status_of(outcome).details[0].Unpack(info)
    return str(info.reason)


async def test_two_keys_are_good_at_once_and_a_file_is_read_again(keys: Path) -> None:
    access = AccessKeys(keys)
    assert {access.find(QUERY) and "query", access.find(NEXT) and "next"} == {"query", "next"}

    key, digest = new_key()
    write_keys(keys, {"name": "newest", "sha256": digest, "scopes": ["query"]})
    async with asyncio.timeout(5):
        while access.find(key) is None:
            await asyncio.sleep(0.05)
    assert access.find(QUERY) is None

    keys.write_text("keys: nonsense")
    for _ in range(15):
        await asyncio.sleep(0.05)
        assert access.find(key) is not None, "a file that cannot be read took away what was known"


async def test_a_key_that_is_used_too_often_waits_and_others_do_not(twin: TwinRecommender, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.yaml", entry(QUERY, "query", calls_per_second=0.01), entry(NEXT, "query"))
    server = Server(ServerSettings(address="127.0.0.1:0", security=Security(api_keys=keys)), twin)
    address = await server.start()
    request = recommendation_service_pb2.SimilarRequest(item_ids=["item-0"]).SerializeToString()

    outcomes = [await call(address, METHODS[0], QUERY, request) for _ in range(4)]
    codes = [code_of(outcome) for outcome in outcomes]
    free = [code_of(await call(address, METHODS[0], NEXT, request)) for _ in range(4)]
    await server.stop()

    # One is let through at once however rarely it may call; the next is due in 100 s.
    assert codes == [grpc.StatusCode.OK] + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    assert reason_of(outcomes[1]) == "RATE_LIMITED"
    assert free == [grpc.StatusCode.OK] * 4


async def test_keys_are_asked_for_before_kept_answers_and_once_a_call(
    twin: TwinRecommender, tmp_path: Path, transport: TransportName
) -> None:
    keys = write_keys(tmp_path / "keys.yaml", entry(QUERY, "query", calls_per_second=2.0), entry(EVENTS, "events"))
    cache = SharedCache(None)
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, security=Security(api_keys=keys))
    server = Server(settings, twin, cache)
    address = await server.start()
    request = recommendation_service_pb2.SimilarRequest(item_ids=["item-0"]).SerializeToString()

    outcomes = [await call(address, METHODS[0], key, request) for key in (QUERY, QUERY, None, EVENTS, QUERY)]
    await server.stop()
    cache.close()

    assert [code_of(outcome) for outcome in outcomes] == [
        grpc.StatusCode.OK,
        grpc.StatusCode.OK,
        UNAUTHENTICATED,
        PERMISSION_DENIED,
        grpc.StatusCode.OK,
    ]
    assert (cache.counts.misses, cache.counts.worker_hits) == (1, 2)


async def test_every_call_that_is_turned_away_is_counted_by_its_reason(
    twin: TwinRecommender, tmp_path: Path, transport: TransportName
) -> None:
    keys = write_keys(tmp_path / "keys.yaml", entry(QUERY, "query", calls_per_second=0.01), entry(ADMIN, "admin"))
    metrics = Metrics()
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, security=Security(api_keys=keys))
    server = Server(settings, twin, metrics=metrics)
    address = await server.start()

    for key in (None, "ann_unknown", None, ADMIN, ADMIN, QUERY, QUERY):
        await call(address, METHODS[0], key)
    metrics.publish()
    await server.stop()

    assert {
        reason: metrics.registry.get_sample_value("annserve_auth_failures_total", {"reason": reason})
        for reason in ("unauthenticated", "permission_denied", "rate_limited")
    } == {"unauthenticated": 3, "permission_denied": 2, "rate_limited": 1}


async def test_a_fault_in_looking_at_a_key_lets_nobody_in_and_stops_nobody_else(
    twin: TwinRecommender, keys: Path, transport: TransportName, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = AccessKeys.find

    def fails_for_one(known: AccessKeys, key: str) -> AccessKey | None:
        if key == NEXT:
            raise RuntimeError("a fault")
        return find(known, key)

    monkeypatch.setattr(AccessKeys, "find", fails_for_one)
    settings = ServerSettings(address="127.0.0.1:0", transport=transport, security=Security(api_keys=keys))
    server = Server(settings, twin)
    address = await server.start()
    request = recommendation_service_pb2.SimilarRequest(item_ids=["item-0"]).SerializeToString()

    outcomes = [await call(address, METHODS[0], key, request) for key in (NEXT, QUERY)]
    await server.stop()

    assert [code_of(outcome) for outcome in outcomes] == [grpc.StatusCode.INTERNAL, grpc.StatusCode.OK]
    assert "a fault" not in str(outcomes[0])


def test_a_bucket_lets_through_what_it_says_over_time() -> None:
    bucket = TokenBucket(10.0, now=0.0)
    passed = sum(bucket.take(now=step / 1_000) == 0.0 for step in range(10_000))

    assert 100 <= passed <= 121


def test_a_bucket_lets_through_twice_of_what_it_says_after_a_pause_and_tells_when_there_will_be_more() -> None:
    bucket = TokenBucket(2.0, now=0.0)

    assert [bucket.take(now=0.0) for _ in range(5)] == [0.0] * 4 + [0.5]
    assert [bucket.take(now=100.0) for _ in range(5)] == [0.0] * 4 + [0.5]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys: [{name: a, sha256: short, scopes: [query]}]", "keys.0.sha256"),
        (
            "keys: [{name: a, sha256: " + "ab" * 32 + ", scopes: [root]}]",
            "scopes.0: must be 'query', 'events' or 'admin'$",
        ),
        (
            "keys: [{name: a, sha256: " + "ab" * 32 + ", scopes: [query], exipres: 1}]",
            "exipres: there is no such key$",
        ),
        (
            "keys: [{name: a, sha256: " + "ab" * 32 + ", scopes: [query], expires: 2030-01-01 00:00:00}]",
            "keys.0.expires",
        ),
        ("keys: [", "line 1"),
        ("", "the file"),
        ("keys: [" + ", ".join(["{name: a, sha256: " + "ab" * 32 + ", scopes: [query]}"] * 2) + "]", "twice"),
    ],
)
def test_a_bad_file_is_refused_and_what_stands_there_is_not_repeated(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)

    with pytest.raises(InputError, match=problem) as caught:
        read_keys(path)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
async def test_other_machines_are_not_served_in_plain_text_unless_told(twin: TwinRecommender, address: str) -> None:
    server = Server(ServerSettings(address=address), twin)
    with pytest.raises(InputError, match=r"ANNSERVE_TLS_CERTIFICATE.*--insecure"):
        await server.start()
    await server.stop()

    told = Server(ServerSettings(address=address, security=Security(insecure=True)), twin)
    await told.start()
    await told.stop()
