"""``annserve refresh``: train what is live anew on what users did since, and publish it if it is no worse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annserve.cli.catalog_source import ConfigOption, catalog_source
from annserve.cli.options import SnapshotsOption, open_store, settings
from annserve.cli.outcome_source import FromOption, outcome_interactions
from annserve.cli.output import JsonOption, print_json, print_rows, progress_bars, say
from annserve.cli.placement_source import placement_texts
from annserve.cli.training import (
    AcceptRecallOption,
    ActivateOption,
    BadShareOption,
    RecallOption,
    SetOption,
    ThreadsOption,
    assignments,
    thread_count,
    training_settings,
)
from annserve.domain.model import Space
from annserve.snapshot.store import SnapshotStore
from annserve.training.columns import moment_text

if TYPE_CHECKING:
    from annserve.training.refresh import Gate, Refreshed

REFUSED_CODE = 3
BUSY_CODE = 4

_DURATION = re.compile(r"([1-9][0-9]{0,5})(m|h|d|w)")
_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def refresh_command(
    from_: FromOption = "events",
    window: Annotated[
        str, typer.Option(metavar="7d", help="The newest time that is held out to judge by, in m, h, d or w.")
    ] = "7d",
    set_: SetOption = None,
    loss_max: Annotated[
        float, typer.Option(min=0, max=1, help="The share of recall that may be lost, at the interval's lower end.")
    ] = 0.05,
    shrink_max: Annotated[
        float, typer.Option(min=0, max=1, help="The share by which the catalogue may have shrunk.")
    ] = 0.2,
    users_min: Annotated[int, typer.Option(min=2, help="How many users must be judged.")] = 30,
    beat_popularity: Annotated[bool, typer.Option(help="Whether it must be better than what is popular.")] = True,
    k: Annotated[int, typer.Option("--at", min=1, max=1_000, help="The length of the lists that are judged.")] = 20,
    max_bad_share: BadShareOption = 0.01,
    threads: ThreadsOption = None,
    recall_target: RecallOption = 0.98,
    accept_recall: AcceptRecallOption = None,
    placements: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Placements, whose pins and lists are not to lose items unnoticed. [env: ANNSERVE_PLACEMENTS, "
            "ANNSERVE_PLACEMENTS_FROM_MONGODB]",
            show_default=False,
        ),
    ] = None,
    refuse_lost_items: Annotated[
        bool, typer.Option(help="Whether to refuse what has not all the live items that placements name.")
    ] = False,
    activate: ActivateOption = True,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest snapshots to keep when one is added.")] = 5,
    catalog_config: ConfigOption = None,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the live snapshot's recipe on all that is known by now, compare, and publish it or say why not.

    Exit code 0: published, or nothing new; 3: refused, nothing has changed; 4: another refresh is under way.
    """
    from annserve.training.gate import GateSettings
    from annserve.training.refresh import Outcome, RefreshSettings, refresh

    chosen = assignments(set_)
    training_settings(chosen)
    wanted = RefreshSettings(
        window_ms=_window_ms(window),
        training=chosen,
        gate=GateSettings(
            k=k,
            loss_max=loss_max,
            shrink_max=shrink_max,
            users_min=users_min,
            beat_popularity=beat_popularity,
            refuse_lost_items=refuse_lost_items,
        ),
        named_items=_named_items(placements, catalog_config),
        recall_target=recall_target,
        accept_recall=accept_recall,
        activate=activate,
        keep=keep,
    )
    store = open_store(snapshots)
    with store.refreshing() as is_alone:
        if not is_alone:
            _tell_busy(store, as_json=as_json)
            raise typer.Exit(BUSY_CODE)
        with progress_bars() as progress:
            interactions = outcome_interactions(from_ or "events", catalog_config, max_bad_share, progress)
            done = refresh(interactions, store, wanted, threads=thread_count(threads), progress=progress)
    if as_json:
        print_json(_summary(done, store))
    else:
        _tell(done, store)
    if done.outcome is Outcome.REFUSED:
        raise typer.Exit(REFUSED_CODE)


