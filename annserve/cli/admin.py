"""``annserve admin``: operate a running instance through its admin port."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import typer

from annserve.cli import admin_placements
from annserve.cli.admin_client import WAIT_SECONDS, AddressOption, admin_client
from annserve.cli.output import JsonOption, counted, print_json, print_rows, say
from annserve_client.admin import HistoryEntry

app = typer.Typer(help="Operate a running instance: what it serves, its workers, items, cache.", no_args_is_help=True)
snapshots_app = typer.Typer(help="What there is to serve, and which of it is served.", no_args_is_help=True)
items_app = typer.Typer(help="Items that come and go between snapshots.", no_args_is_help=True)
cache_app = typer.Typer(help="The instance's cache.", no_args_is_help=True)
history_app = typer.Typer(help="What users did, written through the instance.", no_args_is_help=True)
users_app = typer.Typer(help="What is known of users, all of it.", no_args_is_help=True)
app.add_typer(snapshots_app, name="snapshots")
app.add_typer(items_app, name="items")
app.add_typer(cache_app, name="cache")
app.add_typer(history_app, name="history")
app.add_typer(users_app, name="users")
app.add_typer(admin_placements.app, name="placements")

WaitOption = Annotated[float, typer.Option("--wait", min=0.1, help="Seconds to wait for it to serve.")]
SlotArgument = Annotated[int, typer.Argument(min=0, metavar="SLOT", help="As `annserve admin workers` shows it.")]
UserArgument = Annotated[str, typer.Argument(metavar="USER_ID", help="The user's id.")]

_DRAINED = "health says NOT_SERVING; calls that come are answered still: `annserve admin undrain` takes it back"


def report(text: str, value: dict[str, object], *, as_json: bool) -> None:
    """Say what was done, or print ``value``."""
    if as_json:
        print_json(value)
    else:
        say(text)


@app.command("status")
def status_command(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show how the instance is, and how the last change of snapshots went."""
    with admin_client(address) as client:
        status = _plain(asdict(client.status()))
    if as_json:
        print_json(status)
        return
    swap = status.pop("last_swap")
    if swap is not None:
        outcome = "served" if swap["succeeded"] else f"not served ({swap['cause']}): {swap['problem']}"
        status["last_swap"] = f"{swap['snapshot_id']} {outcome}, {swap['end_time']}"
    print_rows(
        [{"of the instance": name.replace("_", " "), "is": value} for name, value in status.items()], as_json=False
    )


