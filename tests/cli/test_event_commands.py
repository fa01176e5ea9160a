"""`annserve events`: to a server and back, by files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from checked_traffic import two_snapshots
from instances import instance

from annserve.cli.event_rows import read_batches
from annserve.domain.errors import InputError

Events = Callable[..., subprocess.CompletedProcess[str]]

NOW = datetime.now(UTC).replace(microsecond=250_000)
LINES: list[dict[str, Any]] = [
    {
        "event_id": "1",
        "type": "impression",
        "user_id": "사용자",
        "item_ids": ["상품-1", "b"],
        "time": NOW.isoformat(timespec="milliseconds"),
        "impression_id": "1",
        "context_item_ids": ["c"],
        "placement": {"name": "home", "version": "0f", "mode": "related", "user_context_similarity": 0.5},
    },
    {
        "event_id": "2",
        "type": "conversion",
        "user_id": "사용자",
        "item_ids": ["b"],
        "time": (NOW - timedelta(days=2)).isoformat(timespec="milliseconds"),
        "impression_id": "1",
        "value": 2.5,
    },
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    (folder / "in.jsonl").write_text("\n".join(json.dumps(line) for line in LINES) + "\n\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    two_snapshots(folder / "snapshots", 50)
    stores = {name: str(folder / f"{name.lower()}.jsonl") for name in ("EVENTS", "ERASED_USERS", "FRESH_ITEMS")}
    environment = {f"ANNSERVE_{name}": path for name, path in stores.items()}
    with instance(folder / "snapshots", folder, workers=1, **environment) as served:
        yield served.address


@pytest.fixture(scope="module")
def events(folder: Path) -> Events:
    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "annserve.cli", "events", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | {"ANNSERVE_EVENTS": str(folder / "events.jsonl"), "ANNSERVE_ADDRESS": "127.0.0.1:1"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_events_are_written_once_shown_and_exported_as_they_were(folder: Path, address: str, events: Events) -> None:
    first = events("write", folder / "in.jsonl", "--address", address, "--json")
    again = events("write", folder / "in.jsonl", "--address", address)

    assert json.loads(first.stdout) == {"accepted_count": 2, "duplicate_count": 0}
    assert "0 events written, 2 were there already" in again.stderr
    assert json.loads(events("show", "--user", "사용자", "--json").stdout) == LINES
    table = events("show", "--user", "사용자").stdout
    assert "상품-1 b" in table
    assert "home" in table
    assert "no events of nobody" in events("show", "--user", "nobody").stderr

    assert "2 events" in events("export", folder / "out.jsonl").stderr
    told = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told == [LINES[1], LINES[0]]
    since = (NOW - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert json.loads(events("export", folder / "new.parquet", "--since", since, "--json").stdout)["event_count"] == 1
    events("export", folder / "all.parquet", "--until", (NOW + timedelta(days=1)).strftime("%Y-%m-%d"))
    rows = pq.read_table(folder / "all.parquet").to_pylist()
    assert [row["event_id"] for row in rows] == ["2", "1"]
    assert rows[1]["time"] == NOW
    assert rows[1]["placement"]["mode"] == "related"
    assert (rows[0]["placement"], rows[0]["value"]) == (None, 2.5)


def test_what_cannot_be_done_is_said_in_a_line(folder: Path, events: Events) -> None:
    assert "in.jsonl" in events("write", folder / "missing" / "in.jsonl", code=1).stderr
    assert "127.0.0.1:1" in events("write", folder / "in.jsonl", "--timeout", "0.3", code=1).stderr
    assert ".parquet or .jsonl" in events("export", folder / "out.csv", code=1).stderr
    assert not [path for path in folder.iterdir() if path.name.endswith(".new")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: must be JSON"),
        ('{"event_id": "1"}', "line 2: type: must be there"),
        ('{"event_id": "1", "type": "seen", "user_id": "u", "item_ids": ["a"]}', "line 2: type: must be 'impression'"),
        ('{"event_id": "1", "type": "click", "user_id": "u", "item_ids": "a"}', "line 2: item_ids: must be a list"),
        (
            '{"event_id": "1", "type": "click", "user_id": "u", "item_ids": ["a"], "time": "2026-01-01T00:00:00"}',
            "line 2: time",
        ),
    ],
)
def test_a_line_that_is_no_event_is_named(line: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        list(read_batches([json.dumps(LINES[0]), line], "in.jsonl"))


def test_requests_have_room_for_what_they_carry() -> None:
    small = [json.dumps(LINES[1] | {"event_id": str(number)}) for number in range(1_200)]
    large = [json.dumps(LINES[1] | {"item_ids": ["x" * 100] * 400}) for _ in range(25)]

    assert [len(batch) for batch in read_batches(small, "")] == [500, 500, 200]
    assert max(len(batch) for batch in read_batches(large, "")) < 10
    assert sum(len(batch) for batch in read_batches(large, "")) == 25
