"""``annserve catalog``: fill a catalogue, compare it with its declaration and with the snapshot, index it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annserve import demo
from annserve.cli.catalog_source import (
    CatalogOption,
    CatalogSource,
    ConfigOption,
    DemoOption,
    HistoriesOption,
    required_source,
)
from annserve.cli.options import SnapshotsOption, open_store
from annserve.cli.output import JsonOption, print_json, print_rows, progress_bars, say
from annserve.domain.catalog import CatalogStore
from annserve.snapshot.ids import IdIndex
from annserve.snapshot.snapshot import load_current

app = typer.Typer(help="Items' metadata and users' histories.", no_args_is_help=True)

_EXAMPLES = 5


@app.command("load")
def load_command(
    file: Annotated[Path, typer.Argument(help="Parquet, JSON Lines or CSV: a row or line an item.")],
    id_column: Annotated[str, typer.Option(help="The column that holds the item's id.")] = "item_id",
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    use_demo: DemoOption = False,
) -> None:
    """Write items from a file, replacing those that are there, and create the indexes that filters need."""
    from annserve.catalog.documents import read_documents

    source = required_source(catalog, catalog_config, use_demo=use_demo)

    async def load(store: CatalogStore) -> int:
        with progress_bars() as progress:
            documents = read_documents(file, store.schema, id_column=id_column)
            count = await store.upsert(documents, progress)
        await store.ensure_indexes()
        return count

    say(f"{source.use(load, create=True):,} items written to {source}")


def load_demo(source: CatalogSource) -> None:
    """Write the bundled items into a catalogue that has none."""
    from annserve.catalog.documents import read_documents

    async def load(store: CatalogStore) -> int:
        async for ids in store.matching(None):
            if ids:
                return 0
        with progress_bars() as progress:
            count = await store.upsert(read_documents(demo.ITEMS, store.schema), progress)
        await store.ensure_indexes()
        return count

    if count := source.use(load):
        say(f"{count:,} bundled items written to {source}")


@app.command("ensure-indexes")
def ensure_indexes_command(
    catalog: CatalogOption = None, catalog_config: ConfigOption = None, use_demo: DemoOption = False
) -> None:
    """Create the indexes that filters and histories need; those that are there stay as they are."""
    source = required_source(catalog, catalog_config, use_demo=use_demo)
    created = source.use(lambda store: store.ensure_indexes())
    say(f"created {', '.join(created)}" if created else "every index is there already")


@app.command("check")
def check_command(
    catalog: CatalogOption = None,
    catalog_config: ConfigOption = None,
    histories: HistoriesOption = None,
    snapshots: SnapshotsOption = None,
    use_demo: DemoOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the catalogue with its declared fields, and with the items of the live snapshot."""
    source = required_source(catalog, catalog_config, histories, use_demo=use_demo)
    items = load_current(open_store(snapshots)).snapshot.items

    async def check(store: CatalogStore) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        with progress_bars() as progress:
            drift = await store.drift(progress)
            ids = {item_id async for chunk in store.matching(None) for item_id in chunk}
        fields: list[dict[str, object]] = [
            {
                "field": one.field,
                "type": store.schema.fields[one.field].type.value,
                "missing": one.missing,
                "other type": one.other_type,
                "examples": ", ".join(one.examples),
            }
            for one in drift
        ]
        return fields, _unmatched(ids, items)

    fields, unmatched = source.use(check)
    if as_json:
        print_json({"fields": fields, "items": unmatched})
        return
    print_rows(fields, as_json=False, title=f"{source}: declared fields")
    print_rows(unmatched, as_json=False, title="items")


def _unmatched(ids: set[str], items: IdIndex) -> list[dict[str, object]]:
    without_vector = sorted(item_id for item_id in ids if items.row(item_id) is None)
    without_document = [item_id for row in range(len(items)) if (item_id := items.id(row)) not in ids]
    return [
        {"what": "in the catalogue and the snapshot", "count": len(ids) - len(without_vector), "examples": ""},
        _counted("in the catalogue, without a vector", without_vector),
        _counted("in the snapshot, not in the catalogue", without_document),
    ]


def _counted(what: str, ids: list[str]) -> dict[str, object]:
    return {"what": what, "count": len(ids), "examples": ", ".join(ids[:_EXAMPLES])}
