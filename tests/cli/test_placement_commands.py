"""``annserve placements`` and ``annserve admin placements`` as a person would run them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from checked_traffic import small_model
from instances import instance, until

from annserve import demo
from annserve.domain.catalog import Schema
from annserve.domain.placements import PlacementText
from annserve.placements.file import PlacementFile
from annserve.placements.folder import read_folder
from annserve.placements.loading import compiled
from annserve.placements.template import template_of
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve_client.admin import AdminClient

Annserve = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = {"cart", "home", "page_end", "popup"}
SEEN_SECONDS = 5.0
"""The promise is one second; tests may be slowed by others."""


def test_bundled_examples_are_right_and_explained(annserve: Annserve) -> None:
    checked = json.loads(annserve("placements", "check", "--demo", "--json").stdout)
    listed = json.loads(annserve("placements", "list", "--demo", "--json").stdout)
    said = json.loads(annserve("placements", "explain", "--demo", "--json").stdout)

    assert checked == {"placements": sorted(EXAMPLES), "problems": []}
    assert {row["placement"] for row in listed} == EXAMPLES
    assert {row["placement"] for row in said} == EXAMPLES
    costs = {(row["placement"], row["key"]): row["costs"] for row in said}
    assert "bitmaps" in costs["page_end", "demotions[0]"]
    assert "a request" in costs["popup", "policy[0]"]
    assert "a candidate" in costs["popup", "boosts[0]"]


def test_wrong_file_ends_with_1_and_says_where(annserve: Annserve, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("mode: similar")
    (tmp_path / "bad.yaml").write_text("mode: similar\nboosts:\n  - {when: item.prise < 3, weight: 2}\n")

    done = annserve("placements", "check", tmp_path, "--demo", code=1)
    as_json = json.loads(annserve("placements", "check", tmp_path, "--demo", "--json", code=1).stdout)

    assert done.stdout == "bad.yaml:3:12: boosts[0].when: there is no 'item.prise'; did you mean 'item.price'?\n"
    assert "1 problem" in done.stderr
    assert as_json["placements"] == ["good"]
    assert as_json["problems"][0]["line"] == 3
    assert "bad.yaml:3:12" in annserve("placements", "list", tmp_path, "--demo", code=1).stderr


def test_check_without_a_catalogue_says_what_to_name(annserve: Annserve, tmp_path: Path) -> None:
    (tmp_path / "home.yaml").write_text("mode: similar\nwhere: {price: 3}")
    (tmp_path / "fields.yaml").write_text("fields: {price: number}")

    assert "--catalog-config" in annserve("placements", "check", tmp_path / "home.yaml", code=1).stderr
    annserve("placements", "check", tmp_path / "home.yaml", "--catalog-config", tmp_path / "fields.yaml")


@pytest.mark.usefixtures("trained")
def test_serve_without_a_catalogue_says_what_to_name(annserve: Annserve) -> None:
    refused = annserve("serve", "--address", "127.0.0.1:0", "--placements", demo.PLACEMENTS, code=1)

    assert refused.stderr.endswith("no fields are known: name the catalogue with --catalog\n")


def test_the_circumstance_that_help_shows_is_one_of_the_demo(annserve: Annserve) -> None:
    said = re.findall(r"such as (\w+)=", annserve("query", "recommend", "--help").stdout)
    declared = {name for text in read_folder(demo.PLACEMENTS) for name in yaml.safe_load(text.text).get("context", {})}

    assert said
    assert set(said) <= declared


def test_difference_is_shown_by_placement_and_key(annserve: Annserve, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    (before / "home.yaml").write_text("mode: similar\nboosts: [{when: 'true', weight: 2}]\nlimit: 5")
    (after / "home.yaml").write_text(
        "# new\nlimit: 5\nmode: similar\nboosts: [{when: 'true', weight: 3}]\nstrict: true"
    )
    (before / "gone.yaml").write_text("mode: similar")

    rows = json.loads(annserve("placements", "diff", before, after, "--json").stdout)
    of_files = json.loads(annserve("placements", "diff", before / "gone.yaml", after / "home.yaml", "--json").stdout)

    assert rows == [
        {"placement": "gone", "key": None, "before": "there", "after": None},
        {"placement": "home", "key": "boosts[0].weight", "before": 2, "after": 3},
        {"placement": "home", "key": "strict", "before": None, "after": True},
    ]
    assert {row["key"] for row in of_files} == {"limit", "boosts[0].when", "boosts[0].weight", "strict"}
    assert "nothing changes" in annserve("placements", "diff", before, before).stderr


def test_new_placement_is_right_as_it_is_and_never_replaces_one(annserve: Annserve, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    annserve("placements", "new", "first_page", "--folder", folder)
    annserve("placements", "check", folder)

    assert "is there already" in annserve("placements", "new", "first_page", "--folder", folder, code=1).stderr
    assert "a-z" in annserve("placements", "new", "First Page", "--folder", folder, code=1).stderr


def test_template_shows_every_key() -> None:
    text = template_of("home")
    shown = set(re.findall(r"^#? ?([a-z_]+):", text, re.MULTILINE))

    assert shown >= PlacementFile.model_fields.keys()
    assert not compiled([PlacementText(name="home", origin="home.yaml", text=text)], Schema())[1]


def test_schema_is_one_for_editors(annserve: Annserve) -> None:
    schema = json.loads(annserve("placements", "schema").stdout)

    assert schema["title"] == "annserve placement"
    assert "policy" in schema["properties"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("placed") / "snapshots"
    build_snapshot(small_model(1, 300), SnapshotStore(root), threads=1)
    return root


def test_instance_follows_its_folder_and_tells_of_it(annserve: Annserve, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "home.yaml").write_text("mode: personalize")
    with instance(built, tmp_path, "--placements", str(folder)) as running, AdminClient(running.admin_address) as admin:

        def names() -> set[str]:
            return {placement.name for placement in admin.placements().placements}

        until(lambda: names() == {"home"}, SEEN_SECONDS)
        (folder / "cart.yaml").write_text("mode: similar")
        until(lambda: names() == {"home", "cart"}, SEEN_SECONDS)

        (folder / "cart.yaml").write_text("mode: nothing")
        until(lambda: len(admin.placements().problems) == 1, SEEN_SECONDS)
        assert names() == {"home", "cart"}
        told = annserve("admin", "placements", "list", "--address", running.admin_address)
        refused = annserve("admin", "placements", "reload", "--address", running.admin_address, code=1)
        assert "cart.yaml:1:7: mode:" in told.stdout
        assert "cart.yaml:1:7: mode:" in refused.stdout

        (folder / "cart.yaml").unlink()
        done = annserve("admin", "placements", "reload", "--address", running.admin_address, "--json")
        assert [placement["name"] for placement in json.loads(done.stdout)["placements"]] == ["home"]


def test_instance_does_not_start_with_placements_that_are_wrong(
    annserve: Annserve, built: Path, tmp_path: Path
) -> None:
    (tmp_path / "home.yaml").write_text("mode: similar\nlimit: many")

    done = annserve("serve", "--snapshots", built, "--placements", tmp_path, code=1)

    assert "home.yaml:2:8: limit: must be a whole number, got 'many'" in done.stderr
