"""``annserve query``: ask a running server, as a backend service would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from annserve.cli.answers import json_of, remarks_on, row_of
from annserve.cli.context_text import parse_pairs, parse_value
from annserve.cli.filter_text import parse_filter
from annserve.cli.names import Names, NamesOption
from annserve.cli.options import settings
from annserve.cli.output import JsonOption, fail, print_json, print_rows, say
from annserve.cli.refusals import refusal_of
from annserve.cli.securing import api_key, channel_credentials, tls_advice
from annserve_client import (
    AnnserveError,
    Client,
    Options,
    Personalize,
    Recommend,
    Related,
    Similar,
    UnavailableError,
    WeightedItem,
)

app = typer.Typer(help="Ask a running server.", no_args_is_help=True)

AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where the server is. [env: ANNSERVE_ADDRESS]")
]
TimeoutOption = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer, retries included.")]
KOption = Annotated[int, typer.Option("-k", "--page-size", min=1, help="How many items to return, 1 to 500.")]
ItemsOption = Annotated[
    list[str], typer.Option("--item", metavar="ITEM", help="An item's id, or with --names its name; may be repeated.")
]
UserOption = Annotated[str | None, typer.Option("--user", metavar="USER_ID", help="The user's id.")]
RecentOption = Annotated[
    list[str] | None,
    typer.Option("--recent", metavar="ITEM[=WEIGHT]", help="A recent item, oldest first; may be repeated."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option("--exclude", metavar="ITEM", help="Never return this item.")]
CandidateOption = Annotated[list[str] | None, typer.Option("--candidate", metavar="ITEM", help="Return only these.")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="""What items must be like: 'price < 5 and country in ["France"] and not exists(discontinued)'.""",
    ),
]
FieldsOption = Annotated[
    str | None, typer.Option("--fields", metavar="NAME,...", help="Declared fields to show with each item.")
]
StalenessOption = Annotated[
    float | None,
    typer.Option("--max-staleness", metavar="SECONDS", help="How old what is known of the catalogue may be."),
]
SeenOption = Annotated[bool, typer.Option("--exclude-seen/--include-seen", help="Leave out what the user had.")]
WeightOption = Annotated[
    float | None, typer.Option("--popularity-weight", help="What popularity counts, -10 to 10; the snapshot's without.")
]
EfOption = Annotated[int | None, typer.Option("--ef-search", help="Search harder than the snapshot was tuned to.")]
ExactOption = Annotated[bool, typer.Option("--exact", help="Compare with every item.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail on an unknown id instead of listing it.")]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Say what scores are made of.")]


@app.command()
def similar(
    items: ItemsOption,
    names: NamesOption = None,
    page_size: KOption = 10,
    exclude: ExcludeOption = None,
    candidate: CandidateOption = None,
    filter_: FilterOption = None,
    fields: FieldsOption = None,
    max_staleness: StalenessOption = None,
    ef_search: EfOption = None,
    exact: ExactOption = False,
    strict: StrictOption = False,
    explain: ExplainOption = False,
    address: AddressOption = None,
    timeout: TimeoutOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Ask what is like an item, or several."""
    known = Names.read(names)
    options = _options(
        known, page_size, exclude, candidate, filter_, fields, max_staleness, ef_search, exact, strict, explain
    )
    request = Similar(item_ids=_ids(known, items), options=options)
    _ask(request, known, address, timeout, as_json=as_json)


