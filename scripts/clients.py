#!/usr/bin/env python3
"""Generate what the TypeScript, Go and Java clients have of proto/, with the toolchain of each (see CONTRIBUTING.md).

`--check` needs no toolchain: beside the generated files lies a list of their SHA-256 sums and of those of the files of
proto/ they were generated from, and neither may have changed since. `--compare` generates anew and compares.
AdminService is left out: instances are operated by the command line and the Python client.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SERVICE_CONFIG = PROTO / "annserve" / "v1" / "service_config.json"
SUMS = "generated.sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A client, and where its generated files are."""

    folder: Path
    """Holds generated files alone."""
    code: str = "."
    """Where in `folder` buf writes."""
    service_config: str
    """Where in `folder` the service config is."""
    protos: tuple[str, ...] = ("annserve",)
    """What of proto/ is generated."""


TARGETS = {
    # google.rpc has no package of its own for protobuf-es; for Go and Java it has.
    "typescript": Target(
        folder=ROOT / "clients" / "typescript" / "src" / "gen",
        service_config="service_config.ts",
        protos=("annserve", "third_party"),
    ),
    "go": Target(folder=ROOT / "clients" / "go" / "annservev1", code="..", service_config="service_config.json"),
    "java": Target(
        folder=ROOT / "clients" / "java" / "src" / "generated",
        code="java",
        service_config="resources/annserve/v1/service_config.json",
    ),
}


def sources(target: Target) -> list[Path]:
    """Return the files that ``target`` is generated from."""
    protos = [path for part in target.protos for path in sorted((PROTO / part).rglob("*.proto"))]
    return [SERVICE_CONFIG, *(path for path in protos if not path.name.startswith("admin"))]


def generate(name: str, folder: Path) -> None:
    """Write what ``name`` has of proto/ to ``folder``, its sums excepted."""
    target = TARGETS[name]
    buf = Path(sys.executable).parent / "buf"
    (folder / target.code).mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        buf,
        "generate",
        "--template",
        f"clients/{name}/buf.gen.yaml",
        "-o",
        folder / target.code,
    ]
    for source in sources(target)[1:]:
        command += ["--path", source.relative_to(ROOT)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        sys.exit(f"{name}: buf failed; its message is above")
    text = SERVICE_CONFIG.read_text()
    config = folder / target.service_config
    config.parent.mkdir(parents=True, exist_ok=True)
    if config.suffix == ".ts":
        compact = json.dumps(json.loads(text), separators=(",", ":"))
        text = f"// Generated from proto/annserve/v1/service_config.json.\nexport const serviceConfig = {compact!r};\n"
    config.write_text(text)


def sums(paths: Iterable[Path], root: Path = ROOT) -> str:
    """Return the sums of ``paths`` as sha256sum(1) writes them, named from ``root`` on."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in paths
    )


def files(folder: Path) -> list[Path]:
    """Return the generated files in ``folder``."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)


def check(name: str) -> None:
    """Exit unless sums say that neither proto/ nor the generated files have changed since they were generated."""
    target = TARGETS[name]
    recorded = target.folder / SUMS
    now = sums([*sources(target), *files(target.folder)]).splitlines()
    then = recorded.read_text().splitlines() if recorded.exists() else []
    changed = sorted({line.partition("  ")[2] for line in {*now} ^ {*then}})
    if changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        sys.exit(f"clients/{name}: not generated from proto/ as it is: {shown}; run make clients")


def compare(name: str) -> None:
    """Exit unless what is committed is what generating gives."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / target.folder.name
        generate(name, folder)
        if sums(files(folder), folder) != sums(files(target.folder), target.folder):
            sys.exit(f"clients/{name}: other toolchains or hands than those of this machine made it; run make clients")


def write(name: str) -> None:
    """Put what is generated, and its sums, in place."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / target.folder.name
        generate(name, folder)
        shutil.rmtree(target.folder, ignore_errors=True)
        shutil.copytree(folder, target.folder)
    (target.folder / SUMS).write_text(sums([*sources(target), *files(target.folder)]))


def main() -> None:
    """Generate, check or compare the clients that are named, all unless any is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", nargs="*", choices=[*TARGETS, []], help="which; all unless said")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", dest="act", action="store_const", const=check, default=write, help="compare sums")
    kind.add_argument("--compare", dest="act", action="store_const", const=compare, help="generate anew and compare")
    arguments = parser.parse_args()
    for name in arguments.client or TARGETS:
        arguments.act(name)


if __name__ == "__main__":
    main()
