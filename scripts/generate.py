#!/usr/bin/env python3
"""Generate the Python stubs from proto/ into annserve/v1 and the Python client, or `--check` that they are current.

The client carries its own copy, so that it needs nothing of the server. Both keep the proto file name
`annserve/v1/...`: loaded together they share their classes, where another name would be a "duplicate symbol".
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "annserve" / "v1"
CLIENT = ROOT / "clients" / "python" / "annserve_client" / "_gen"
PROTOS = sorted(path.relative_to(ROOT / "proto").as_posix() for path in (ROOT / "proto" / "annserve").rglob("*.proto"))


def generate(folder: Path) -> Path:
    """Write the stubs below ``folder``; returns the folder of the package itself."""
    includes = [str(ROOT / "proto"), str(ROOT / "proto" / "third_party"), str(resources.files("grpc_tools") / "_proto")]
    # The plugins of mypy-protobuf are programs beside this Python.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    arguments = ["protoc", *(f"-I{include}" for include in includes)]
    arguments += [f"--{kind}_out={folder}" for kind in ("python", "grpc_python")]
    arguments += [f"--{kind}_out=quiet:{folder}" for kind in ("mypy", "mypy_grpc")]
    if protoc.main([*arguments, *PROTOS]) != 0:
        sys.exit("protoc failed; its message is above")
    package = folder / "annserve" / "v1"
    (package / "__init__.py").write_text(
        '"""Generated from proto/annserve/v1 by scripts/generate.py; never edited."""\n'
    )
    for path in [*package.glob("*_grpc.py"), *package.glob("*_grpc.pyi")]:
        # Files of plain messages have no service, so nothing to say here.
        if "_service_" not in path.name:
            path.unlink()
    return package


def relative(package: Path, target: Path) -> None:
    """Copy the stubs of ``package`` to ``target`` with imports relative to themselves, for use outside `annserve`."""
    target.mkdir(parents=True)
    for path in sorted(package.iterdir()):
        text = path.read_text()
        text = re.sub(r"^from annserve\.v1 import (\w+)", r"from . import \1", text, flags=re.MULTILINE)
        text = re.sub(r"^import annserve\.v1\.(\w+)$", r"from . import \1", text, flags=re.MULTILINE)
        (target / path.name).write_text(text)


def main() -> None:
    """Generate, then either put the stubs in place or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when a committed stub is not current"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        package = generate(Path(scratch))
        relative(package, Path(scratch) / "client")
        for fresh, committed in ((package, SERVER), (Path(scratch) / "client", CLIENT)):
            if check:
                names = sorted({path.name for folder in (fresh, committed) for path in folder.glob("*.py*")})
                stale = [name for name in names if not _same(fresh / name, committed / name)]
                if stale:
                    sys.exit(f"{committed.relative_to(ROOT)}: not current: {', '.join(stale)}; run scripts/generate.py")
            else:
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh, committed)


def _same(left: Path, right: Path) -> bool:
    return left.is_file() and right.is_file() and filecmp.cmp(left, right, shallow=False)


if __name__ == "__main__":
    main()
