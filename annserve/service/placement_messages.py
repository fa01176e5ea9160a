"""Placements and what is wrong with them, as messages of AdminService."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from annserve.domain.query import Mode
from annserve.placements.placement import CompiledPlacement
from annserve.placements.problems import PROBLEMS_MAX, Problem
from annserve.placements.recipe import Placement, PlacementSet
from annserve.service.admin import PlacementsReport
from annserve.v1 import admin_pb2 as messages
from annserve.v1 import admin_service_pb2 as service_messages


def list_response(report: PlacementsReport) -> service_messages.ListPlacementsResponse:
    """Return ``report`` as `AdminService.ListPlacements` answers."""
    response = service_messages.ListPlacementsResponse(
        placements=_placements(report.placements), problems=_problems(report.problems)
    )
    if report.loaded_at is not None:
        response.load_time.FromMilliseconds(round(report.loaded_at * 1e3))
    return response


def reload_response(report: PlacementsReport) -> service_messages.ReloadPlacementsResponse:
    """Return ``report`` as `AdminService.ReloadPlacements` answers."""
    return service_messages.ReloadPlacementsResponse(
        placements=_placements(report.placements), problems=_problems(report.problems)
    )


def _placements(placements: PlacementSet) -> Iterable[messages.Placement]:
    return [_placement(placement) for _, placement in sorted(placements.placements.items())]


def _placement(placement: Placement) -> messages.Placement:
    message = messages.Placement(name=placement.name, version=placement.version, experiment=placement.experiment)
    if isinstance(placement, CompiledPlacement):
        recipes = placement.recipes.values()
        modes = {row.mode for recipe in recipes for row in recipe.policy}
        message.description = placement.file.description
        message.modes.extend(mode.value for mode in Mode if mode in modes)
        if placement.experiment:
            message.variants.extend(placement.recipes)
    return message


def _problems(problems: Sequence[Problem]) -> Iterable[messages.PlacementProblem]:
    return [
        messages.PlacementProblem(
            file=problem.file,
            line=problem.place.line,
            column=problem.place.column,
            field=problem.place.field,
            description=problem.text,
        )
        for problem in problems[:PROBLEMS_MAX]
    ]
