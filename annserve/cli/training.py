"""``annserve train``, ``import-vectors`` and ``evaluate``: from files to a snapshot, and how good it would be."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from annserve import demo
from annserve.cli.catalog_source import ConfigOption
from annserve.cli.event_source import known_erased
from annserve.cli.options import SnapshotsOption, open_store
from annserve.cli.outcome_source import FromOption, outcome_interactions
from annserve.cli.output import JsonOption, print_json, print_rows, progress_bars, say
from annserve.domain.errors import InputError
from annserve.domain.model import FoldInConstants, Model
from annserve.domain.progress import Progress
from annserve.domain.value_problems import value_problem
from annserve.snapshot.store import SnapshotStore
from annserve.training.columns import TimeUnit, moment_text, unit_meant
from annserve.training.erased import without_erased
from annserve.training.interactions import Columns, Interactions, read_interactions
from annserve.training.readers import Format

if TYPE_CHECKING:
    from annserve.training.evaluation import Evaluated
    from annserve.training.train import TrainingSettings

PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="Interactions: Parquet, CSV, TSV, JSON Lines or Matrix Market; or folders."),
]
DemoOption = Annotated[bool, typer.Option("--demo", help="Use the bundled Online Retail data instead of files.")]
UserOption = Annotated[str, typer.Option("--user-column", help="The column of user ids.")]
ItemOption = Annotated[str, typer.Option("--item-column", help="The column of item ids.")]
WeightOption = Annotated[str | None, typer.Option("--weight-column", help="The column of weights; 1 each without.")]
TimeOption = Annotated[str | None, typer.Option("--time-column", help="The column of times; no recency without.")]
TimeUnitOption = Annotated[TimeUnit | None, typer.Option(help="What numbers in the time column count.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="The format; told by each file's suffix without.")
]
BadShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Refuse the data when a larger share of rows is unusable.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A training setting (docs/training.md); may be repeated."),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads to train and build with; every core without.")]
RecallOption = Annotated[float, typer.Option(min=0.5, max=1, help="The recall@10 that search is tuned to.")]
AcceptRecallOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Build all the same when search reaches only this recall@10.")
]
ActivateOption = Annotated[bool, typer.Option("--activate/--no-activate", help="Make the new snapshot the live one.")]

_YEAR_1971_MS = 31_536_000_000


def train_command(
    paths: PathsArgument = None,
    use_demo: DemoOption = False,
    from_: FromOption = None,
    catalog_config: ConfigOption = None,
    user_column: UserOption = "user_id",
    item_column: ItemOption = "item_id",
    weight_column: WeightOption = None,
    time_column: TimeOption = None,
    time_unit: TimeUnitOption = None,
    format_: FormatOption = None,
    max_bad_share: BadShareOption = 0.01,
    set_: SetOption = None,
    threads: ThreadsOption = None,
    recall_target: RecallOption = 0.98,
    accept_recall: AcceptRecallOption = None,
    activate: ActivateOption = True,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on interactions, from files or from events, and publish a snapshot."""
    from annserve.training.pairs import pairs_of
    from annserve.training.provenance import METRIC, provenance_of
    from annserve.training.train import train

    chosen = assignments(set_)
    settings = training_settings(demo.TRAINING | chosen if use_demo else chosen)
    columns = Columns(user=user_column, item=item_column, weight=weight_column, time=time_column, time_unit=time_unit)
    store = open_store(snapshots)
    if from_ is not None and (paths or use_demo):
        raise typer.BadParameter("takes the place of files and --demo", param_hint="--from")
    with progress_bars() as progress:
        if from_ is not None:
            interactions = outcome_interactions(from_, catalog_config, max_bad_share, progress)
        else:
            interactions = _interactions(
                paths, use_demo, columns, format_, max_bad_share, progress, or_else="say --demo or --from"
            )
        model = train(pairs_of(interactions), settings, threads=thread_count(threads), progress=progress)
        data = provenance_of(interactions)
        model = replace(model, metrics={METRIC: data.as_metric()})
        say(f"trained on {data.interaction_count:,} interactions, {_period(interactions) or 'without times'}")
        _publish(model, store, recall_target, accept_recall, activate, threads, progress, as_json=as_json)


