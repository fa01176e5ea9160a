"""What is imported is declared, and what is declared is imported: nothing comes with something else by chance."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"annserve", "annserve_client"}
PACKAGES = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry": "opentelemetry-sdk",
    "pydantic_core": "pydantic",
}
"""Of modules that share their first name with those of others, or are one half of a package of two."""
NOT_IMPORTED = {
    "tzdata": "time zones, which zoneinfo reads where the system has none",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(project: dict[str, Any], extras: Iterable[str] = ()) -> set[str]:
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    return {normal(re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]) for requirement in requirements}


def modules_of(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported(package: Path) -> set[str]:
    """Return the distributions that the modules of ``package`` import, wherever in them."""
    installed = packages_distributions()
    distributions: set[str] = set()
    for path in package.rglob("*.py"):
        for module in modules_of(ast.parse(path.read_text(encoding="utf-8"))):
            first, two = module.partition(".")[0], ".".join(module.split(".")[:2])
            if first in sys.stdlib_module_names or first in OURS:
                continue
            if named := PACKAGES.get(two) or PACKAGES.get(first):
                distributions.add(named)
            else:
                # Several only where one of them is the package and the others are types for it.
                distributions |= {normal(name) for name in installed[first] if not name.startswith("types-")}
    return distributions


@pytest.mark.parametrize(
    ("package", "project", "extras"),
    [
        ("annserve", "pyproject.toml", ("native", "otel", "plots")),
        ("clients/python/annserve_client", "clients/python/pyproject.toml", ()),
    ],
)
def test_what_is_imported_is_what_is_declared(package: str, project: str, extras: tuple[str, ...]) -> None:
    known = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))["project"]
    found = imported(ROOT / package)

    assert found - declared(known, extras) == set()
    assert declared(known, extras) - found - set(NOT_IMPORTED) == set()


def test_every_package_is_pinned_with_hashes() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for pin in re.sub(r"\\\n", " ", path.read_text()).splitlines():
            if pin and not pin.lstrip().startswith("#"):
                assert re.match(r"\S+==\S+", pin), f"{path.name}: {pin[:80]}"
                assert "--hash=sha256:" in pin, f"{path.name}: {pin[:80]}"
