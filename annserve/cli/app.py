"""``annserve``: every command."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.main

from annserve import __version__
from annserve.cli import (
    admin,
    admin_placements,
    bench,
    catalog,
    doctor,
    events,
    history,
    keys,
    placements,
    query,
    refresh,
    report,
    serving,
    snapshots,
    training,
)
from annserve.cli.output import console, entry_point
from annserve.domain.errors import AnnserveError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # In boxes options and variables lose their ends, and `[env: …]` is taken for markup.
    rich_markup_mode=None,
)
app.command("train")(training.train_command)
app.command("refresh")(refresh.refresh_command)
app.command("import-vectors")(training.import_command)
app.command("evaluate")(training.evaluate_command)
app.add_typer(snapshots.app, name="snapshots")
app.command("serve")(serving.serve_command)
app.add_typer(query.app, name="query")
app.add_typer(catalog.app, name="catalog")
app.add_typer(history.app, name="history")
app.add_typer(events.app, name="events")
app.add_typer(placements.app, name="placements")
admin.app.add_typer(admin_placements.app, name="placements")
app.add_typer(admin.app, name="admin")
app.add_typer(keys.app, name="keys")
app.add_typer(report.app, name="report")
app.add_typer(bench.app, name="bench")
app.command("doctor")(doctor.doctor)


@app.command("version")
def version_command() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)


def _version_option(wanted: bool) -> None:
    if wanted:
        version_command()
        raise typer.Exit


@app.callback()
def annserve(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version_option, help="Print the version.")
    ] = False,
) -> None:
    """Recommendations from one matrix-factorisation space, served over gRPC."""


def program() -> Any:
    """Return all commands, listed with whole sentences: left alone, lists of commands cut them after 45 characters."""
    command = typer.main.get_command(app)
    _whole_sentences(command)
    return command


def _whole_sentences(command: Any) -> None:
    for child in getattr(command, "commands", {}).values():
        child.short_help = " ".join((child.help or "").partition("\n\n")[0].split())
        _whole_sentences(child)


main = entry_point(program, (AnnserveError, OSError))