def train_demo(store: SnapshotStore) -> None:
    """Train on the bundled data with every default, and make the snapshot live."""
    from annserve.training.pairs import pairs_of
    from annserve.training.train import train

    with progress_bars() as progress:
        interactions = _interactions(None, True, Columns(), None, 0.0, progress)
        model = train(
            pairs_of(interactions), training_settings(demo.TRAINING), threads=thread_count(None), progress=progress
        )
        _publish(model, store, 0.98, None, True, None, progress, as_json=False)


def evaluate_command(
    paths: PathsArgument = None,
    use_demo: DemoOption = False,
    user_column: UserOption = "user_id",
    item_column: ItemOption = "item_id",
    weight_column: WeightOption = None,
    time_column: TimeOption = None,
    time_unit: TimeUnitOption = None,
    format_: FormatOption = None,
    max_bad_share: BadShareOption = 0.01,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE[,VALUE...]",
            help="A training setting (docs/training.md); with several, each is tried on the validation window.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="QUANTILE|DATE", help="Where the test window begins: 0.8, or 2011-10-01.")
    ] = "0.8",
    window: Annotated[
        str, typer.Option(help="`test`: once, with settings that are settled. `validation`: before it, to choose them.")
    ] = "test",
    k: Annotated[int, typer.Option("--at", min=1, max=1_000, help="The length of the lists that are judged.")] = 20,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on the past, judge by what came next, beside popularity and item-kNN.

    Users with a past (warm) and without one (unseen; half of what they chose is folded in, the other half foretold)
    are judged apart. Targets are first interactions with items known before the split; what a user had is not listed.
    """
    from annserve.training.evaluation import evaluate
    from annserve.training.window import split_time, window_of

    if window not in ("test", "validation"):
        raise typer.BadParameter("must be test or validation", param_hint="--window")
    choices = list(_combinations(set_ or (), demo.TRAINING if use_demo else {}))
    if window == "test" and len(choices) > 1:
        raise typer.BadParameter(
            "choose on --window validation; the test window is for settled settings", param_hint="--set"
        )
    columns = Columns(user=user_column, item=item_column, weight=weight_column, time=time_column, time_unit=time_unit)
    with progress_bars() as progress:
        interactions = _interactions(paths, use_demo, columns, format_, max_bad_share, progress)
        split_ms = _split_ms(interactions, split)
        end_ms = None
        if window == "validation":
            # The test window is cut off, and what is left is split as the whole was.
            train_share = _train_share(interactions, split_ms)
            split_ms, end_ms = split_time(interactions, train_share, end_ms=split_ms), split_ms
        try:
            judged = window_of(interactions, split_ms, end_ms=end_ms)
        except InputError as error:
            raise InputError(f"{error}; choose another --split", **error.metadata) from None
        rows = []
        for number, (label, settings) in enumerate(choices):
            evaluated = evaluate(
                judged, settings, k=k, baselines=number == 0, threads=thread_count(threads), progress=progress
            )
            rows += [_evaluated_row(one, label if len(choices) > 1 else "", k) for one in evaluated]
    moments = [moment_text(ms) for ms in (judged.split_ms, judged.end_ms)]
    rows.sort(key=lambda row: str(row["users"]) != "warm")
    print_rows(rows, as_json=as_json, title=f"{window} window {moments[0]} to {moments[1]} UTC")


def import_command(
    item_vectors: Annotated[
        Path, typer.Option(help="Item vectors: .npy of shape (n, d), or Parquet with ids and vectors together.")
    ],
    item_ids: Annotated[
        Path | None, typer.Option(help="Ids of a .npy, in its order: text, one a line, or a table.")
    ] = None,
    user_vectors: Annotated[Path | None, typer.Option(help="User vectors, likewise.")] = None,
    user_ids: Annotated[Path | None, typer.Option(help="User ids, likewise.")] = None,
    id_column: Annotated[str, typer.Option(help="The column of ids in tables.")] = "id",
    vector_column: Annotated[str, typer.Option(help="The column of vectors in Parquet.")] = "vector",
    popularity_column: Annotated[
        str | None, typer.Option(help="The column, beside the item ids, of popularity.")
    ] = None,
    popularity_weight: Annotated[float, typer.Option(help="What the popularity prior counts in affinity.")] = 0.0,
    likeness_exponent: Annotated[float, typer.Option(min=0.5, max=1, help="Power of the norm in likeness.")] = 0.75,
    recent_items_max: Annotated[int, typer.Option(min=1, help="How many recent items fold-in looks at.")] = 100,
    fold_in: Annotated[
        str | None,
        typer.Option(
            metavar="ALPHA,REG|W0,A,T,L0,L1",
            help="Fold-in constants: two of `implicit`'s ALS, or all five (docs/training.md). None: no fold-in.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    recall_target: RecallOption = 0.98,
    accept_recall: AcceptRecallOption = None,
    activate: ActivateOption = True,
    snapshots: SnapshotsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a snapshot of vectors that were trained elsewhere."""
    from annserve.training.imported import VectorSource, import_vectors

    items = VectorSource(
        vectors=item_vectors,
        ids=item_ids,
        id_column=id_column,
        vector_column=vector_column,
        popularity_column=popularity_column,
    )
    users = None
    if user_vectors is not None:
        users = VectorSource(vectors=user_vectors, ids=user_ids, id_column=id_column, vector_column=vector_column)
    constants = _fold_in_constants(fold_in) if fold_in is not None else None
    with _options_named(
        {id_column: "--id-column", vector_column: "--vector-column", popularity_column: "--popularity-column"}
    ):
        model = import_vectors(
            items,
            users,
            fold_in=constants,
            popularity_weight=popularity_weight,
            likeness_exponent=likeness_exponent,
            recent_items_max=recent_items_max,
        )
    with progress_bars() as progress:
        _publish(
            model, open_store(snapshots), recall_target, accept_recall, activate, threads, progress, as_json=as_json
        )


