"""``annserve serve``: load the live snapshot and answer until told to stop."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from annserve import demo
from annserve.cli.catalog_source import CatalogOption, ConfigOption, HistoriesOption, catalog_source
from annserve.cli.composition import opened_recommender
from annserve.cli.options import SnapshotsOption, open_store, settings
from annserve.cli.output import say
from annserve.service.server import serve
from annserve.service.settings import ServerSettings
from annserve.snapshot.snapshot import Snapshot, load_current


def serve_command(
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen. [env: ANNSERVE_ADDRESS]")
    ] = None,
    snapshots: SnapshotsOption = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    use_demo: Annotated[
        bool, typer.Option("--demo", help="Train on the bundled data first if there is no snapshot; show calls to try.")
    ] = False,
) -> None:
    """Serve the live snapshot until TERM or Ctrl-C, then finish the calls under way and stop."""
    known = settings()
    logging.basicConfig(level=known.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server_settings = ServerSettings(
        address=address or known.address,
        deadline_max_ms=known.deadline_max_ms,
        drain_grace_ms=known.drain_grace_ms,
        reflection=known.reflection,
    )
    source = catalog_source(catalog, catalog_config, histories, use_demo=use_demo)
    store = open_store(snapshots)
    if use_demo and store.current_id() is None:
        from annserve.cli.training import train_demo

        say("no snapshot yet: training on the bundled data")
        train_demo(store)
    if use_demo and source is not None and source.is_mongodb:
        from annserve.cli.catalog import load_demo

        load_demo(source)
    loaded = load_current(store)
    for refusal in loaded.refusals:
        say(f"annserve: refused: {refusal}")
    snapshot = loaded.snapshot

    def ready(bound: str) -> None:
        say(f"serving {snapshot.id}: {len(snapshot.items):,} items, {len(snapshot.users):,} users, on {bound}")
        if use_demo:
            _show_calls_to_try(snapshot, bound)

    serve(server_settings, opened_recommender(snapshot, known, source), ready)
    say("stopped")


def _show_calls_to_try(snapshot: Snapshot, bound: str) -> None:
    """Print commands that ask about items and a user of this snapshot."""
    names = dict(zip(*(pq.read_table(demo.ITEMS)[column].to_pylist() for column in ("item_id", "name")), strict=True))
    seed = snapshot.items.id(int(snapshot.popular_rows[0]))
    if seed not in names or not len(snapshot.users):
        return  # Some other data is served; its owner knows what to ask.
    context = snapshot.items.id(int(snapshot.popular_rows[1]))
    user = snapshot.users.id(0)
    program = shlex.quote(_program())
    where = "" if bound == "127.0.0.1:50051" else f" --address {bound}"
    say("")
    say("Try, in another terminal:")
    say(f"  # what is like {names[seed]!r}")
    say(f"  {program} query similar --item {shlex.quote(seed)} --names demo{where}")
    say("  # the same, but cheap")
    say(f"  {program} query similar --item {shlex.quote(seed)} --filter 'price < 2' --fields name,price{where}")
    say(f"  # what suits customer {user}")
    say(f"  {program} query personalize --user {shlex.quote(user)} --names demo{where}")
    say(f"  # what goes with {names[context]!r}, for this customer")
    say(f"  {program} query related --item {shlex.quote(context)} --user {shlex.quote(user)} --names demo{where}")


def _program() -> str:
    """Return how this program is called from here: by its short name where the shell would find it."""
    program = Path(sys.argv[0])
    if shutil.which(program.name) == str(program):
        return program.name
    return os.path.relpath(program)
