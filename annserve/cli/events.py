"""``annserve events``: write events to a running server, and look at those that are kept."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from annserve.cli.catalog_source import CatalogOption, ConfigOption, catalog_source
from annserve.cli.event_rows import read_batches, row_of, writer_of
from annserve.cli.event_source import use_events
from annserve.cli.options import settings
from annserve.cli.output import JsonOption, fail, print_json, print_rows, progress_bars, say
from annserve.cli.query import AddressOption
from annserve.cli.refusals import refusal_of
from annserve.cli.securing import api_key, channel_credentials
from annserve.domain.errors import InputError
from annserve.domain.events import EventStore
from annserve_client import AnnserveError, Client

app = typer.Typer(help="What people were shown and what they did.", no_args_is_help=True)

EventsOption = Annotated[
    Path | None,
    typer.Option("--events", metavar="FILE", help="Where events are kept without MongoDB. [env: ANNSERVE_EVENTS]"),
]
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
_FAR_MS = 2**53

T = TypeVar("T")


@app.command("write")
def write_command(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Events as JSON Lines (docs/events.md).")],
    address: AddressOption = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each 500, retries included.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Write events of a file to a running server; those it has are passed over, so it may be done again."""
    known = settings()
    target, accepted, duplicate = address or known.address, 0, 0
    try:
        with (
            file.open(encoding="utf-8") as lines,
            Client(target, credentials=channel_credentials(known), api_key=api_key(known)) as client,
            progress_bars() as progress,
        ):
            for batch in read_batches(lines, str(file)):
                written = client.write_events(batch, timeout_seconds=timeout)
                accepted += written.accepted_count
                duplicate += written.duplicate_count
                progress("writing events", accepted + duplicate, None)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}", path=file) from error
    except AnnserveError as error:
        said = refusal_of(error, target, "address")
        raise fail(f"{said} ({target}; {accepted + duplicate:,} events before that are written)") from None
    if as_json:
        print_json({"accepted_count": accepted, "duplicate_count": duplicate})
    else:
        say(f"{accepted:,} events written, {duplicate:,} were there already")


@app.command("show")
def show_command(
    user: Annotated[str, typer.Option("--user", metavar="USER_ID", help="The user's id.")],
    newest: Annotated[int, typer.Option(min=1, max=1_000, help="How many, the newest.")] = 100,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    events: EventsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a user's newest events, latest first."""
    found = _use(lambda store: store.of_user(user, newest), catalog, catalog_config, events)
    if as_json:
        print_json([row_of(event) for event in found])
    elif not found:
        say(f"no events of {user}")
    else:
        print_rows(
            [
                {
                    "time": row_of(event)["time"],
                    "type": event.type.value,
                    "items": " ".join(event.item_ids),
                    "placement": None if event.placement is None else event.placement.name,
                    "value": event.value or None,
                    "event_id": event.event_id,
                }
                for event in found
            ],
            as_json=False,
        )


@app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet|FILE.jsonl", help="Where to; replaced as a whole.")],
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="The first moment, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="The moment after the last.")] = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    events: EventsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the events of a time, in its order, to Parquet or JSON Lines."""
    draft = file.with_name(f".{file.name}.{time.time_ns()}.new")

    async def export(store: EventStore) -> int:
        count = 0
        with draft.open("wb") as opened, progress_bars() as progress:
            writer = writer_of(file, opened)
            async for chunk in store.read(_ms(since, 0), _ms(until, _FAR_MS)):
                writer.write(chunk)
                count += len(chunk)
                progress("exporting events", count, None)
            writer.close()
        return count

    try:
        count = _use(export, catalog, catalog_config, events)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        print_json({"event_count": count, "file": str(file)})
    else:
        say(f"{count:,} events exported to {file}")


def _use(
    task: Callable[[EventStore], Awaitable[T]], catalog: str | None, config: Path | None, events: Path | None
) -> T:
    known = settings()
    if events is not None:
        known = known.model_copy(update={"events": events})
    return use_events(task, known, catalog_source(catalog, config))


def _ms(moment: datetime | None, otherwise: int) -> int:
    if moment is None:
        return otherwise
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1e3)
