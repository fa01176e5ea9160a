"""``annserve placements``: look at placement files, before an instance does."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from annserve import demo
from annserve.catalog.config import CatalogConfig
from annserve.cli.catalog_source import CatalogOption, ConfigOption, DemoOption, catalog_source
from annserve.cli.options import settings
from annserve.cli.output import JsonOption, console, counted, fail, print_json, print_rows, say
from annserve.cli.placement_source import NO_FIELDS, schema_of
from annserve.domain.catalog import Schema
from annserve.domain.errors import InputError

app = typer.Typer(help="Placement files: one file is one service.", no_args_is_help=True)

PathArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER|FILE]", help="A folder of placements, or one. [env: ANNSERVE_PLACEMENTS]", show_default=False
    ),
]


@app.command("check")
def check_command(
    path: PathArgument = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    use_demo: DemoOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with placements, where, and what to do; exit with 1 if anything is."""
    from annserve.placements.folder import read_folder
    from annserve.placements.loading import compiled

    schema = _schema(catalog, catalog_config, use_demo=use_demo)
    texts = read_folder(_path(path, use_demo=use_demo))
    placements, problems = compiled(texts, schema)
    if as_json:
        print_json({"placements": sorted(placements), "problems": [_plain(problem) for problem in problems]})
    else:
        for problem in problems:
            console.print(str(problem), highlight=False, soft_wrap=True)
    if problems:
        if not schema.fields:
            say(f"{NO_FIELDS}--catalog-config, --catalog or --demo")
        raise fail(counted(len(problems), "problem"))
    say(f"{len(placements)} placement{'s are' if len(placements) != 1 else ' is'} right: {', '.join(placements)}")


@app.command("list")
def list_command(
    path: PathArgument = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    use_demo: DemoOption = False,
    as_json: JsonOption = False,
) -> None:
    """List placements: which question each asks, its version and its variants."""
    from annserve.domain.query import Mode

    rows = []
    for name, placement in _compiled(path, catalog, catalog_config, use_demo=use_demo).items():
        modes = {row.mode for recipe in placement.recipes.values() for row in recipe.policy}
        rows.append(
            {
                "placement": name,
                "version": placement.version,
                "asks": ", ".join(mode.value for mode in Mode if mode in modes),
                "experiment": placement.experiment or None,
                "variants": ", ".join(placement.recipes) or None,
                "description": placement.file.description or None,
            }
        )
    print_rows(rows, as_json=as_json)


@app.command("explain")
def explain_command(
    path: PathArgument = None,
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    use_demo: DemoOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say in words what placements do: which question when, how each rule is decided, what that costs."""
    from annserve.placements.words import clauses_of

    placements = _compiled(path, catalog, catalog_config, use_demo=use_demo)
    said: list[dict[str, Any]] = []
    for name, placement in placements.items():
        rows: list[dict[str, Any]] = [
            {
                "placement": name,
                "variant": (clause.variant or "all") if placement.experiment else None,
                "key": clause.key,
                "does": clause.does,
                "costs": clause.costs,
            }
            for clause in clauses_of(placement)
        ]
        said += rows
        if not as_json:
            # One table says whose it is once.
            columns = [column for column in rows[0] if column != "placement" and rows[0][column] is not None]
            shown = [{column: row[column] for column in columns} for row in rows]
            print_rows(shown, as_json=False, title=f"\n{name} ({placement.version})")
    if as_json:
        print_json(said)


@app.command("diff")
def diff_command(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A folder of placements, or one.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another.")],
    as_json: JsonOption = False,
) -> None:
    """Show what changes from one to the other, by placement and key."""
    from dataclasses import replace

    from annserve.placements.differences import differences
    from annserve.placements.folder import read_folder

    old, new = read_folder(before), read_folder(after)
    if before.is_file() and after.is_file():
        # Two files are two states of one placement, whatever they are called.
        old = [replace(text, name=new[0].name) for text in old]
    found = differences(old, new)
    rows = [
        {
            "placement": one.placement,
            "key": one.key or None,
            "before": one.before if as_json else _shown(one.before),
            "after": one.after if as_json else _shown(one.after),
        }
        for one in found
    ]
    if rows or as_json:
        print_rows(rows, as_json=as_json)
    else:
        say("nothing changes")


@app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What requests will call it: a-z, 0-9, _ and -.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write it. [env: ANNSERVE_PLACEMENTS]")
    ] = None,
) -> None:
    """Write a placement to begin with: every key is there, in a comment."""
    from annserve.placements.file import NAME_PATTERN
    from annserve.placements.template import template_of

    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"a placement is called by 1 to 64 characters out of a-z 0-9 _ -, got {name!r}")
    path = (folder or settings().placements or Path()) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template_of(name))
    except FileExistsError:
        raise InputError(f"{path} is there already") from None
    say(f"{path} is written: `annserve placements check {path}`")


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a placement file, for editors to check and complete by."""
    from annserve.placements.file import json_schema

    print_json(json_schema())


def _compiled(path: Path | None, catalog: str | None, config: Path | None, *, use_demo: bool) -> Any:
    """Return the placements at ``path``, by name.

    Raises:
        PlacementsRefusedError: something is wrong with one of them.
    """
    from annserve.placements.folder import read_folder
    from annserve.placements.loading import compiled
    from annserve.placements.problems import PlacementsRefusedError

    texts = read_folder(_path(path, use_demo=use_demo))
    placements, problems = compiled(texts, _schema(catalog, config, use_demo=use_demo))
    if problems:
        raise PlacementsRefusedError(problems)
    return placements


def _path(path: Path | None, *, use_demo: bool) -> Path:
    path = path or settings().placements or (demo.PLACEMENTS if use_demo else None)
    if path is None:
        raise InputError("which placements? name a folder or a file, set ANNSERVE_PLACEMENTS, or use --demo")
    return path


def _schema(catalog: str | None, config: Path | None, *, use_demo: bool) -> Schema:
    """Return the fields that placements may name; where they are declared, the catalogue need not be there."""
    config = config or settings().catalog_config
    if config is not None:
        return CatalogConfig.read(config).declared()
    return schema_of(catalog_source(catalog, None, use_demo=use_demo))


def _plain(problem: Any) -> dict[str, Any]:
    plain = asdict(problem)
    return {"file": plain["file"], **plain["place"], "text": plain["text"]}


def _shown(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