@app.command()
def personalize(
    user: UserOption = None,
    recent: RecentOption = None,
    names: NamesOption = None,
    page_size: KOption = 10,
    exclude: ExcludeOption = None,
    candidate: CandidateOption = None,
    filter_: FilterOption = None,
    fields: FieldsOption = None,
    max_staleness: StalenessOption = None,
    exclude_seen: SeenOption = True,
    popularity_weight: WeightOption = None,
    ef_search: EfOption = None,
    exact: ExactOption = False,
    strict: StrictOption = False,
    explain: ExplainOption = False,
    address: AddressOption = None,
    timeout: TimeoutOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Ask what suits a user, known by id or by recent items."""
    known = Names.read(names)
    options = _options(
        known,
        page_size,
        exclude,
        candidate,
        filter_,
        fields,
        max_staleness,
        ef_search,
        exact,
        strict,
        explain,
        exclude_seen,
        popularity_weight,
    )
    request = Personalize(user_id=user, recent_items=_recent(known, recent), options=options)
    _ask(request, known, address, timeout, as_json=as_json)


@app.command()
def related(
    items: ItemsOption,
    user: UserOption = None,
    recent: RecentOption = None,
    user_impact: Annotated[
        float | None, typer.Option(help="How much taste counts against context, 0 to 1; 0.5 without.")
    ] = None,
    names: NamesOption = None,
    page_size: KOption = 10,
    exclude: ExcludeOption = None,
    candidate: CandidateOption = None,
    filter_: FilterOption = None,
    fields: FieldsOption = None,
    max_staleness: StalenessOption = None,
    exclude_seen: SeenOption = True,
    popularity_weight: WeightOption = None,
    ef_search: EfOption = None,
    exact: ExactOption = False,
    strict: StrictOption = False,
    explain: ExplainOption = False,
    address: AddressOption = None,
    timeout: TimeoutOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Ask what goes with what is on screen, for a user."""
    known = Names.read(names)
    options = _options(
        known,
        page_size,
        exclude,
        candidate,
        filter_,
        fields,
        max_staleness,
        ef_search,
        exact,
        strict,
        explain,
        exclude_seen,
        popularity_weight,
    )
    request = Related(
        item_ids=_ids(known, items),
        user_id=user,
        recent_items=_recent(known, recent),
        user_impact=user_impact,
        options=options,
    )
    _ask(request, known, address, timeout, as_json=as_json)


@app.command()
def recommend(
    placement: Annotated[str, typer.Option("--placement", metavar="NAME", help="What is to be filled: `home`.")],
    items: Annotated[
        list[str] | None,
        typer.Option("--item", metavar="ITEM", help="What is on screen, by id or with --names by name; repeatable."),
    ] = None,
    user: UserOption = None,
    recent: RecentOption = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="NAME=VALUE",
            help="A circumstance that the placement declares, such as device=phone; repeatable. In quotes it is text.",
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="ID", help="Whom experiments assign; the user without.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="EXPERIMENT=VARIANT", help="Answer with this variant; repeatable."),
    ] = None,
    names: NamesOption = None,
    page_size: Annotated[
        int | None,
        typer.Option("-k", "--page-size", min=1, help="How many items to return; as the placement says without."),
    ] = None,
    exclude: ExcludeOption = None,
    candidate: CandidateOption = None,
    filter_: FilterOption = None,
    fields: FieldsOption = None,
    max_staleness: StalenessOption = None,
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--include-seen", help="Leave out what the user had; as the placement says without."
        ),
    ] = None,
    popularity_weight: WeightOption = None,
    ef_search: EfOption = None,
    exact: ExactOption = False,
    strict: StrictOption = False,
    explain: ExplainOption = False,
    address: AddressOption = None,
    timeout: TimeoutOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Ask what a placement shows here and now."""
    known = Names.read(names)
    options = _options(
        known,
        page_size,
        exclude,
        candidate,
        filter_,
        fields,
        max_staleness,
        ef_search,
        exact,
        strict,
        explain,
        exclude_seen,
        popularity_weight,
    )
    circumstances = parse_pairs(context or (), "--context")
    request = Recommend(
        placement=placement,
        item_ids=_ids(known, items),
        user_id=user,
        recent_items=_recent(known, recent),
        context={name: parse_value(text) for name, text in circumstances.items()},
        experiment_unit=unit,
        forced_variants=parse_pairs(variant or (), "--variant"),
        options=options,
    )
    _ask(request, known, address, timeout, as_json=as_json)


def _options(
    names: Names,
    page_size: int | None,
    exclude: list[str] | None,
    candidate: list[str] | None,
    filter_: str | None,
    fields: str | None,
    max_staleness: float | None,
    ef_search: int | None,
    exact: bool,
    strict: bool,
    explain: bool,
    exclude_seen: bool | None = None,
    popularity_weight: float | None = None,
) -> Options:
    return Options(
        page_size=page_size,
        exclude_item_ids=_ids(names, exclude),
        candidate_item_ids=_ids(names, candidate) if candidate else None,
        filter=None if filter_ is None else parse_filter(filter_),
        read_mask=[name.strip() for name in fields.split(",")] if fields else (),
        max_staleness_seconds=max_staleness,
        exclude_seen=exclude_seen,
        popularity_weight=popularity_weight,
        ef_search=ef_search,
        exact=exact,
        strict=strict,
        explain=explain,
    )


def _ids(names: Names, items: Sequence[str] | None) -> list[str]:
    return [names.id_of(item) for item in items or ()]


def _recent(names: Names, texts: list[str] | None) -> list[WeightedItem]:
    recent = []
    for text in texts or ():
        item, equals, weight = text.rpartition("=")
        try:
            recent.append(
                WeightedItem(item_id=names.id_of(item if equals else text), weight=float(weight) if equals else 1)
            )
        except ValueError:
            raise typer.BadParameter(f"{text!r}: what follows = is no number", param_hint="--recent") from None
    return recent


def _ask(
    request: Similar | Personalize | Related | Recommend,
    names: Names,
    address: str | None,
    timeout: float,
    *,
    as_json: bool,
) -> None:
    target = address or settings().address
    try:
        known = settings()
        credentials, key = channel_credentials(known), api_key(known)
        with Client(target, timeout_seconds=timeout, credentials=credentials, api_key=key) as client:
            answer = client.recommend(request)
    except UnavailableError as error:
        raise fail(
            f"no answer from {target}: {error.args[0]}; "
            + tls_advice(error, "is a server running there? `annserve serve --demo`")
        ) from None
    except AnnserveError as error:
        raise fail(refusal_of(error, target, "address")) from None
    if as_json:
        print_json(json_of(answer, names))
        return
    shown = request.options.read_mask
    has_rules = request.options.explain and answer.placement is not None
    rows = [row_of(rank, result, names, shown, has_rules=has_rules) for rank, result in enumerate(answer, 1)]
    print_rows(rows, as_json=False)
    forced = request.forced_variants if isinstance(request, Recommend) else ()
    for line in remarks_on(answer, forced):
        say(line)
