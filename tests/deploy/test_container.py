"""The image's command, outside a container: with the image's environment, as its user, from where it may not write."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from checked_traffic import two_snapshots
from test_manifests import ROOT, dockerfile

from annserve_client import Client

USER = 65_532
SECONDS = 60.0


def as_the_image_does(command: list[str]) -> list[str]:
    """Return ``command`` as the image's user, without any of root's powers but to read; as is where nobody is root."""
    if os.geteuid() != 0:
        return command
    # The interpreter may be in a folder of root's, which the image has not.
    reading = [
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ]
    identity = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *identity, *reading, *command]


@pytest.fixture
def snapshots() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="annserve-test-"))
    two_snapshots(folder / "snapshots")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder / "snapshots"
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def written_since(began: float) -> list[str]:
    """Return what the image's user has written outside shared memory."""
    found = []
    for root in ("/tmp", "/var/tmp"):  # noqa: S108 - where anybody may write
        for path in Path(root).rglob("*"):
            try:
                status = path.lstat()
            except OSError:
                continue
            if status.st_uid == USER and status.st_mtime >= began:
                found.append(str(path))
    return found


def test_the_images_command_serves_as_its_user_and_writes_nothing_but_shared_memory(snapshots: Path) -> None:
    environment = dockerfile() | {"ANNSERVE_SNAPSHOTS": str(snapshots), "ANNSERVE_WORKERS": "1"}
    environment |= {
        "PATH": os.environ["PATH"],
        "ANNSERVE_ADDRESS": "127.0.0.1:0",
        "ANNSERVE_OPS_ADDRESS": "127.0.0.1:0",
        "ANNSERVE_ADMIN_ADDRESS": "127.0.0.1:0",
        "HOME": "/nonexistent",
    }
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^(?:ENTRYPOINT|CMD) (.+)$", text, re.MULTILINE) == ['["annserve"]', '["serve"]']
    program = str(Path(sys.executable).parent / "annserve")
    began = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(as_the_image_does([program, "serve"]), stderr=said, env=environment, cwd="/")
        try:
            address, ops_address = bound(process, said)
            with Client(address, timeout_seconds=5.0) as client:
                assert len(client.similar(["item-00001"])) == 10
            # What HEALTHCHECK asks.
            with urllib.request.urlopen(f"http://{ops_address}/livez", timeout=2) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(SECONDS)

    assert code == 0
    assert written_since(began) == []
    assert not [path for path in Path("/dev/shm").glob("annserve-*") if path.stat().st_uid == USER]  # noqa: S108


def bound(process: subprocess.Popen[bytes], said: IO[str]) -> tuple[str, str]:
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        said.seek(0)
        text = said.read()
        if found := re.search(r"serving .* on (127\.0\.0\.1:\d+).*http://(127\.0\.0\.1:\d+)", text, re.DOTALL):
            return found[1], found[2]
        time.sleep(0.05)
    said.seek(0)
    raise RuntimeError(f"it does not serve: {said.read()}")
