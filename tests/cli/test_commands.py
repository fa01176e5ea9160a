from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from annserve.cli.options import misspelt, settings
from annserve.cli.refusals import refusal_of
from annserve.domain.errors import InputError
from annserve.snapshot.store import SnapshotStore
from annserve_client import AccessError

Annserve = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def address(trained: list[str], snapshots: Path) -> Iterator[str]:
    """Serve what was trained, as a person would, and stop it with TERM."""
    assert trained
    with subprocess.Popen(
        [sys.executable, "-m", "annserve.cli", "serve", "--address", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ANNSERVE_SNAPSHOTS": str(snapshots)},
    ) as server:
        assert server.stderr is not None
        said: list[str] = []
        while not (match := re.search(r"^serving .* on (127\.0\.0\.1:\d+)$", said[-1].rstrip() if said else "")):
            line = server.stderr.readline()
            assert line, said
            said.append(line)
        yield match[1]
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(20) == 0


@pytest.mark.usefixtures("trained")
def test_training_publishes_snapshots_and_the_last_is_live(annserve: Annserve) -> None:
    rows = json.loads(annserve("snapshots", "list", "--json").stdout)

    assert [row["live"] for row in rows] == [True, False]
    assert {(row["items"], row["users"], row["dimension"]) for row in rows} == {(60, 40, 8)}
    table = annserve("snapshots", "list").stdout
    assert all(row["snapshot_id"] in table for row in rows)


@pytest.mark.usefixtures("trained")
def test_a_snapshot_is_shown_and_verified(annserve: Annserve) -> None:
    live = next(row["snapshot_id"] for row in json.loads(annserve("snapshots", "list", "--json").stdout) if row["live"])

    for named in ((live,), ()):
        assert json.loads(annserve("snapshots", "show", *named).stdout)["snapshot_id"] == live
    assert json.loads(annserve("snapshots", "verify", "--json").stdout) == {"snapshot_id": live, "verified": True}


@pytest.mark.usefixtures("trained")
def test_a_damaged_snapshot_is_refused_with_the_reason(annserve: Annserve, snapshots: Path, tmp_path: Path) -> None:
    live = SnapshotStore(snapshots).path(SnapshotStore(snapshots).ids()[0])
    copy = tmp_path / live.name
    for source in (path for path in live.rglob("*") if path.is_file()):
        target = copy / source.relative_to(live)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray(source.read_bytes())
        if source.name == "popularity.npy":
            data[-1] ^= 1
        target.write_bytes(data)

    done = annserve("snapshots", "verify", "--path", copy, code=1)

    assert "popularity.npy" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("trained")
def test_rolling_back_and_activating_change_what_is_live(annserve: Annserve, snapshots: Path) -> None:
    store = SnapshotStore(snapshots)
    newest, older = store.ids()

    annserve("snapshots", "rollback")
    assert store.current_id() == older
    annserve("snapshots", "activate", newest)
    assert store.current_id() == newest
    assert "nothing to remove" in annserve("snapshots", "prune", "--keep", "2").stderr


def test_a_query_is_answered_in_ids_of_any_script(annserve: Annserve, address: str) -> None:
    answer = json.loads(annserve("query", "similar", "--item", "작품 4", "--address", address, "--json").stdout)

    assert len(answer["results"]) == 10
    assert all(int(row["item_id"].removeprefix("작품 ")) % 2 == 0 for row in answer["results"][:5])
    assert "작품" in annserve("query", "similar", "--item", "작품 4", "--address", address).stdout


def test_people_and_machines_can_ask_every_question(annserve: Annserve, address: str) -> None:
    at = ("--address", address)
    folded = annserve("query", "personalize", "--recent", "작품 2=2", "--recent", "작품 4", *at, "--json")
    blend = annserve(
        "query", "related", "--item", "작품 2", "--user", "회원-3", "--user-impact", "0.4", *at, "--explain"
    )

    assert json.loads(folded.stdout)["results"][0]["source"] == "fold_in"
    assert "likeness" in blend.stdout
    assert "user impact 0.4" in blend.stderr
    assert "took: query_vectors" in blend.stderr


def test_what_the_server_refuses_ends_with_one_line(annserve: Annserve, address: str) -> None:
    done = annserve("query", "similar", "--item", "작품 4", "-k", "501", "--address", address, code=1)

    assert "page_size" in done.stderr
    assert "500" in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_are_shown_and_understood(annserve: Annserve, address: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "names.parquet"
    ids = [f"작품 {number}" for number in range(60)]
    pq.write_table(pa.table({"id": ids, "title": [f"Title {number}" for number in range(60)]}), path)
    names = ("--names", f"{path}:id:title", "--address", address)

    answer = json.loads(annserve("query", "similar", "--item", "title 58", *names, "--json").stdout)

    assert all(row["name"] == row["item_id"].replace("작품", "Title") for row in answer["results"])
    assert "작품 58" not in [row["item_id"] for row in answer["results"]]
    assert "is part of 60 names" in annserve("query", "similar", "--item", "title", *names, code=1).stderr


def test_the_port_of_queries_is_told_from_the_admin_port(annserve: Annserve, address: str) -> None:
    said = annserve("admin", "status", "--address", address, code=1).stderr

    assert f"no such call at {address}, which seems to be the query port" in said
    assert "the admin port is 127.0.0.1:50052 unless told otherwise" in said


def test_a_call_without_a_key_that_is_good_says_whether_one_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    error = AccessError("a valid API key is needed", code=grpc.StatusCode.UNAUTHENTICATED, reason="UNAUTHENTICATED")
    said = []
    for key in ("", "ann_old"):
        if key:
            monkeypatch.setenv("ANNSERVE_API_KEY", key)
        settings.cache_clear()
        said.append(refusal_of(error, "shop:50051", "address"))
    monkeypatch.undo()
    settings.cache_clear()

    assert said == [
        "UNAUTHENTICATED: shop:50051 asks for an API key: set ANNSERVE_API_KEY",
        "UNAUTHENTICATED: shop:50051 refuses the key in ANNSERVE_API_KEY",
    ]


def test_a_port_in_use_is_said_in_one_line(annserve: Annserve, address: str) -> None:
    done = annserve("serve", "--address", address, code=1)

    assert address in done.stderr
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_said_with_what_to_do(annserve: Annserve) -> None:
    done = annserve("query", "similar", "--item", "a", "--address", "127.0.0.1:1", "--timeout", "0.5", code=1)

    assert "is a server running there?" in done.stderr


def test_serving_without_a_snapshot_says_how_to_get_one(tmp_path: Path, annserve: Annserve) -> None:
    done = annserve("serve", "--snapshots", tmp_path, "--address", "127.0.0.1:0", code=1)

    assert "annserve train" in done.stderr
    assert done.stderr.count("\n") == 1


def test_evaluation_prints_every_recommender_for_both_cohorts(
    annserve: Annserve, trained: list[str], purchases: Path
) -> None:
    rows = json.loads(
        annserve("evaluate", purchases, *trained, "--set", "factors=8", "--split", "0.7", "--json").stdout
    )

    assert {row["recommender"] for row in rows} == {
        "annserve (implicit-als)",
        "item-kNN",
        "recent popularity",
        "all-time popularity",
    }
    assert all(0 <= row["recall@20"] <= 1 for row in rows)


def test_settings_are_compared_on_the_validation_window_only(
    annserve: Annserve, trained: list[str], purchases: Path
) -> None:
    swept = ("evaluate", purchases, *trained, "--set", "factors=4,8", "--split", "2026-03-20", "--json")

    rows = json.loads(annserve(*swept, "--window", "validation").stdout)

    assert {row["recommender"] for row in rows if row["recommender"].startswith("annserve")} == {
        "annserve (implicit-als) factors=4",
        "annserve (implicit-als) factors=8",
    }
    assert "validation" in annserve(*swept, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "nowhere.csv"), "nowhere.csv"),
        (("train",), "or say --demo or --from"),
        (("evaluate",), "or say --demo\n"),
        (("query", "similar", "--item", "a", "-k", "0"), "-k"),
        (("query", "recommend", "--placement", "home", "-k", "0"), "-k"),
        (("train", "--demo", "--set", "factrs=8"), "there is no such setting"),
        (("train", "--demo", "--set", "factors=0"), "--set factors: must be at least 1, got '0'"),
        (("train", "--demo", "--set", "factors=two"), "--set factors: must be a whole number, got 'two'"),
        (("train", "--demo", "--set", "factors"), "NAME=VALUE"),
        (("evaluate", "--demo", "--split", "yesterday"), "like 0.8"),
        (("snapshots", "activate", "../elsewhere"), "snapshot_id"),
        (("bench", "search", "--vectors", "nowhere.npy"), "--queries"),
    ],
)
def test_the_first_mistakes_are_answered_with_what_to_do(
    arguments: tuple[str, ...], said: str, annserve: Annserve
) -> None:
    wrong_usage = ("or say --demo or --from", "or say --demo\n", "-k", "NAME=VALUE", "like 0.8", "--queries")
    expected_code = 2 if said in wrong_usage else 1

    done = annserve(*arguments, code=expected_code)

    assert said in done.stderr


