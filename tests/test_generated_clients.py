"""What tells, without any toolchain, that a client's generated code is not what proto/ says."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ["typescript", "go", "java"]
FILTER = Path("proto") / "annserve" / "v1" / "filter.proto"


@pytest.fixture
def script(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`scripts/clients.py`, at work on a copy of proto/ and of the code generated for client ``name``."""
    specification = importlib.util.spec_from_file_location("generating_clients", ROOT / "scripts" / "clients.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, specification.name, module)
    specification.loader.exec_module(module)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    target = module.TARGETS[name]
    copied = tmp_path / target.folder.relative_to(ROOT)
    shutil.copytree(target.folder, copied)
    monkeypatch.setitem(module.TARGETS, name, replace(target, folder=copied))
    for constant in ("ROOT", "PROTO", "SERVICE_CONFIG"):
        monkeypatch.setattr(module, constant, tmp_path / getattr(module, constant).relative_to(ROOT))
    # The default of an argument was bound before.
    monkeypatch.setattr(module.sums, "__defaults__", (tmp_path,))
    return module


def _generated(script: ModuleType, name: str) -> Path:
    """Return one of the generated files of a client."""
    path: Path = script.files(script.TARGETS[name].folder)[0]
    return path


def _edit(path: Path) -> None:
    path.write_text(path.read_text() + "\n// changed\n")


CHANGES: dict[str, Callable[[ModuleType, str], Path]] = {
    "proto/": lambda script, _: script.ROOT / FILTER,
    "the service config": lambda script, _: script.SERVICE_CONFIG,
    "the generated code": _generated,
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_current(script: ModuleType, name: str) -> None:
    script.check(name)


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_change_after_generating_is_told_by_its_file(script: ModuleType, name: str, what: str) -> None:
    changed = CHANGES[what](script, name)
    _edit(changed)

    with pytest.raises(SystemExit, match=changed.name):
        script.check(name)


@pytest.mark.parametrize("name", NAMES)
def test_file_that_was_added_or_removed_since_is_told(script: ModuleType, name: str) -> None:
    (script.ROOT / FILTER).with_name("newer.proto").touch()
    generated = _generated(script, name)
    generated.unlink()

    with pytest.raises(SystemExit) as told:
        script.check(name)

    assert "newer.proto" in str(told.value)
    assert generated.name in str(told.value)
