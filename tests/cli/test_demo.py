"""The first minute: what `make serve` runs, the calls it prints, and the examples of the README and the quickstart."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Demo:
    address: str
    admin_address: str
    said: list[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Train and serve the bundled data, as `make serve` does, on a free port."""
    folder = tmp_path_factory.mktemp("demo")
    admin_address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "annserve.cli", "serve", "--demo", "--address", "127.0.0.1:0"]
    command += ["--admin-address", admin_address]
    with subprocess.Popen(
        [*command, "--snapshots", str(folder / "snapshots")],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ANNSERVE_FRESH_ITEMS": str(folder / "fresh_items.jsonl")},
    ) as server:
        assert server.stderr is not None
        said: list[str] = []
        while not any("admin status" in line for line in said):
            line = server.stderr.readline()
            assert line, said
            said.append(line.rstrip())
        found = (re.search(r"^serving .* on (127\.0\.0\.1:\d+)$", line) for line in said)
        yield Demo(next(match[1] for match in found if match), admin_address, said)
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(20) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_calls_to_try_work_as_printed_and_answer_with_names(demo: Demo) -> None:
    calls = [shlex.split(line) for line in demo.said if " query " in line]

    sizes = {"similar": 10, "personalize": 10, "related": 10, "home": 20, "page_end": 12}
    asked = [call[4] if call[2] == "recommend" else call[2] for call in calls]
    assert asked == ["similar", *sizes]
    for name, call in zip(asked, calls, strict=True):
        # The printed program is how this one was started, here not by the name of a script.
        table = run([sys.executable, "-m", "annserve.cli", *call[1:]])
        assert len(table.splitlines()) == sizes[name] + 2
        assert "name" in table.splitlines()[0]


def test_the_instance_says_how_it_is_as_printed(demo: Demo) -> None:
    (call,) = [shlex.split(line) for line in demo.said if " admin status" in line]

    assert "serving" in run([sys.executable, "-m", "annserve.cli", *call[1:]])


def test_fresh_items_come_and_go_as_the_operations_page_shows(demo: Demo) -> None:
    section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Fresh items")[2]
    upserted, deleted = re.findall(r"^\$ (.*annserve admin items .*)$", section, re.MULTILINE)[:2]

    for command in (upserted, deleted):
        program = f"{shlex.quote(sys.executable)} -m annserve.cli"
        run(["sh", "-c", f"{command.replace('annserve', program)} --address {demo.admin_address}"])


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/api.md", "clients/python/README.md"])
def test_the_python_examples_run(page: str, demo: Demo) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)

    assert examples
    for example in examples:
        assert run([sys.executable, "-c", example.replace("127.0.0.1:50051", demo.address)])


def test_the_teacups_go_with_the_cake_stand(demo: Demo) -> None:
    arguments = ["query", "similar", "--item", "regency cakestand 3 tier", "--names", "demo", "--address", demo.address]

    table = run([sys.executable, "-m", "annserve.cli", *arguments])

    assert table.count("REGENCY TEACUP AND SAUCER") >= 2


TRANSCRIPT = re.compile(r"^\$ \.venv/bin/(annserve query recommend .*)\n((?:.+\n)*)", re.MULTILINE)


def test_the_transcript_of_the_examples_is_what_they_answer(demo: Demo) -> None:
    quickstart = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    transcript = [(command, said) for command, said in TRANSCRIPT.findall(quickstart) if "placement " in said]
    asked = set()
    for command, said in transcript:
        placement = command.split("--placement ")[1].split()[0]
        asked.add(placement)
        arguments = [*shlex.split(command)[1:], "--address", demo.address]
        done = subprocess.run(
            [sys.executable, "-m", "annserve.cli", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        if "quiet hour" in done.stderr:
            continue  # Seven o'clock in London; the file has it so.
        told = [line for line in said.splitlines() if line.startswith("placement ")]
        assert _named(done.stdout) == _named(said)
        assert told[0] in done.stderr.splitlines()

    assert asked == {"home", "page_end", "cart", "popup"}


def _named(table: str) -> list[tuple[str, ...]]:
    """Return rank, item and name of each row."""
    rows = [[cell.strip() for cell in line.split("│")] for line in table.splitlines() if "│" in line]
    return [tuple(row[:3]) for row in rows]
