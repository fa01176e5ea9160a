from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Annserve = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "snapshots"


@pytest.fixture(scope="session")
def annserve(snapshots: Path) -> Annserve:
    """Return a function that runs the command line as a person would, with a folder of snapshots of its own."""

    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "annserve.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | {"ANNSERVE_SNAPSHOTS": str(snapshots), "ANNSERVE_ADDRESS": "127.0.0.1:1"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tastes that alternate, in Korean, over a hundred days."""
    path = tmp_path_factory.mktemp("data") / "구매.csv"
    lines = ["회원,작품,시각"]
    for user in range(40):
        for item in range(user % 2, 60, 2):
            day = (user * 7 + item * 3) % 100
            lines.append(f"회원-{user},작품 {item},2026-0{1 + day // 30}-{1 + day % 28:02d}T12:00:00Z")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(annserve: Annserve, purchases: Path) -> list[str]:
    """Return the columns of `purchases` as options, after training on them twice."""
    columns = ["--user-column", "회원", "--item-column", "작품", "--time-column", "시각"]
    for seed in (1, 2):
        annserve("train", purchases, *columns, "--set", "factors=8", "--set", f"seed={seed}")
    return columns