def _named_items(path: Path | None, catalog_config: Path | None) -> Mapping[str, Sequence[str]]:
    """Return the items that placements name, by placement."""
    from annserve.placements.named_items import named_items

    found, problems = named_items(placement_texts(settings(), catalog_source(None, catalog_config), path))
    for problem in problems:
        say(f"{problem}: what it names is not looked at")
    return found


def _window_ms(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter("must be a number of m, h, d or w, like 7d", param_hint="--window")
    return int(match[1]) * _UNIT_MS[match[2]]


def _tell_busy(store: SnapshotStore, *, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": "busy", "live_snapshot_id": store.current_id()})
    say(f"annserve: another refresh of {store.root} is under way")


def _summary(done: Refreshed, store: SnapshotStore) -> dict[str, Any]:
    return {
        "outcome": done.outcome.value,
        "problem": done.problem,
        "snapshot_id": done.snapshot_id,
        "live": done.is_live,
        "live_before_snapshot_id": done.live_id,
        "search_recall": _search_recall(store, done.snapshot_id),
        "search_recall_before": _search_recall(store, done.live_id),
        "data": done.data.as_metric(),
        "new_item_count": done.new_item_count,
        "new_user_count": done.new_user_count,
        "lost_items": done.lost_items,
        "gate": None if done.gate is None else done.gate.as_metric(),
        "removed_snapshot_ids": list(done.removed_ids),
    }


def _search_recall(store: SnapshotStore, snapshot_id: str | None) -> dict[str, float] | None:
    """Return the recall@10 of each space's search, None for a snapshot that is not here."""
    manifest = None if snapshot_id is None or snapshot_id not in store.ids() else store.info(snapshot_id).manifest
    return None if manifest is None else {space.value: manifest.spaces.of(space).recall for space in Space}


def _tell(done: Refreshed, store: SnapshotStore) -> None:
    from annserve.training.refresh import Outcome

    if done.gate is not None:
        _tell_gate(done.gate)
    for placement, item_ids in done.lost_items.items():
        said = ", ".join(item_ids[:10]) + (" …" if len(item_ids) > 10 else "")
        say(f"annserve: placement {placement} names items that only the live snapshot has: {said}")
    match done.outcome:
        case Outcome.NOTHING_NEW:
            hint = "" if done.is_live else "; it is not live (annserve snapshots activate)"
            say(f"nothing new: {done.snapshot_id} was trained on the same data by the same recipe{hint}")
        case Outcome.REFUSED:
            say(f"annserve: refused, {done.live_id or 'nothing'} stays live: {done.problem}")
        case Outcome.PUBLISHED:
            say(
                f"published {done.snapshot_id} in {store.root}: {done.data.interaction_count:,} interactions, "
                f"{done.new_item_count:,} new items, {done.new_user_count:,} new users, "
                f"{'live' if done.is_live else 'not live'}"
            )


def _tell_gate(gate: Gate) -> None:
    from annserve.training.refresh import Baseline

    start, end = map(moment_text, (gate.window_start_ms, gate.window_end_ms))
    rows = [
        {
            "recommender": one.name,
            f"recall@{gate.k}": round(one.recall, 4),
            f"nDCG@{gate.k}": round(one.ndcg, 4),
            "coverage": round(one.coverage, 3),
        }
        for one in gate.judged
    ]
    print_rows(rows, as_json=False, title=f"{gate.user_count:,} users, {start} to {end} UTC")
    if gate.baseline is Baseline.RETRAINED:
        say(
            "the live snapshot has seen some of this window: its recipe, trained on what came before, was compared "
            "in its place"
        )
    print_rows(
        [{"check": check.name, "passed": check.passed, "finding": check.finding} for check in gate.checks],
        as_json=False,
    )
