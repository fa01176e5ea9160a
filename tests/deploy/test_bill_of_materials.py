"""The bill of materials has everything that an installation holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_lists_every_package_that_is_pinned_with_its_version_and_hashes(tmp_path: Path) -> None:
    pins = ROOT / "requirements" / "runtime.txt"
    written = tmp_path / "sbom.json"
    program = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-format", "JSON"]
    subprocess.run([*program, "--output-file", str(written), str(pins)], check=True, timeout=60, capture_output=True)

    components = json.loads(written.read_text())["components"]

    pinned = re.findall(r"^([a-z0-9_.-]+)==([^ ;]+)", pins.read_text(), re.MULTILINE)
    assert len(pinned) > 50
    assert {(one["name"], one["version"]) for one in components} == set(pinned)
    assert all(reference["hashes"] for one in components for reference in one["externalReferences"])


def test_the_makefile_makes_it_that_way() -> None:
    recipe = (ROOT / "Makefile").read_text()

    assert "cyclonedx-py requirements --output-format JSON --output-file sbom.json requirements/runtime.txt" in recipe
