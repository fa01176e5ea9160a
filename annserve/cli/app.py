"""``annserve``: every command."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
import typer.main

from annserve import __version__
from annserve.cli.output import console, entry_point
from annserve.domain.errors import AnnserveError

COMMANDS: Final = {
    "train": "training:train_command",
    "refresh": "refresh:refresh_command",
    "import-vectors": "training:import_command",
    "evaluate": "training:evaluate_command",
    "snapshots": "snapshots:app",
    "serve": "serving:serve_command",
    "query": "query:app",
    "catalog": "catalog:app",
    "history": "history:app",
    "events": "events:app",
    "placements": "placements:app",
    "admin": "admin:app",
    "keys": "keys:app",
    "report": "report:app",
    "bench": "bench:app",
    "doctor": "doctor:doctor",
}
"""Where each is, in this room: a function, or several under one name."""


def app_of(names: Collection[str] = COMMANDS.keys()) -> typer.Typer:
    """Return the program with the commands of these names: to import them all takes longer than most need to run."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        # Commands take them over from here.
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        # In boxes options and variables lose their ends, and `[env: …]` is taken for markup.
        rich_markup_mode=None,
    )
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(f"annserve.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    app.command("version")(version_command)
    app.callback()(annserve)
    return app


def version_command() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)


def _version_option(wanted: bool) -> None:
    if wanted:
        version_command()
        raise typer.Exit


def annserve(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version_option, help="Print the version.")
    ] = False,
) -> None:
    """Recommendations from one matrix-factorisation space, served over gRPC."""


def program() -> Any:
    """Return all commands, or the one that is asked for.

    They are listed with whole sentences: left alone, lists of commands cut them after 45 characters.
    """
    command = typer.main.get_command(app_of(_names_in(sys.argv[1:])))
    _whole_sentences(command)
    return command


def _names_in(arguments: Sequence[str]) -> Collection[str]:
    match arguments:
        case [name, *_] if name in COMMANDS:
            return [name]
        case ["version" | "--version"]:
            return []
        case _:
            return COMMANDS.keys()


def _whole_sentences(command: Any) -> None:
    for child in getattr(command, "commands", {}).values():
        child.short_help = " ".join((child.help or "").partition("\n\n")[0].split())
        _whole_sentences(child)


main = entry_point(program, (AnnserveError, OSError))
