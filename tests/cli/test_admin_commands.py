"""``annserve admin``, against a real server around twins."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from admin_twins import Admin, three_snapshots
from typer.testing import CliRunner, Result

from annserve.cli.app import app_of
from annserve.cli.fresh_lines import batches, read_items
from annserve.domain.errors import InputError, InstanceUnavailableError
from annserve.service.admin import Swap
from annserve.snapshot.store import SnapshotStore
from annserve_client.admin import FreshItem

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def store_of_three(tmp_path_factory: pytest.TempPathFactory) -> SnapshotStore:
    return three_snapshots(tmp_path_factory.mktemp("admin-cli") / "snapshots")


@pytest.fixture
def admin(store_of_three: SnapshotStore, tmp_path: Path) -> Admin:
    shutil.copytree(store_of_three.root, tmp_path / "snapshots")
    return Admin(SnapshotStore(tmp_path / "snapshots"), tmp_path / "histories.jsonl")


@pytest.fixture
def run(admin: Admin) -> Iterator[Run]:
    """Return a function that runs ``annserve admin`` against the twins."""

    def run(*arguments: str, code: int = 0, **more: Any) -> Result:
        done = CliRunner().invoke(app_of(), ["admin", *arguments, "--address", admin.address], **more)
        assert done.exit_code == code, done.output
        return done

    with admin.served():
        yield run


def test_status_is_shown_to_people_and_machines(admin: Admin, run: Run) -> None:
    admin.instance.last_swap = Swap(snapshot_id="s-1", cause="MEMORY", problem="takes 3 GB", ended_at=1_700_000_001.0)

    shown, machine = run("status").output, json.loads(run("status", "--json").stdout)

    assert "s-1 not served (MEMORY): takes 3 GB, 2023-11-14T22:13:21.000+00:00" in shown
    assert "serving worker count" in shown
    assert machine["snapshot_id"] == admin.snapshots.current_id()
    assert machine["last_swap"]["cause"] == "MEMORY"


def test_workers_are_shown_scaled_and_restarted(admin: Admin, run: Run) -> None:
    workers = json.loads(run("workers", "--json").stdout)
    run("scale", "3")
    run("restart", "2")

    assert [(worker["slot"], worker["state"]) for worker in workers] == [(0, "starting"), (1, "serving")]
    shown = run("workers").stdout
    assert "starting" in shown
    assert "calls_under_way" in shown
    assert "call_count" in workers[0]
    assert admin.instance.calls[1:3] == [("scale", 3), ("restart_worker", 2)]
    assert "UNKNOWN_WORKER: there is no worker in slot 9" in run("restart", "9", code=1).output


@pytest.mark.usefixtures("run")
def test_admin_port_is_told_from_that_of_queries(admin: Admin) -> None:
    done = CliRunner().invoke(app_of(), ["query", "similar", "--item", "a", "--address", admin.address])

    assert done.exit_code == 1
    assert f"no such call at {admin.address}, which seems to be the admin port" in done.output
    assert "the query port is 127.0.0.1:50051 unless told otherwise" in done.output


def test_snapshots_are_listed_activated_and_rolled_back(admin: Admin, run: Run) -> None:
    newest, middle, oldest = admin.snapshots.ids()

    assert [row["snapshot_id"] for row in json.loads(run("snapshots", "list", "--json").stdout)] == [
        newest,
        middle,
        oldest,
    ]
    assert newest in run("snapshots", "list").stdout
    assert f"{oldest} serves" in run("snapshots", "activate", oldest).output
    assert admin.snapshots.current_id() == oldest
    assert json.loads(run("snapshots", "rollback", "--json").stdout) == {"snapshot_id": newest}


def test_refused_snapshot_ends_with_the_reason(admin: Admin, run: Run) -> None:
    oldest = admin.snapshots.ids()[-1]
    admin.instance.refused[oldest] = "recall@10 of 0.71, 0.98 was promised"

    done = run("snapshots", "activate", oldest, code=1)

    assert "annserve: ACTIVATION_REFUSED" in done.output
    assert "0.98 was promised" in done.output


def test_items_are_upserted_from_lines_and_deleted(admin: Admin, run: Run) -> None:
    lines = [{"item_id": "a", "vector": [1, 0.5], "popularity": 2.0}, {"item_id": "b", "liked_by_user_ids": ["u"]}]

    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    assert "2 items upserted" in run("items", "upsert", "-", input=text).output
    assert "1 item upserted" in run("items", "upsert", "-", input=json.dumps(lines[0])).output
    assert "1 item will not be recommended" in run("items", "delete", "c").output
    assert "1 item" not in run("items", "delete", "d", "e").output

    assert admin.items.items["a"].vector == (1.0, 0.5)
    assert admin.items.items["a"].popularity == 2.0
    assert admin.items.items["b"].liked_by_user_ids == ("u",)
    assert admin.items.deleted == ["c", "d", "e"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: must be JSON"),
        ('{"item_id": "b"}', "line 2: give vector or liked_by_user_ids, and not both"),
        ('{"item_id": "b", "vector": [1], "liked_by_user_ids": ["u"]}', "line 2: give vector or liked_by_user_ids"),
        ('{"item_id": "b", "vector": ["1"]}', "line 2: vector.0: must be a number"),
        ('{"item_id": 7, "vector": [1]}', "line 2: item_id: must be a text"),
        (
            '{"item_id": "b", "liked_by": ["u"]}',
            "line 2: liked_by: there is no such key; the keys are item_id, vector, liked_",
        ),
    ],
)
def test_line_that_is_no_item_is_named(line: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_items(['{"item_id": "a", "vector": [1]}', line], "items.jsonl")

    assert str(caught.value).startswith(f"items.jsonl, {problem}")


def test_items_are_sent_in_parts_that_a_request_has_room_for() -> None:
    many = [FreshItem(item_id=str(number), vector=[1.0]) for number in range(2_500)]
    wide = [FreshItem(item_id=str(number), vector=[1.0] * 900_000) for number in range(5)]

    assert [len(batch) for batch in batches(many)] == [1_000, 1_000, 500]
    assert [len(batch) for batch in batches(wide)] == [2, 2, 1]
    assert [item for batch in batches(many) for item in batch] == many
    assert list(batches([])) == []


def test_cache_hot_keys_and_history_are_there_for_people_and_machines(run: Run) -> None:
    assert "34,000" in run("cache", "stats").stdout
    run("cache", "flush")
    assert json.loads(run("cache", "stats", "--json").stdout)["entry_count"] == 0
    assert [row["item_id"] for row in json.loads(run("hot-keys", "-n", "2", "--json").stdout)] == ["상품-0", "상품-1"]
    run("history", "append", "사용자", "a", "b", "--event", "bought")
    assert json.loads(run("history", "erase", "사용자", "--json").stdout) == {"history_count": 2, "event_count": 0}
    assert "erased: 0 entries" in run("users", "erase", "사용자").stderr


def test_reload_drain_and_undrain_reach_the_instance(admin: Admin, run: Run) -> None:
    for command in ("reload", "drain", "undrain"):
        run(command)

    assert admin.instance.calls == [("reload",), ("drain",), ("undrain",)]


def test_supervisor_that_does_not_answer_is_told_from_no_server_at_all(admin: Admin, run: Run) -> None:
    admin.instance.error = InstanceUnavailableError("control.sock is gone")

    assert "INSTANCE_UNAVAILABLE: the instance does not answer: control.sock is gone" in run("status", code=1).output


def test_no_server_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    done = CliRunner().invoke(app_of(), ["admin", "status", "--address", f"127.0.0.1:{port}"])

    assert done.exit_code == 1
    assert f"no answer from 127.0.0.1:{port}" in done.output
    assert "is an instance running" in done.output


def test_a_server_that_speaks_tls_is_told_from_none_at_all() -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()

    done = CliRunner().invoke(app_of(), ["admin", "status", "--address", f"127.0.0.1:{port}"])
    server.stop(None)

    assert done.exit_code == 1
    assert "ANNSERVE_TLS_CA has this side speak it" in done.output
    assert "is an instance running" not in done.output


def test_snapshot_is_pulled_once_and_made_live_where_told(store_of_three: SnapshotStore, tmp_path: Path) -> None:
    newest, _, oldest = store_of_three.ids()
    where = ["--from", f"file://{store_of_three.root}", "--snapshots", str(tmp_path / "here")]

    def pull(*arguments: str) -> dict[str, object]:
        done = CliRunner().invoke(app_of(), ["snapshots", "pull", *arguments, *where, "--json"])
        assert done.exit_code == 0, done.output
        value: dict[str, object] = json.loads(done.stdout)
        return value

    assert pull() == {"snapshot_id": newest, "pulled": True, "live": False}
    assert pull("--activate") == {"snapshot_id": newest, "pulled": False, "live": True}
    assert pull(oldest) == {"snapshot_id": oldest, "pulled": True, "live": False}