@pytest.fixture
def seconds(tmp_path: Path) -> Path:
    """A tiny file of times in seconds, of April 2026, one of 3,000 rows of which is bad."""
    path = tmp_path / "seconds.csv"
    rows = [f"u{row % 40},i{row % 60},{1_775_000_000 + 60 * row}" for row in range(2_999)]
    path.write_text("\n".join(["user_id,item_id,at", *rows, "u1,i1,soon"]) + "\n")
    return path


def test_a_time_unit_that_is_doubtful_is_said(annserve: Annserve, seconds: Path, tmp_path: Path) -> None:
    command = ["train", seconds, "--time-column", "at", "--set", "factors=4", "--snapshots", tmp_path / "snapshots"]

    wrong = annserve(*command, "--time-unit", "ms").stderr
    right = annserve(*command, "--time-unit", "s").stderr

    assert "all times are of 1970, 1970-01-21 13:03 to 1970-01-21 13:06 UTC: is --time-unit s meant?" in wrong
    assert "trained on 2,999 interactions, 1970-01-21 13:03 to 1970-01-21 13:06 UTC" in wrong
    assert "1970" not in right.partition("left out")[0] + right.partition("trained on")[2]
    assert "trained on 2,999 interactions, 2026-03-31 23:33 to 2026-04-03 01:31 UTC" in right
    assert (
        "left out 1 of 3,000 rows: time not understood: 1 (seconds.csv row 3000: must be seconds since 1970, "
        "of the years 1 to 9999, got 'soon')"
    ) in right


