"""What a person, or with ``--json`` a machine, reads; and how a mistake ends a command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from threadpoolctl import threadpool_limits

from annserve.domain.progress import Progress as ProgressCallback

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]

# Ids and names are printed as they are: what looks like markup or an emoji's name, as in `127.0.0.1:abc:`, is neither.
console = Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)


def say(text: str) -> None:
    """Print one line of prose to standard error, where it is in no pipe's way."""
    errors.print(text, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print ``value`` as JSON, ids in their own script."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str | None = None) -> None:
    """Print ``rows``, which share their keys, as a table or as a JSON list."""
    if as_json:
        print_json(list(rows))
        return
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False, header_style="bold")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Yield a progress callback that draws one bar per stage on a terminal, and nothing elsewhere."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    with bars:
        yield show


def counted(count: int, noun: str) -> str:
    """Return ``count`` with ``noun``, of which there may be one: ``1 item``, ``1,000 items``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def fail(message: str) -> typer.Exit:
    """Print why a command cannot go on; raise what is returned."""
    say(f"annserve: {message}")
    return typer.Exit(1)


def entry_point(
    program: Callable[[], Callable[[], object]], handled: tuple[type[Exception], ...]
) -> Callable[[], None]:
    """Return the function that runs the command that ``program`` returns and ends it with an exit code.

    0 is success, 1 a refusal (one line says why and what to do), 2 wrong usage, 130 Ctrl-C.
    """

    def main() -> None:
        # Products here are small; BLAS threads would only fight each other, and the library trainers, for the cores.
        # Told to those that commands will load, and to those that are there.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        threadpool_limits(1, "blas")
        try:
            program()()
        except handled as error:
            say(f"annserve: {error}")
            sys.exit(1)

    return main
