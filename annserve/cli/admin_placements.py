"""``annserve admin placements``: which placements a running instance has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from annserve.cli.admin_client import AddressOption, admin_client
from annserve.cli.output import JsonOption, console, fail, print_json, print_rows, say
from annserve_client.admin import PlacementList, PlacementProblem

app = typer.Typer(help="The placements of a running instance.", no_args_is_help=True)


@app.command("list")
def list_command(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show the placements that answer, and what is wrong with those that are to replace them."""
    with admin_client(address) as client:
        known = client.placements()
    if as_json:
        print_json(_plain(known))
        return
    rows = [
        {
            "placement": placement.name,
            "version": placement.version,
            "asks": ", ".join(placement.modes),
            "experiment": placement.experiment or None,
            "variants": ", ".join(placement.variants) or None,
            "description": placement.description or None,
        }
        for placement in known.placements
    ]
    print_rows(rows, as_json=False)
    _say_problems(known.problems)


@app.command("reload")
def reload_command(
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Look what is wrong, and change nothing.")
    ] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the placements anew: all of them are used or, with exit code 1, none."""
    with admin_client(address) as client:
        found = client.reload_placements(validate_only=validate_only)
    if as_json:
        print_json(_plain(found))
    else:
        _say_problems(found.problems)
    if found.problems:
        raise fail("they would be refused" if validate_only else "refused: what was there stays")
    count = len(found.placements)
    say(f"{count} placement{'s are' if count != 1 else ' is'} {'right' if validate_only else 'in use'}")


def _say_problems(problems: Sequence[PlacementProblem]) -> None:
    for one in problems:
        field = f"{one.field}: " if one.field else ""
        text = f"{one.file}:{one.line}:{one.column}: {field}{one.description}"
        console.print(text, highlight=False, soft_wrap=True)


def _plain(known: PlacementList) -> dict[str, Any]:
    plain = asdict(known)
    plain["load_time"] = None if known.load_time is None else known.load_time.isoformat()
    return plain
