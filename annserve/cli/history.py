"""``annserve history``: what a user did, written and read through the catalogue."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from annserve.cli.catalog_source import CatalogOption, ConfigOption, DemoOption, HistoriesOption, required_source
from annserve.cli.output import JsonOption, print_rows, say
from annserve.domain.catalog import HistoryEntry
from annserve.domain.errors import InputError
from annserve.domain.ids import id_problem

app = typer.Typer(help="Users' histories: what they viewed, liked, disliked, bought.", no_args_is_help=True)

UserArgument = Annotated[str, typer.Argument(metavar="USER_ID", help="The user's id.")]


@app.command("add")
def add_command(
    user: UserArgument,
    items: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="The items, in the order they were met.")],
    event: Annotated[str, typer.Option(help="What she did: viewed, liked, disliked, bought, or a word of yours.")] = (
        "viewed"
    ),
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    use_demo: DemoOption = False,
) -> None:
    """Add items to a user's history, as of now."""
    for name, id_ in (("USER_ID", user), *(("ITEM_ID", item) for item in items)):
        if problem := id_problem(id_):
            raise InputError(f"{name} {id_!r} {problem}")
    source = required_source(catalog, catalog_config, histories, use_demo=use_demo)
    now_ms = round(time.time() * 1_000)
    entries = [HistoryEntry(item_id=item, event=event, time_ms=now_ms) for item in items]
    source.use(lambda store: store.add_history(user, entries))
    say(f"{len(entries)} added to the history of {user}")


@app.command("show")
def show_command(
    user: UserArgument,
    newest: Annotated[int, typer.Option(min=1, max=10_000, help="How many entries, the newest.")] = 100,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    use_demo: DemoOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries of a user's history, oldest first."""
    source = required_source(catalog, catalog_config, histories, use_demo=use_demo)
    entries = source.use(lambda store: store.history(user, newest))
    rows = [
        {
            "item_id": entry.item_id,
            "event": entry.event,
            "time": datetime.fromtimestamp(entry.time_ms / 1e3, UTC).isoformat(timespec="milliseconds"),
        }
        for entry in entries
    ]
    if not rows and not as_json:
        say(f"no history of {user}")
        return
    print_rows(rows, as_json=as_json)


@app.command("erase")
def erase_command(
    user: UserArgument,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    use_demo: DemoOption = False,
) -> None:
    """Forget a user's history; servers forget what they keep of it within seconds."""
    source = required_source(catalog, catalog_config, histories, use_demo=use_demo)
    count = source.use(lambda store: store.erase_history(user))
    say(f"{count:,} entries of {user} erased")