@app.command("workers")
def workers_command(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show the workers."""
    with admin_client(address) as client:
        rows = [_plain(asdict(worker)) for worker in client.workers()]
    if not as_json:
        # A count might be taken for that of all calls so far.
        rows = [
            {"calls_under_way" if name == "call_count" else name: value for name, value in row.items()} for row in rows
        ]
    print_rows(rows, as_json=as_json)


@app.command("scale")
def scale_command(
    workers: Annotated[int, typer.Argument(min=1, metavar="WORKERS", help="How many there are to be.")],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have so many workers, until the instance is started anew."""
    with admin_client(address) as client:
        client.scale(workers)
    report(counted(workers, "worker"), {"worker_count": workers}, as_json=as_json)


@app.command("restart")
def restart_command(slot: SlotArgument, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Replace a worker: it finishes its calls, and another takes its slot."""
    with admin_client(address) as client:
        client.restart_worker(slot)
    report(f"the worker in slot {slot} is replaced", {"slot": slot}, as_json=as_json)


@app.command("reload")
def reload_command(address: AddressOption = None, wait: WaitOption = WAIT_SECONDS, as_json: JsonOption = False) -> None:
    """Load the live snapshot and the catalogue's configuration anew, as HUP does; returns when new workers serve."""
    with admin_client(address, wait) as client:
        client.reload()
    report("reloaded", {"reloaded": True}, as_json=as_json)


@app.command("drain")
def drain_command(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Turn health to NOT_SERVING, so that balancers send calls elsewhere."""
    with admin_client(address) as client:
        client.drain()
    report(_DRAINED, {"draining": True}, as_json=as_json)


@app.command("undrain")
def undrain_command(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Turn health back to SERVING."""
    with admin_client(address) as client:
        client.undrain()
    report("health says SERVING", {"draining": False}, as_json=as_json)


@app.command("hot-keys")
def hot_keys_command(
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1_000, help="How many.")] = 20,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the items that are asked about most."""
    with admin_client(address) as client:
        rows = [asdict(hot_key) for hot_key in client.hot_keys(count)]
    print_rows(rows, as_json=as_json)


@snapshots_app.command("list")
def list_snapshots(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots, newest first: which is live, and which serves."""
    with admin_client(address) as client:
        print_rows([_plain(asdict(snapshot)) for snapshot in client.snapshots()], as_json=as_json)


@snapshots_app.command("activate")
def activate(
    snapshot_id: Annotated[
        str, typer.Argument(metavar="SNAPSHOT_ID", help="As `annserve admin snapshots list` shows.")
    ],
    address: AddressOption = None,
    wait: WaitOption = WAIT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Serve another snapshot under full load; returns when it serves, and only then makes it the live one."""
    with admin_client(address, wait) as client:
        client.activate(snapshot_id)
    report(f"{snapshot_id} serves", {"snapshot_id": snapshot_id}, as_json=as_json)


@snapshots_app.command("rollback")
def roll_back(address: AddressOption = None, wait: WaitOption = WAIT_SECONDS, as_json: JsonOption = False) -> None:
    """Serve the snapshot that was live before the live one."""
    with admin_client(address, wait) as client:
        snapshot_id = client.roll_back()
    report(f"{snapshot_id} serves again", {"snapshot_id": snapshot_id}, as_json=as_json)


@items_app.command("upsert")
def upsert(
    file: Annotated[
        typer.FileText,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines, - for standard input: item_id, then vector or liked_by_user_ids, and popularity.",
        ),
    ],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add or replace items; all workers have them within a second.

    With a catalogue an item is recommended once its document is there too: `annserve catalog load`.
    """
    from annserve.cli.fresh_lines import batches, read_items

    items = read_items(file, file.name)
    with admin_client(address) as client:
        for batch in batches(items):
            client.upsert_items(batch)
    report(f"{counted(len(items), 'item')} upserted", {"item_count": len(items)}, as_json=as_json)


@items_app.command("delete")
def delete(
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="The items.")],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take items out of all answers, within a second, and until they are upserted: also ids that nobody knows yet."""
    with admin_client(address) as client:
        client.delete_items(item_ids)
    # Whether anybody knew them is not known here: a deletion stands for what comes later too.
    report(f"{counted(len(item_ids), 'item')} will not be recommended", {"item_count": len(item_ids)}, as_json=as_json)


@cache_app.command("stats")
def cache_stats(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show what the cache holds, and how it fared."""
    with admin_client(address) as client:
        stats = asdict(client.cache_stats())
    if as_json:
        print_json(stats)
    else:
        print_rows([stats], as_json=False)


@cache_app.command("flush")
def flush_cache(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Forget all cached answers."""
    with admin_client(address) as client:
        client.flush_cache()
    report("flushed", {"flushed": True}, as_json=as_json)


@history_app.command("append")
def append_history(
    user: UserArgument,
    items: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="The items, in the order they were met.")],
    event: Annotated[str, typer.Option(help="What she did: viewed, liked, disliked, bought, or a word of yours.")] = (
        "viewed"
    ),
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add items to a user's history, as of now."""
    with admin_client(address) as client:
        client.append_history(user, [HistoryEntry(item_id=item, event=event) for item in items])
    report(f"{len(items)} added to the history of {user}", {"entry_count": len(items)}, as_json=as_json)


@users_app.command("erase")
@history_app.command("erase")
def erase_user(user: UserArgument, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Forget a user: history, events, and whatever else is known of her."""
    with admin_client(address) as client:
        erased = client.erase_user(user)
    told = f"{user} erased: {erased.history_count:,} entries of her history, {erased.event_count:,} events"
    report(told, asdict(erased), as_json=as_json)


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it."""
    if isinstance(value, dict):
        return {name: _plain(held) for name, held in value.items()}
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return value.value if isinstance(value, Enum) else value