def _fold_in_constants(text: str) -> FoldInConstants:
    from annserve.training.fold_in import implicit_constants

    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 2:
        return implicit_constants(alpha=values[0], regularization=values[1])
    if len(values) != 5:
        raise typer.BadParameter("must be two numbers, ALPHA,REG, or five, W0,A,T,L0,L1", param_hint="--fold-in")
    return FoldInConstants(
        gram_weight=values[0],
        item_weight=values[1],
        target=values[2],
        regularization=values[3],
        regularization_per_item=values[4],
    )


def training_settings(values: dict[str, str]) -> TrainingSettings:
    """Return the settings with ``values``, each in its written form.

    Raises:
        InputError: a name or value that is not allowed; the message says what is.
    """
    from annserve.training.train import TrainingSettings

    unknown = [name for name in values if name not in TrainingSettings.model_fields]
    if unknown:
        known = ", ".join(TrainingSettings.model_fields)
        raise InputError(f"--set {unknown[0]}: there is no such setting; there are {known}", setting=unknown[0])
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"--set {problem['loc'][0]}: {value_problem(problem)}" for problem in error.errors())
        raise InputError(wrong) from None


def thread_count(threads: int | None) -> int:
    """Return how many threads to work with: as many as there are processors for us, unless told."""
    return threads if threads is not None else len(os.sched_getaffinity(0))


def assignments(texts: Sequence[str] | None) -> dict[str, str]:
    """Return what ``NAME=VALUE`` texts say."""
    return dict(_assignment(text) for text in texts or ())


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    return name.strip(), value.strip()


def _combinations(texts: Sequence[str], given: dict[str, str]) -> Iterator[tuple[str, TrainingSettings]]:
    """Yield every combination of the values, with a label of what was set."""
    choices = [(name, value.split(",")) for name, value in map(_assignment, texts)]
    for values in itertools.product(*(options for _, options in choices)):
        chosen = dict(zip((name for name, _ in choices), values, strict=True))
        yield " ".join(f"{name}={value}" for name, value in chosen.items()), training_settings(given | chosen)


