"""API keys are made, listed and revoked; the file never holds one."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from annserve.cli.app import app_of
from annserve.service.access_keys import PREFIX, AccessKeys, Scope


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app_of(), ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_printed_once_and_good_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    (first, second) = (
        next(line for line in run("new", str(file), name, "--scope", "query", *more).split() if PREFIX in line)
        for name, more in (("shop", ()), ("shop", ("--scope", "events", "--days", "30")))
    )

    text = file.read_text()
    assert first not in text
    assert second not in text
    keys = AccessKeys(file)
    found = keys.find(second)
    assert found is not None
    assert found.scopes == {Scope.QUERY, Scope.EVENTS}
    assert found.expires is not None
    assert keys.find(first) is not None

    rows = json.loads(run("list", str(file), "--json"))
    assert [row["name"] for row in rows] == ["shop", "shop"]
    run("revoke", str(file), rows[0]["sha256"])
    assert AccessKeys(file).find(first) is None
    assert AccessKeys(file).find(second) is not None


def test_to_revoke_what_is_not_one_key_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    run("new", str(file), "shop", "--scope", "query")
    before = file.read_text()

    result = CliRunner().invoke(app_of(), ["keys", "revoke", str(file), "zz"])

    assert result.exit_code != 0
    assert file.read_text() == before
