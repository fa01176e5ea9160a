"""Placements through AdminService, called by the project's own client."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin_twins import WAIT_SECONDS, Admin, TwinPlacements, TwinReport, three_snapshots

from annserve.domain.catalog import Schema
from annserve.domain.errors import CatalogUnavailableError, InputError
from annserve.domain.placements import PlacementText
from annserve.placements.loading import compiled_set
from annserve.placements.problems import Place, Problem
from annserve_client import PreconditionError, UnavailableError
from annserve_client.admin import AdminClient, Placement, PlacementProblem

HOME = """
description: the first page
policy: [{when: request.user_known, mode: personalize}, {else: similar}]
experiment: {name: variety, variants: {plain: {share: 0.5}, varied: {share: 0.5, mode: related}}}
"""
PLACEMENTS = compiled_set(
    [
        PlacementText(name="home", origin="home.yaml", text=HOME),
        PlacementText(name="cart", origin="cart.yaml", text="mode: similar"),
    ],
    Schema(),
)
PROBLEM = Problem(file="home.yaml", place=Place(line=3, column=9, field="boosts[0].when"), text="is wrong: mend it")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Admin:
    folder: Path = tmp_path_factory.mktemp("admin")
    return Admin(three_snapshots(folder / "snapshots"), folder / "histories.jsonl")


def test_placements_are_listed_by_name_with_what_they_are(admin: Admin) -> None:
    admin.placements = twin = TwinPlacements()
    twin.report = TwinReport(placements=PLACEMENTS, loaded_at=1_700_000_000.25)
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        known = client.placements()

    assert known.placements == [
        Placement(
            name="cart",
            version=PLACEMENTS.placements["cart"].version,
            description="",
            modes=("similar",),
            experiment="",
            variants=(),
        ),
        Placement(
            name="home",
            version=PLACEMENTS.placements["home"].version,
            description="the first page",
            modes=("similar", "personalize", "related"),
            experiment="variety",
            variants=("plain", "varied"),
        ),
    ]
    assert known.load_time is not None
    assert known.load_time.timestamp() == 1_700_000_000.25
    assert known.problems == []


def test_reload_tells_what_is_wrong_with_its_place_at_most_a_hundred(admin: Admin) -> None:
    admin.placements = twin = TwinPlacements()
    twin.found = TwinReport(placements=PLACEMENTS, problems=[PROBLEM] * 300)
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        found = client.reload_placements(validate_only=True)
        client.reload_placements()

    assert twin.reloads == [True, False]
    assert len(found.problems) == 100
    assert found.problems[0] == PlacementProblem(
        file="home.yaml", line=3, column=9, field="boosts[0].when", description="is wrong: mend it"
    )


def test_placements_that_cannot_be_read_are_told_apart_from_wrong_ones(admin: Admin) -> None:
    admin.placements = twin = TwinPlacements()
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        twin.error = InputError("there is no folder of placements at /x")
        with pytest.raises(PreconditionError, match="there is no folder") as caught:
            client.reload_placements()
        twin.error = CatalogUnavailableError("no server")
        with pytest.raises(UnavailableError):
            client.reload_placements()

    assert caught.value.reason == "INSTANCE_REFUSED"


def test_instance_without_placements_says_so(admin: Admin) -> None:
    admin.placements = None
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        for ask in (client.placements, client.reload_placements):
            with pytest.raises(PreconditionError, match="started without placements"):
                ask()


def test_instance_that_has_loaded_none_yet_has_none(admin: Admin) -> None:
    admin.placements = TwinPlacements()
    with admin.served() as address, AdminClient(address, timeout_seconds=WAIT_SECONDS) as client:
        known = client.placements()

    assert known.placements == []
    assert known.load_time is None