def test_times_that_count_from_where_the_data_begin_are_trained_on(annserve: Annserve, tmp_path: Path) -> None:
    path = tmp_path / "relative.csv"
    path.write_text("user_id,item_id,at\n" + "".join(f"u{row % 40},i{row % 60},{row}\n" for row in range(900)))

    done = annserve(
        "train", path, "--time-column", "at", "--time-unit", "s", "--set", "factors=4",
        "--snapshots", tmp_path / "snapshots",
    )  # fmt: skip

    assert "1970-01-01 00:14 UTC: if they are not, see --time-unit and --time-column" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "SECONDS", "--user-column", "member"), "name it with --user-column"),
        (("train", "SECONDS", "--item-column", "member"), "name it with --item-column"),
        (("train", "SECONDS", "--weight-column", "member"), "name it with --weight-column"),
        (("evaluate", "SECONDS", "--time-column", "member"), "name it with --time-column"),
        (("evaluate", "SECONDS"), "name the time column (--time-column)"),
        (
            ("evaluate", "SECONDS", "--time-column", "at", "--time-unit", "s", "--split", "2001-01-01"),
            "another --split",
        ),
        (("train", "SECONDS", "--time-column", "at"), "allowed (--max-bad-share)"),
        (("import-vectors", "--item-vectors", "VECTORS", "--item-ids", "SECONDS"), "name it with --id-column"),
    ],
)
def test_what_is_wrong_with_a_column_names_its_option(
    arguments: tuple[str, ...], said: str, annserve: Annserve, seconds: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((3, 2)))
    files = {"SECONDS": seconds, "VECTORS": tmp_path / "vectors.npy"}

    done = annserve(*(files.get(argument, argument) for argument in arguments), code=1)

    assert said in done.stderr


