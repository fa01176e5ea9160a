"""Item names for people: the service answers with ids, and the names are in the caller's own catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from annserve import demo
from annserve.domain.errors import InputError

NamesOption = Annotated[
    str | None,
    typer.Option(
        "--names",
        metavar="demo|FILE[:ID_COLUMN:NAME_COLUMN]",
        help="Parquet that names the items, so that names can be read, and given in place of ids.",
    ),
]


@dataclass(frozen=True, slots=True)
class Names:
    """Names by item id; empty where none are known."""

    by_id: dict[str, str]

    @classmethod
    def read(cls, option: str | None) -> Names:
        """Return the names that ``--names`` tells of.

        Raises:
            InputError: the file or a column of it is not there.
        """
        if option is None:
            return cls({})
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, *columns = [str(demo.ITEMS)] if option == "demo" else option.rsplit(":", 2)
        if len(columns) == 1:
            raise InputError(f"--names {option}: give both columns, as in items.parquet:item_id:name, or none")
        id_column, name_column = columns or ("item_id", "name")
        try:
            table = pq.read_table(Path(path), columns=[id_column, name_column])
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"--names {option}: {path} cannot be read as Parquet: {error}") from None
        if table.num_columns != 2:
            raise InputError(f"--names {option}: {path} has no columns {id_column!r} and {name_column!r}")
        pairs = zip(table[id_column].to_pylist(), table[name_column].to_pylist(), strict=True)
        return cls({str(item_id): str(name) for item_id, name in pairs if item_id is not None and name is not None})

    def of(self, item_id: str) -> str | None:
        """Return the item's name, None when it has none."""
        return self.by_id.get(item_id)

    def id_of(self, item: str) -> str:
        """Return the id of an item given by its id, its name, or a part of its name that no other name has.

        What is no known name is taken for an id: the server says if it does not know it.

        Raises:
            InputError: several names have that part; the message lists some.
        """
        wanted = item.casefold()
        if item in self.by_id or not self.by_id:
            return item
        exact = [item_id for item_id, name in self.by_id.items() if name.casefold() == wanted]
        partly = exact or [item_id for item_id, name in self.by_id.items() if wanted in name.casefold()]
        if len(partly) > 1:
            some = "; ".join(f"{item_id} {self.by_id[item_id]}" for item_id in partly[:5])
            raise InputError(f"{item!r} is part of {len(partly)} names, give more of one, or an id: {some}")
        return partly[0] if partly else item
