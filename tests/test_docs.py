"""The documentation names everything a user can meet. That its examples run is tested in `tests/cli/test_demo.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import typer.main

from annserve.catalog.config import CatalogConfig
from annserve.cli.app import app_of
from annserve.domain.catalog import Schema
from annserve.domain.placements import PlacementText
from annserve.placements.file import PlacementFile, Section, sections_in
from annserve.placements.loading import compiled
from annserve.placements.variables import Variables
from annserve.settings import Settings
from annserve.training.train import TrainingSettings
from annserve.v1 import (
    admin_service_pb2,
    error_reason_pb2,
    event_pb2,
    event_service_pb2,
    recommendation_pb2,
    recommendation_service_pb2,
)

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_configuration_page_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    value = str(default).lower() if isinstance(default, bool) else str(default)
    shown = "none" if default is None else f"`{value}`"

    assert re.search(rf"\| `ANNSERVE_{name.upper()}` \| {re.escape(shown)} \|", page("configuration.md"))


@pytest.mark.parametrize(
    "method",
    [
        *recommendation_service_pb2.DESCRIPTOR.services_by_name["RecommendationService"].methods_by_name,
        *admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name,
        *event_service_pb2.DESCRIPTOR.services_by_name["EventService"].methods_by_name,
    ],
)
def test_every_method_is_in_the_api_page(method: str) -> None:
    assert f"| `{method}` |" in page("api.md")


@pytest.mark.parametrize("reason", error_reason_pb2.ErrorReason.keys()[1:])
def test_every_error_reason_is_in_the_api_page(reason: str) -> None:
    assert f"| `{reason.removeprefix('ERROR_REASON_')}` |" in page("api.md")


@pytest.mark.parametrize("name", TrainingSettings.model_fields)
def test_every_training_setting_is_in_the_training_page_with_its_defaults(name: str) -> None:
    als, svd = (getattr(TrainingSettings(trainer=trainer), name) for trainer in ("als", "svd"))
    shown = [value if isinstance(value, str) else f"{value:g}" for value in (als, svd)]

    other = r"" if als == svd or name == "trainer" else rf"`{re.escape(shown[1])}` "
    assert re.search(rf"\| `{name}` \| `{re.escape(shown[0])}` \| {other}\| ", page("training.md"))


@pytest.mark.parametrize("field", recommendation_pb2.RecommendOptions.DESCRIPTOR.fields_by_name)
def test_every_option_of_a_request_is_in_the_api_page(field: str) -> None:
    assert re.search(rf"\| `{field}[`.]", page("api.md"))


@pytest.mark.parametrize("field", event_pb2.Event.DESCRIPTOR.fields_by_name)
def test_every_field_of_an_event_is_in_the_events_page(field: str) -> None:
    assert f"| `{field}` |" in page("events.md")


def keys_of(model: type[Section]) -> Iterator[str]:
    for name, described in model.model_fields.items():
        yield name
        for section in sections_in(described.annotation):
            yield from keys_of(section)


@pytest.mark.parametrize("key", sorted({*keys_of(PlacementFile), "else"}))
def test_every_key_of_a_placement_is_in_its_page(key: str) -> None:
    assert re.search(rf"\| [^|]*`{key}[`\[]", page("placements.md"))


@pytest.mark.parametrize("name", Variables(Schema(), {}).by_name)
def test_every_name_that_expressions_may_read_is_in_the_placement_page(name: str) -> None:
    assert f"`{name}`" in page("placements.md")


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", page("placements.md"), re.DOTALL))
def test_examples_of_placements_are_right(example: str) -> None:
    fields = {"price": "number", "stock": "number", "on_sale": "boolean", "released": "time"}
    fields |= {"status": "string", "author": "string"}
    schema = CatalogConfig.model_validate({"fields": fields}).declared()
    text = PlacementText(name="example", origin="docs/placements.md", text=example)

    assert compiled([text], schema)[1] == []


@pytest.mark.parametrize("name", [n for n, f in Settings.model_fields.items() if isinstance(f.default, Path)])
def test_what_an_instance_keeps_where_it_is_started_is_not_for_git(name: str) -> None:
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    path = Settings.model_fields[name].default
    kept = [f"/{path}", f"/.{path}.lock", f"/.{path}.new"] if path.suffix else [f"/{path}/"]

    assert [file for file in kept if not any(fnmatchcase(file, pattern) for pattern in patterns)] == []


def commands(command: Any, path: str = "annserve") -> Iterator[str]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")
    if not children:
        yield path


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app_of()))))
def test_every_command_is_in_the_command_page(command: str) -> None:
    assert f"`{command}" in page("commands.md")


def test_messages_that_operators_look_up_are_those_of_the_code() -> None:
    table = page("operations.md").partition("## When something is wrong")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    parts = [
        part.strip(" :")
        for row in rows
        for message in re.findall("`([^`]+)`", row)
        for part in re.split("…|0\\.98", message)
    ]
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "annserve").rglob("*.py"))
    # What is written over several lines is one text.
    source = re.sub(r'"\s*\n\s*f?"', "", source)

    assert len(rows) > 15
    # Shorter ones are found everywhere.
    assert [part for part in parts if len(part) > 5 and part not in source] == []


def test_stubs_are_generated_as_the_api_page_says(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ \S+python (-m grpc_tools\.protoc .*)$", page("api.md"), re.MULTILINE)
    protos = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("proto/annserve/v1/*.proto"))
    arguments = command.replace("=stubs", f"={tmp_path}").removesuffix(" proto/annserve/v1/*.proto").split()
    subprocess.run([sys.executable, *arguments, *protos], cwd=ROOT, check=True, timeout=60)

    assert (tmp_path / "annserve" / "v1" / "recommendation_service_pb2_grpc.py").exists()


def test_commands_of_the_catalogue_page_name_a_catalogue() -> None:
    blocks = re.findall(r"```console\n(.*?)```", page("catalogue.md"), re.DOTALL)
    asked = [block for block in blocks if "$ annserve catalog " in block]

    assert len(asked) == 1
    assert asked[0].startswith("$ export ANNSERVE_CATALOG=")


def test_the_demo_is_stopped_before_the_quickstart_starts_another() -> None:
    before = page("quickstart.md").partition("To write your own")[2].partition("serve --demo --placements")[0]

    assert "Ctrl-C" in before


def test_tests_that_the_threat_table_names_are_there() -> None:
    named = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", page("security.md"))

    assert len(named) > 10
    assert [name for name in named if not list((ROOT / "tests").rglob(name))] == []


PAGES = [*ROOT.glob("*.md"), ROOT / "loadtest" / "README.md", *(ROOT / "clients").glob("*/README.md")]
PAGES += (ROOT / "docs").rglob("*.md")


def anchors_of(path: Path) -> set[str]:
    """Return what the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("source", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(source: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", source.read_text(encoding="utf-8")):
        path = source.parent / target if target else source

        assert path.exists(), f"{source.name} links to {target}"
        assert not anchor or anchor in anchors_of(path), f"{source.name} links to {target}#{anchor}"