def test_wrong_settings_are_named_with_what_they_must_be(annserve: Annserve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, problem in (
        ("DRAIN_GRACE_MS", "-1", "must be at least 0, got '-1'"),
        ("WORKERS", "abc", "must be a whole number, got 'abc'"),
        ("ADMIN_ADDRESS", "localhost:99999", "the port must be at most 65535, got 'localhost:99999'"),
        ("LOG_LEVEL", "LOUD", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', got 'LOUD'"),
        ("EVENT_WORDS", "clicks=viewed", "the form is TYPE=WORD,..., for example click=viewed; the types are click"),
        ("EVENT_WEIGHTS", "click", "the form is NAME=NUMBER,..., for example click=1,conversion=4, got 'click'"),
    ):
        with monkeypatch.context() as context:
            context.setenv(f"ANNSERVE_{name}", value)
            with pytest.raises(InputError) as refused:
                settings.__wrapped__()
        assert refused.value.message.startswith(f"ANNSERVE_{name}: {problem}")
    monkeypatch.setenv("ANNSERVE_WORKERS", "abc")
    assert "ANNSERVE_WORKERS: must be a whole number" in annserve("snapshots", "verify", code=1).stderr


@pytest.mark.usefixtures("trained")
def test_a_wrong_option_is_named_as_it_was_given(annserve: Annserve) -> None:
    for option, value in (("--address", "50051"), ("--ops-address", "localhost:99999"), ("--transport", "tcp")):
        assert annserve("serve", option, value, code=1).stderr.startswith(f"annserve: {option}: ")


def test_vectors_made_elsewhere_are_served(annserve: Annserve, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "items.npy", rng.normal(size=(300, 8)))
    (tmp_path / "ids.txt").write_text("\n".join(f"item-{n}" for n in range(300)), encoding="utf-8")

    done = annserve(
        "import-vectors", "--item-vectors", tmp_path / "items.npy", "--item-ids", tmp_path / "ids.txt",
        "--fold-in", "40,0.1", "--snapshots", tmp_path / "snapshots", "--json",
    )  # fmt: skip

    shown = json.loads(done.stdout)
    assert shown["live"]
    assert "whole" in annserve("snapshots", "verify", "--snapshots", tmp_path / "snapshots").stderr


@pytest.mark.usefixtures("trained")
def test_the_search_benchmark_reports_every_filter_of_both_spaces(annserve: Annserve) -> None:
    measured = json.loads(annserve("bench", "search", "--json").stdout)

    assert set(measured) == {"affinity", "likeness"}
    for space in measured.values():
        filters = {row["filter"]: row for row in space["filters"]}
        assert {"none", "random 50.0%", "random 0.1%", "lowest-norm half", "one cluster"} <= set(filters)
        assert all(row["complete"] for row in filters.values())


@pytest.mark.usefixtures("trained")
def test_the_doctor_finds_a_trained_machine_fit(annserve: Annserve) -> None:
    findings = {row["check"]: row for row in json.loads(annserve("doctor", "--json").stdout)}

    assert findings["protobuf"]["state"] == "ok"
    assert findings["snapshot"]["state"] == "ok"
    assert "60 items" in findings["snapshot"]["detail"]


def test_ctrl_c_in_training_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "annserve.cli", "train", "--demo", "--snapshots", str(tmp_path / "snapshots")],
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stderr is not None
        # The lock file appears when the build begins to write.
        while training.poll() is None and not (tmp_path / "snapshots").exists():
            os.sched_yield()
        training.send_signal(signal.SIGINT)
        said = training.stderr.read()

    assert training.returncode == 130
    assert "Traceback" not in said
    assert not [path for path in (tmp_path / "snapshots").iterdir() if not path.name.startswith(".lock")]


def test_help_names_the_variable_of_an_option_and_says_all_of_each_command(annserve: Annserve) -> None:
    options = " ".join(annserve("serve", "--help").stdout.split())
    commands = " ".join(annserve("admin", "--help").stdout.split())

    assert "--no-shared-cache Whether workers share what they have worked out. [env: ANNSERVE_SHARED_CACHE]" in options
    assert "Show how the instance is, and how the last change of snapshots went." in commands


def test_help_has_a_short_option_everywhere(annserve: Annserve) -> None:
    for command in ((), ("serve",), ("admin", "items", "upsert")):
        assert annserve(*command, "-h").stdout == annserve(*command, "--help").stdout


def test_the_version_is_an_option_too(annserve: Annserve) -> None:
    assert annserve("--version").stdout == annserve("version").stdout


def test_rolling_back_where_there_are_no_snapshots_says_so(annserve: Annserve, tmp_path: Path) -> None:
    done = annserve("snapshots", "rollback", "--snapshots", tmp_path / "none", code=1)

    assert done.stderr.strip() == f"annserve: there is no folder of snapshots at {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


def test_an_address_without_a_port_is_told_the_form(annserve: Annserve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNSERVE_OPS_ADDRESS", "50053")

    said = annserve("snapshots", "list", code=1).stderr

    assert said.strip() == (
        "annserve: ANNSERVE_OPS_ADDRESS: the form is host:port, for example 127.0.0.1:50051, got '50053'"
    )


def test_a_misspelt_setting_is_told_with_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNSERVE_WORKRES", "3")
    monkeypatch.setenv("ANNSERVE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("ANNSERVE_PORT_50051_TCP", "tcp://10.0.0.1:50051")

    assert misspelt() == ["ANNSERVE_WORKRES is no setting; ANNSERVE_WORKERS is"]
