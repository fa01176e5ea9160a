"""``annserve snapshots``: what there is to serve, and which of it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annserve.cli.options import SnapshotsOption, live_id, open_store, settings
from annserve.cli.output import JsonOption, print_json, print_rows, say
from annserve.domain.errors import InputError
from annserve.snapshot.store import SnapshotInfo, SnapshotStore

app = typer.Typer(help="List, verify, activate, roll back, pull and prune snapshots.", no_args_is_help=True)

SnapshotOrLiveArgument = Annotated[
    str | None, typer.Argument(metavar="[SNAPSHOT_ID]", help="The live one unless named.")
]
SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT_ID", help="As `annserve snapshots list` shows it.")]


@app.command("list")
def list_snapshots(snapshots: SnapshotsOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots, newest first; the live one is marked."""
    store = open_store(snapshots)
    rows = [_row(info) for info in store.snapshots()]
    if not rows and not as_json:
        say(f"no snapshots in {store.root}; `annserve train --demo` makes one")
        return
    print_rows(rows, as_json=as_json)


def _row(info: SnapshotInfo) -> dict[str, object]:
    manifest = info.manifest
    return {
        "snapshot_id": info.snapshot_id,
        "live": info.is_current,
        "items": manifest and manifest.kinds.items.count,
        "users": manifest and manifest.kinds.users.count,
        "dimension": manifest and manifest.kinds.items.dimension,
        "trainer": manifest and manifest.training.trainer,
        "size_mb": manifest and round(sum(file.size_bytes for file in manifest.files.values()) / 1e6, 1),
        "problem": info.problem,
    }


@app.command()
def show(snapshot_id: SnapshotOrLiveArgument = None, snapshots: SnapshotsOption = None) -> None:
    """Print the manifest of a snapshot: parameters, recall by space, files and checksums."""
    store = open_store(snapshots)
    print_json(store.verify(_or_live(snapshot_id, store)).model_dump(mode="json"))


@app.command("verify")
def verify_snapshot(
    snapshot_id: SnapshotOrLiveArgument = None,
    path: Annotated[Path | None, typer.Option(help="A snapshot folder anywhere, instead of one in the store.")] = None,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a snapshot and let it answer its own check queries."""
    from annserve.snapshot.snapshot import load_snapshot

    if path is None:
        store = open_store(snapshots)
        path = store.path(_or_live(snapshot_id, store))
    snapshot = load_snapshot(path)
    text = f"{snapshot.id} is whole, and answers its check queries at the promised recall"
    _report(text, {"snapshot_id": snapshot.id, "verified": True}, as_json=as_json)


@app.command()
def activate(snapshot_id: SnapshotArgument, snapshots: SnapshotsOption = None, as_json: JsonOption = False) -> None:
    """Make a snapshot the live one, after verifying it. A running instance follows."""
    open_store(snapshots).activate(snapshot_id)
    _report(f"{snapshot_id} is live", {"snapshot_id": snapshot_id}, as_json=as_json)


@app.command("rollback")
def roll_back(snapshots: SnapshotsOption = None, as_json: JsonOption = False) -> None:
    """Make the snapshot that was live before the live one again."""
    snapshot_id = open_store(snapshots).roll_back()
    _report(f"{snapshot_id} is live again", {"snapshot_id": snapshot_id}, as_json=as_json)


@app.command()
def pull(
    snapshot_id: Annotated[
        str | None, typer.Argument(metavar="[SNAPSHOT_ID]", help="The one that the source names unless given.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="A shared folder or object storage. [env: ANNSERVE_PULL_FROM]"),
    ] = None,
    canary: Annotated[bool, typer.Option(help="Take what CANARY names, where it does, before CURRENT.")] = False,
    activate: Annotated[bool, typer.Option(help="Make it the live one.")] = False,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a snapshot from where it was published, and verify it. Nothing is fetched twice."""
    from annserve.snapshot.pull import SnapshotSource

    known = settings()
    if source is None and known.pull_from is not None:
        source = known.pull_from.get_secret_value()
    if source is None:
        raise InputError("pull from where? name it with --from or ANNSERVE_PULL_FROM")
    store, opened = open_store(snapshots), SnapshotSource(source)
    wanted = snapshot_id or opened.wanted_id(is_canary=canary or known.pull_canary)
    if wanted is None:
        raise InputError("the source names no snapshot: it has no CURRENT")
    fetched = opened.pull(wanted, store)
    if activate:
        store.activate(wanted)
    text = f"{wanted} was {'pulled' if fetched else 'here already'}{', and is live' if activate else ''}"
    _report(text, {"snapshot_id": wanted, "pulled": fetched, "live": wanted == store.current_id()}, as_json=as_json)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest to keep, beside the live one.")] = 3,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete all but the newest snapshots. The live one and the one before it always stay."""
    removed = open_store(snapshots).prune(keep)
    text = f"removed {', '.join(removed)}" if removed else "nothing to remove"
    _report(text, {"removed_snapshot_ids": removed}, as_json=as_json)


def _or_live(snapshot_id: str | None, store: SnapshotStore) -> str:
    return live_id(store) if snapshot_id is None else snapshot_id


def _report(text: str, value: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        say(text)
