"""Items to upsert, as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from annserve.domain.errors import InputError
from annserve.domain.value_problems import key_problems
from annserve_client.admin import FreshItem

_ITEMS_MAX = 1_000
_NUMBERS_MAX = 2_000_000
"""How many items, and numbers in their vectors, one request carries."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    item_id: str
    vector: list[float] | None = None
    liked_by_user_ids: list[str] = []
    popularity: float | None = None


def read_items(lines: Iterable[str], name: str) -> list[FreshItem]:
    """Return the items of ``lines``, all of which are read before anything is sent; of an id the last line counts.

    Raises:
        InputError: a line is no such item; the message says which, and ``name`` where.
    """
    items: dict[str, FreshItem] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[:1]
            keys = f"; the keys are {', '.join(_Line.model_fields)}" if first[0]["type"] == "extra_forbidden" else ""
            raise InputError(f"{name}, line {number}: {key_problems(first)}{keys}") from None
        if (read.vector is None) == (not read.liked_by_user_ids):
            raise InputError(f"{name}, line {number}: give vector or liked_by_user_ids, and not both")
        items[read.item_id] = FreshItem(**read.model_dump())
    return list(items.values())


def batches(items: Sequence[FreshItem]) -> Iterator[list[FreshItem]]:
    """Return ``items`` in parts that a request has room for."""
    batch: list[FreshItem] = []
    numbers = 0
    for item in items:
        size = len(item.vector or ())
        if batch and (len(batch) == _ITEMS_MAX or numbers + size > _NUMBERS_MAX):
            yield batch
            batch, numbers = [], 0
        batch.append(item)
        numbers += size
    if batch:
        yield batch
