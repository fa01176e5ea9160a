"""``annserve serve``: look that there is something to serve, then become the supervisor of an instance."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from annserve import demo
from annserve.cli.catalog_source import CatalogOption, ConfigOption, HistoriesOption, catalog_source
from annserve.cli.options import SnapshotsOption, live_id, misspelt, open_store, settings, settings_with
from annserve.cli.output import say
from annserve.cli.placement_source import check_placements, has_placements
from annserve.cli.securing import security_of
from annserve.cli.supervising import ADDRESS_PLACE, GREETING
from annserve.domain.errors import InputError
from annserve.service.transport import chosen
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore


def serve_command(
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen. [env: ANNSERVE_ADDRESS]")
    ] = None,
    snapshots: SnapshotsOption = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="How many processes answer; one for each processor without it. [env: ANNSERVE_WORKERS]"
        ),
    ] = None,
    ops_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where probes and metrics are, over HTTP. [env: ANNSERVE_OPS_ADDRESS]"),
    ] = None,
    admin_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where AdminService is. [env: ANNSERVE_ADMIN_ADDRESS]")
    ] = None,
    shared_cache: Annotated[
        bool | None,
        typer.Option(
            "--shared-cache/--no-shared-cache",
            help="Whether workers share what they have worked out. [env: ANNSERVE_SHARED_CACHE]",
            show_default=False,
        ),
    ] = None,
    placements: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where placements are, a YAML file each. [env: ANNSERVE_PLACEMENTS]"),
    ] = None,
    pull_from: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Take snapshots from there as they appear. [env: ANNSERVE_PULL_FROM]"),
    ] = None,
    canary: Annotated[
        bool,
        typer.Option("--canary", help="Take what CANARY names there, before others do. [env: ANNSERVE_PULL_CANARY]"),
    ] = False,
    transport: Annotated[
        str | None,
        typer.Option(metavar="auto|grpcio|native", help="What speaks HTTP/2 with callers. [env: ANNSERVE_TRANSPORT]"),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Serve other machines in plain text, behind something that speaks TLS. [env: ANNSERVE_INSECURE]",
        ),
    ] = False,
    use_demo: Annotated[
        bool, typer.Option("--demo", help="Train on the bundled data first if there is no snapshot; show calls to try.")
    ] = False,
) -> None:
    """Serve the live snapshot until TERM or Ctrl-C, then finish the calls under way and stop."""
    source = catalog_source(catalog, catalog_config, histories, use_demo=use_demo)
    store = open_store(snapshots)
    if use_demo and store.current_id() is None:
        from annserve.cli.training import train_demo

        say("no snapshot yet: training on the bundled data")
        train_demo(store)
    if store.current_id() is None and (pull_from or settings().pull_from):
        _pull_first(store, pull_from, canary)
    live_id(store)  # Says what to do where there is none.
    if use_demo and source is not None and source.is_mongodb:
        from annserve.cli.catalog import load_demo

        load_demo(source)
    if use_demo:
        # The examples name fields that a catalogue of other fields has not.
        is_bundled = source is not None and source.config_path == demo.CATALOG
        if placements is None and not has_placements(settings()) and is_bundled:
            placements = demo.PLACEMENTS
        has_examples = placements == demo.PLACEMENTS
        os.environ[GREETING] = calls_to_try(
            store, address or settings().address, admin_address or settings().admin_address, has_examples=has_examples
        )
    if source is not None:
        source.check()
    wanted = {
        "address": address,
        "placements": placements,
        "snapshots": str(store.root),
        "workers": workers,
        "ops_address": ops_address,
        "admin_address": admin_address,
        "pull_from": pull_from,
        "pull_canary": "true" if canary else None,
        "transport": transport,
        "insecure": "true" if insecure else None,
        "shared_cache": None if shared_cache is None else str(shared_cache).lower(),
        "catalog": None if source is None else source.address,
        "catalog_config": None if source is None else source.config_path,
        "histories": None if source is None else source.histories,
    }
    # Settings are inherited, so that every process of the instance has the same, and a password is in no argument.
    known = settings_with(wanted)  # Says which of them cannot be.
    for warning in misspelt():
        say(f"annserve: {warning}")
    check_placements(known, source)
    security = security_of(known)
    security.check(known.address)
    chosen(known.transport, known.address, security)
    if known.traces and find_spec("opentelemetry") is None:
        raise InputError("ANNSERVE_TRACES needs OpenTelemetry: pip install 'annserve[otel]'")
    sys.stdout.flush()
    sys.stderr.flush()
    # The supervisor outlives everything, so it begins anew without what was needed up to here.
    os.execv(sys.executable, [sys.executable, "-m", "annserve.cli.supervising"])  # noqa: S606


def _pull_first(store: SnapshotStore, pull_from: str | None, canary: bool) -> None:
    """Take the first snapshot: the supervisor serves what is here already."""
    from annserve.snapshot.pull import SnapshotSource

    known = settings()
    source = SnapshotSource(pull_from or (known.pull_from.get_secret_value() if known.pull_from else ""))
    wanted = source.wanted_id(is_canary=canary or known.pull_canary)
    if wanted is not None:
        say(f"no snapshot yet: pulling {wanted}")
        source.pull(wanted, store)
        store.activate(wanted)


def calls_to_try(store: SnapshotStore, address: str, admin_address: str, *, has_examples: bool = False) -> str:
    """Return commands that ask about items and a user of the live snapshot, as text for people."""
    snapshot = load_current(store).snapshot
    names = dict(zip(*(pq.read_table(demo.ITEMS)[column].to_pylist() for column in ("item_id", "name")), strict=True))
    seed = snapshot.items.id(int(snapshot.popular_rows[0]))
    if seed not in names or not len(snapshot.users):
        return ""  # Some other data is served; its owner knows what to ask.
    context = snapshot.items.id(int(snapshot.popular_rows[1]))
    user = snapshot.users.id(0)
    program = shlex.quote(_program())
    where = "" if address == "127.0.0.1:50051" else f" --address {ADDRESS_PLACE}"
    lines = [
        "",
        "Try, in another terminal:",
        f"  # what is like {names[seed]!r}",
        f"  {program} query similar --item {shlex.quote(seed)} --names demo{where}",
        "  # the same, but cheap",
        f"  {program} query similar --item {shlex.quote(seed)} --filter 'price < 2' --fields name,price{where}",
        f"  # what suits customer {user}",
        f"  {program} query personalize --user {shlex.quote(user)} --names demo{where}",
        f"  # what goes with {names[context]!r}, for this customer",
        f"  {program} query related --item {shlex.quote(context)} --user {shlex.quote(user)} --names demo{where}",
        *(_placement_lines(program, where, context, user) if has_examples else ()),
    ]
    if not admin_address.endswith(":0"):
        there = "" if admin_address == "127.0.0.1:50052" else f" --address {admin_address}"
        lines += ["  # how the instance is", f"  {program} admin status{there}"]
    return "\n".join(lines) + "\n"


def _placement_lines(program: str, where: str, item_id: str, user_id: str) -> list[str]:
    """Return calls of the bundled placements."""
    item, user = f"--item {shlex.quote(item_id)}", f"--user {shlex.quote(user_id)}"
    return [
        f"  # what the home page shows this customer: a file says how ({program} placements explain --demo)",
        f"  {program} query recommend --placement home {user} --names demo{where}",
        "  # what the end of a product's page shows, and why",
        f"  {program} query recommend --placement page_end {item} {user} --explain --names demo{where}",
    ]


def _program() -> str:
    """Return how this program is called from here: by its short name where the shell would find it."""
    program = Path(sys.argv[0])
    if shutil.which(program.name) == str(program):
        return program.name
    return os.path.relpath(program)