def _interactions(
    paths: list[Path] | None,
    use_demo: bool,
    columns: Columns,
    format_: Format | None,
    max_bad_share: float,
    progress: Progress,
    *,
    or_else: str = "say --demo",
) -> Interactions:
    if use_demo == bool(paths):
        raise typer.BadParameter(f"name the files of interactions, or {or_else}", param_hint="FILE...")
    if use_demo:
        return read_interactions(demo.INTERACTIONS, columns=Columns(**demo.COLUMNS), progress=progress)
    with _options_named(
        {
            columns.user: "--user-column",
            columns.item: "--item-column",
            columns.weight: "--weight-column",
            columns.time: "--time-column",
        }
    ):
        interactions = read_interactions(
            paths or [], columns=columns, format_=format_, max_bad_share=max_bad_share, progress=progress
        )
    if interactions.report.bad_count:
        say(
            f"left out {interactions.report.bad_count:,} of {interactions.report.row_count:,} rows: "
            + interactions.report.summary()
        )
    _tell_doubtful_times(interactions, columns.time_unit)
    left = without_erased(interactions, known_erased())
    if len(left) < len(interactions):
        say(f"left out {len(interactions) - len(left):,} interactions of users who were erased since")
    return left


@contextmanager
def _options_named(options: Mapping[str | None, str]) -> Iterator[None]:
    """Add to an error about a column the option that chose its name: ``options``, by name."""
    try:
        yield
    except InputError as error:
        option = options.get(error.metadata.get("column", ""))
        if option is None:
            raise
        raise InputError(f"{error}; name it with {option}", **error.metadata) from None


def _tell_doubtful_times(interactions: Interactions, unit: TimeUnit | None) -> None:
    """Say so where all times are of 1970, as they are when their unit is taken for a smaller one.

    It is no reason to refuse: times of public data sets may count from where these begin.
    """
    if interactions.times is None or not 0 <= (newest_ms := int(interactions.times.max())) < _YEAR_1971_MS:
        return
    meant = None if unit is None else unit_meant(newest_ms, unit)
    say(
        f"all times are of 1970, {_period(interactions)}: "
        + (f"is --time-unit {meant.value} meant?" if meant else "if they are not, see --time-unit and --time-column")
    )


def _period(interactions: Interactions) -> str:
    """Return the first and the last time, empty where there are none."""
    if interactions.times is None:
        return ""
    oldest, newest = (moment_text(int(moment)) for moment in (interactions.times.min(), interactions.times.max()))
    return f"{oldest} to {newest} UTC"


def _split_ms(interactions: Interactions, split: str) -> int:
    from annserve.training.window import split_time

    try:
        quantile = float(split)
    except ValueError:
        try:
            moment = datetime.fromisoformat(split)
        except ValueError:
            raise typer.BadParameter(
                "must be a quantile, like 0.8, or a date, like 2011-10-01", param_hint="--split"
            ) from None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)
    if not 0 < quantile < 1:
        raise typer.BadParameter("a quantile is between 0 and 1", param_hint="--split")
    return split_time(interactions, quantile)


def _train_share(interactions: Interactions, split_ms: int) -> float:
    from annserve.training.pairs import pairs_of

    return float((pairs_of(interactions).first_times < split_ms).mean())


def _evaluated_row(evaluated: Evaluated, label: str, k: int) -> dict[str, Any]:
    metrics = evaluated.metrics
    return {
        "users": evaluated.cohort,
        "recommender": evaluated.recommender
        + (f" {label}" if label and evaluated.recommender.startswith("annserve") else ""),
        f"recall@{k}": round(metrics.recall, 4),
        "95 % interval": f"{metrics.recall_low:.4f}-{metrics.recall_high:.4f}",
        f"nDCG@{k}": round(metrics.ndcg, 4),
        "coverage": round(metrics.coverage, 3),
        "novelty_bits": round(metrics.novelty, 2),
        "most_popular_1%": round(metrics.most_popular, 3),
        "count": metrics.user_count,
    }


def _publish(
    model: Model,
    store: SnapshotStore,
    recall_target: float,
    accept_recall: float | None,
    activate: bool,
    threads: int | None,
    progress: Progress,
    *,
    as_json: bool,
) -> None:
    from annserve.snapshot.build import build_snapshot

    info = build_snapshot(
        model,
        store,
        recall_target=recall_target,
        accept_recall=accept_recall,
        threads=thread_count(threads),
        activate=activate,
        progress=progress,
    )
    if as_json:
        print_json({"snapshot_id": info.snapshot_id, "path": str(info.path), "live": info.is_current})
    else:
        counts = f"{len(model.item_ids):,} items, {len(model.user_ids):,} users"
        say(f"published {info.snapshot_id} in {store.root}: {counts}, {'live' if info.is_current else 'not live'}")
