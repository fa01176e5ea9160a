"""Dashboards and alerts ask for metrics that there are."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from checked_traffic import catalogue, two_snapshots
from instances import instance, until
from prometheus_client.parser import text_string_to_metric_families

from annserve_client import Client
from annserve_client.admin import AdminClient

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
_NAME = re.compile(r"\b((?:annserve|rpc|process)_[a-z_]+)\b")
_GENERATED = re.compile(r"_(bucket|count|sum)$")
SECONDS = 20.0
PACKAGE = Path(__file__).parents[2] / "annserve"
RARE = {
    "annserve_auth_failures_total",
    "annserve_degraded_total",
    "annserve_fallbacks_total",
    "annserve_keeper_total",
    "annserve_recall_results_total",
    "annserve_rejected_total",
    "annserve_worker_exits_total",
}
"""Their first sample comes with the first event, with API keys, with MongoDB, or with a graph."""

ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The names and labels of what an instance with a catalogue, a call behind it, exposes."""
    folder = tmp_path_factory.mktemp("instance")
    root = folder / "snapshots"
    two_snapshots(root)
    placements = folder / "placements"
    placements.mkdir()
    (placements / "home.yaml").write_text("mode: personalize\n")
    with (
        instance(root, folder, *catalogue(folder), "--placements", str(placements), workers=1) as running,
        AdminClient(running.admin_address, timeout_seconds=2.0) as admin,
        Client(running.address, timeout_seconds=2.0) as client,
    ):
        until(lambda: len(running.serving(admin)) == 1, SECONDS)
        client.similar(["item-00001"])
        client.personalize("user-1")

        def scraped() -> set[str]:
            with urllib.request.urlopen(f"http://{running.ops_address}/metrics", timeout=5) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
            # A counter's family is parsed without the `_total` of its samples.
            return {sample.name for family in families for sample in family.samples} | {one.name for one in families}

        until(lambda: "rpc_server_call_duration_seconds" in scraped() and "annserve_cache_bytes" in scraped(), SECONDS)
        yield scraped()


def expressions() -> list[str]:
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return rules + [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_that_is_asked_for_is_exposed(exposed: set[str]) -> None:
    labels = {"rpc_method", "rpc_response_status_code"}
    named = {name for expression in expressions() for name in _NAME.findall(expression)} - labels

    missing = {name for name in named if name not in exposed and _GENERATED.sub("", name) not in exposed}

    assert missing <= RARE
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert all(f'"{name.removesuffix("_total")}"' in source for name in RARE)


def test_what_is_served_and_kept_is_told_with_its_age_and_size(exposed: set[str]) -> None:
    assert {"annserve_index_created_timestamp_seconds", "annserve_cache_entries"} <= exposed


def test_every_alert_is_explained_to_who_operates() -> None:
    operations = (MONITORING.parents[1] / "docs" / "operations.md").read_text()

    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            assert rule["alert"] in operations
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in {"warning", "critical"}


def test_panels_have_a_title_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    taken = {
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }

    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
