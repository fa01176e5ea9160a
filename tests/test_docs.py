"""The documentation names everything a user can meet. That its examples run is tested in `tests/cli/test_demo.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from annserve.cli.app import app
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


def commands(command: Any, path: str = "annserve") -> Iterator[str]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")
    if not children:
        yield path


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))))
def test_every_command_is_in_the_command_page(command: str) -> None:
    assert f"`{command}" in page("commands.md")


def test_links_between_pages_lead_somewhere() -> None:
    for source in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", source.read_text(encoding="utf-8")):
            assert (source.parent / target).exists(), f"{source.name} links to {target}"
