"""``annserve``: every command."""

from __future__ import annotations

import typer

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
    help="Recommendations from one matrix-factorisation space, served over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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


main = entry_point(app, (AnnserveError, OSError))
