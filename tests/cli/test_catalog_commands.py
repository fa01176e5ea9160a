"""The catalogue from the command line: in a file and in a real MongoDB, filled, checked, served, asked."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mongod import MongoServer

from annserve.cli import keeping
from annserve.domain.errors import InputError

Annserve = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
fields:
  price: number
  kind: string
  tags: {type: string, many: true}
  released: time
"""


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A document for each item that is trained on but the last, and for one that is not."""
    path = tmp_path / "items.jsonl"
    lines = [
        {
            "item_id": f"작품 {number}",
            "price": number,
            "kind": "even" if number % 2 == 0 else "odd",
            "tags": ["액션", f"tag-{number % 3}"],
            "released": f"2026-01-{1 + number % 28:02d}T00:00:00Z",
        }
        for number in range(59)
    ]
    lines[7]["price"] = "seven"
    del lines[8]["kind"]
    lines.append({"item_id": "작품 999", "price": 1, "kind": "odd", "tags": [], "released": "2026-01-01T00:00:00Z"})
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(params=["file", "mongodb"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str) -> list[str]:
    """The options that name an empty catalogue."""
    config = tmp_path / "catalog.yaml"
    config.write_text(CONFIG + f"mongodb: {{database: {database_name}}}\n", encoding="utf-8")
    address = str(tmp_path / "catalogue.jsonl") if request.param == "file" else mongod.uri
    return ["--catalog", address, "--catalog-config", str(config)]


@contextmanager
def serving(snapshots: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "annserve.cli", "serve", "--address", "127.0.0.1:0", "--snapshots", str(snapshots)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said: list[str] = []
        while not (found := re.search(r"^serving .* on (127\.0\.0\.1:\d+)$", said[-1].rstrip() if said else "")):
            line = server.stderr.readline()
            assert line, said
            said.append(line)
        yield found[1]
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(20) == 0


def asker(annserve: Annserve, address: str) -> Callable[..., Any]:
    def ask(*arguments: str) -> Any:
        return json.loads(annserve("query", *arguments, "--address", address, "--timeout", "20", "--json").stdout)

    return ask


@pytest.mark.usefixtures("trained")
def test_a_catalogue_is_filled_checked_served_and_asked(
    annserve: Annserve, snapshots: Path, catalog: list[str], items: Path, tmp_path: Path
) -> None:
    histories = ["--histories", str(tmp_path / "histories.jsonl")]

    assert "60 items written" in annserve("catalog", "load", items, *catalog).stderr
    assert annserve("catalog", "ensure-indexes", *catalog).stderr.strip() == "every index is there already"
    checked = json.loads(annserve("catalog", "check", *catalog, "--json").stdout)
    fields = {row["field"]: row for row in checked["fields"]}
    assert (fields["price"]["other type"], fields["price"]["examples"]) == (1, "작품 7")
    assert fields["kind"]["missing"] == 1
    assert [row["count"] for row in checked["items"]] == [59, 1, 1]

    with serving(snapshots, *catalog, *histories) as address:
        ask = asker(annserve, address)
        for _ in range(2):  # Not known yet, and then known.
            answer = ask(
                "similar", "--item", "작품 10", "--filter", 'kind = "even" and price < 30', "--fields", "price"
            )
            prices = [result["metadata"]["price"][0] for result in answer["results"]]
            assert len(prices) == 10
            assert all(price < 30 and price % 2 == 0 for price in prices)
            assert 10 not in prices
        tagged = ask("similar", "--item", "작품 10", "--filter", 'tags contains "tag-1"', "-k", "50")
        assert {int(result["item_id"].split()[1]) % 3 for result in tagged["results"]} == {1}
        assert "작품 59" not in {
            result["item_id"] for result in ask("similar", "--item", "작품 1", "-k", "60")["results"]
        }

        annserve("history", "add", "새 회원", "작품 10", "작품 12", "--event", "liked", *catalog, *histories)
        personal = ask("personalize", "--user", "새 회원", "-k", "20")
        assert {result["source"] for result in personal["results"]} == {"fold_in"}
        assert not {"작품 10", "작품 12"} & {result["item_id"] for result in personal["results"]}
        shown = json.loads(annserve("history", "show", "새 회원", *catalog, *histories, "--json").stdout)
        assert [(entry["item_id"], entry["event"]) for entry in shown] == [("작품 10", "liked"), ("작품 12", "liked")]
        assert "2 entries" in annserve("history", "erase", "새 회원", *catalog, *histories).stderr
        assert json.loads(annserve("history", "show", "새 회원", *catalog, *histories, "--json").stdout) == []

        wrong = annserve("query", "similar", "--item", "작품 1", "--filter", "prize < 3", "--address", address, code=1)
        assert "the fields are price, kind, tags, released" in wrong.stderr


def test_a_catalogue_that_cannot_be_used_says_what_to_do(annserve: Annserve, tmp_path: Path) -> None:
    config = tmp_path / "catalog.yaml"
    config.write_text("fields: {price: nummer}", encoding="utf-8")

    assert "--catalog or ANNSERVE_CATALOG" in annserve("catalog", "ensure-indexes", code=1).stderr
    for arguments, said in (
        (["--catalog", "mongodb://127.0.0.1:1"], "declare them in a YAML file, --catalog-config (docs/catalogue.md"),
        (["--catalog", "redis://127.0.0.1:1", "--catalog-config", str(config)], "price"),
        (["--catalog", str(tmp_path / "none.parquet")], "cannot be read"),
        (["--catalog", str(tmp_path / "none.csv")], "--catalog-config"),
    ):
        assert said in annserve("catalog", "ensure-indexes", *arguments, code=1).stderr


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ('{"item_id": "a"}', [], "does not say the types of its fields: declare them in a YAML file, --catalog-config"),
        ('{"sku": "a"}', ["--catalog-config", "catalog.yaml"], "item_id is missing: 1; where the ids are in another"),
        ('{"item_id', ["--catalog-config", "catalog.yaml"], "1 of 1 rows are of no use: no JSON"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line_before_anything_is_started(
    annserve: Annserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("catalog.yaml").write_text("fields: {price: number}", encoding="utf-8")
    Path("items.jsonl").write_text(text, encoding="utf-8")

    refused = annserve("serve", "--address", "127.0.0.1:0", "--catalog", "items.jsonl", *options, code=1)

    assert told in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_keeper_that_cannot_read_the_catalogue_ends_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def keep(*_: object) -> None:
        raise InputError("items.jsonl cannot be read")

    monkeypatch.setattr(keeping, "begun", lambda *_: (None, None))
    monkeypatch.setattr(keeping, "_keep", keep)

    with pytest.raises(SystemExit) as ended:
        keeping.main()

    assert ended.value.code == 1
    assert capsys.readouterr().err == "annserve: the keeper cannot start: items.jsonl cannot be read\n"


def test_a_server_that_is_down_is_named_without_its_password(annserve: Annserve, tmp_path: Path) -> None:
    config = tmp_path / "catalog.yaml"
    config.write_text("fields: {price: number}", encoding="utf-8")
    address = "mongodb://someone:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100"

    failed = annserve("history", "show", "u", "--catalog", address, "--catalog-config", config, code=1)

    assert "catalogue" in failed.stderr
    assert "hunter2" not in failed.stderr


def test_the_demo_fills_an_empty_mongodb_and_serves_it(
    annserve: Annserve, mongod: MongoServer, database_name: str, tmp_path: Path, snapshots: Path, trained: list[str]
) -> None:
    assert trained
    config = tmp_path / "catalog.yaml"
    config.write_text(
        f"fields: {{name: string, price: number}}\nmongodb: {{database: {database_name}}}\n", encoding="utf-8"
    )
    options = ["--catalog", mongod.uri, "--catalog-config", str(config)]
    command = [sys.executable, "-m", "annserve.cli", "serve", "--demo", "--address", "127.0.0.1:0", *options]

    with subprocess.Popen([*command, "--snapshots", str(snapshots)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said: list[str] = []
        while not any(line.startswith("serving") for line in said):
            line = server.stderr.readline()
            assert line, said
            said.append(line)
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(20) == 0

    assert "4,037 bundled items written" in "".join(said)
    assert "every index" in annserve("catalog", "ensure-indexes", *options).stderr
