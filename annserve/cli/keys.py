"""``annserve keys``: API keys are made here, and kept nowhere but with who brings them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml

from annserve.cli.output import JsonOption, console, print_json, print_rows, say
from annserve.service.access_keys import AccessKey, Scope, new_key, read_keys

app = typer.Typer(help="Make API keys, and look at those that a file has.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file that ANNSERVE_API_KEYS names.")]


@app.command()
def new(
    file: FileArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for: letters, digits, dot, dash, underscore.")],
    scopes: Annotated[list[Scope], typer.Option("--scope", help="What it is good for; may be repeated.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=3_650, help="How many days it is good for; for good without.")
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="How many calls a second each worker takes of it.")
    ] = None,
) -> None:
    """Add a key to the file, which may be in use, and print it: it cannot be had again."""
    known = read_keys(file) if file.exists() else ()
    key, digest = new_key()
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    entry = AccessKey(
        name=name, sha256=digest, scopes=frozenset(scopes), expires=expires, calls_per_second=calls_per_second
    )
    _write(file, [*known, entry])
    say(f"added to {file}; a running instance takes it within a second. Put the key where the caller has its secrets:")
    console.print(key, highlight=False, soft_wrap=True)


@app.command("list")
def list_keys(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show the keys of a file by name; two may have one name, while one takes over from the other."""
    now = datetime.now(UTC)
    rows = [
        {
            "name": key.name,
            "sha256": key.sha256[:12],
            "scopes": ", ".join(sorted(key.scopes)),
            "expires": "" if key.expires is None else key.expires.isoformat(),
            "valid": not key.is_expired(now),
        }
        for key in read_keys(file)
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, as_json=False)


@app.command()
def revoke(
    file: FileArgument,
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="As `list` shows it: how the hash begins.")],
) -> None:
    """Take a key out of the file; a running instance refuses it within a second."""
    known = read_keys(file)
    left = [key for key in known if not key.sha256.startswith(sha256)]
    if len(known) - len(left) != 1:
        raise typer.BadParameter(f"{len(known) - len(left)} keys begin with that, and it must be one")
    _write(file, left)
    say(f"taken out of {file}")


def _write(file: Path, keys: list[AccessKey]) -> None:
    entries = []
    for key in keys:
        entry = key.model_dump(mode="python", exclude_none=True)
        entries.append(entry | {"scopes": sorted(scope.value for scope in key.scopes)})
    draft = file.with_name(f".{file.name}.draft")
    draft.touch(0o600)
    draft.write_text(yaml.safe_dump({"keys": entries}, sort_keys=False), encoding="utf-8")
    if file.exists():
        draft.chmod(file.stat().st_mode & 0o777)
    draft.replace(file)
