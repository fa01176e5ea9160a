"""Events as lines of JSON and rows of Parquet, for people and for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from annserve.catalog.event_values import values_of
from annserve.domain.errors import InputError
from annserve.domain.events import Event as StoredEvent
from annserve.domain.value_problems import key_problems
from annserve_client import Event, EventType, PlacementUse

_EVENTS_MAX: Final = 500
_BYTES_MAX: Final = 400_000
"""How many events, and bytes of their lines, one request carries."""

_ITEMS: Final = pa.list_(pa.string())
_PLACEMENT_TEXTS: Final = ("name", "version", "experiment", "variant", "mode", "suppressed_reason")
_PLACEMENT: Final = pa.struct(
    [*((name, pa.string()) for name in _PLACEMENT_TEXTS), ("user_context_similarity", pa.float64())]
)
SCHEMA: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("type", pa.string()),
        ("user_id", pa.string()),
        ("item_ids", _ITEMS),
        ("time", pa.timestamp("ms", "UTC")),
        ("attribution_token", pa.string()),
        ("impression_id", pa.string()),
        ("context_item_ids", _ITEMS),
        ("value", pa.float64()),
        ("placement", _PLACEMENT),
    ]
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Placement(_Section):
    name: str
    version: str = ""
    experiment: str = ""
    variant: str = ""
    mode: str = ""
    suppressed_reason: str = ""
    user_context_similarity: float | None = None


class _Line(_Section):
    event_id: str
    type: EventType
    user_id: str
    item_ids: list[str]
    time: AwareDatetime | None = None
    attribution_token: str = ""
    impression_id: str = ""
    context_item_ids: list[str] = []
    value: float = 0.0
    placement: _Placement | None = None

    def event(self) -> Event:
        """Return the event that the line is."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        placement = None if self.placement is None else PlacementUse(**self.placement.model_dump())
        return Event(**fields | {"placement": placement})


def read_batches(lines: Iterable[str], name: str) -> Iterator[list[Event]]:
    """Return the events of ``lines`` in parts that a request has room for.

    Raises:
        InputError: a line is no event; the message says which, and ``name`` where.
    """
    batch: list[Event] = []
    size_bytes = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = _Line.model_validate_json(line).event()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[:1]
            raise InputError(f"{name}, line {number}: {key_problems(first)}") from None
        if batch and (len(batch) == _EVENTS_MAX or size_bytes + len(line) > _BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(event)
        size_bytes += len(line)
    if batch:
        yield batch


def row_of(event: StoredEvent) -> dict[str, Any]:
    """Return ``event`` as `read_batches` reads it; what is empty is left out."""
    time = datetime.fromtimestamp(event.time_ms / 1e3, UTC).isoformat(timespec="milliseconds")
    return {"event_id": event.event_id, "time": time, **values_of(event)}


class EventWriter(Protocol):
    """Writes events into a file."""

    def write(self, events: Sequence[StoredEvent]) -> None:
        """Add ``events``."""
        ...

    def close(self) -> None:
        """End the file."""
        ...


class JsonLines:
    """A line each, as `annserve events write` takes them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, events: Sequence[StoredEvent]) -> None:
        """Add ``events``."""
        self._file.writelines(json.dumps(row_of(event), ensure_ascii=False).encode() + b"\n" for event in events)

    def close(self) -> None:
        """Nothing is left to do."""


class Parquet:
    """A row each, with the columns of `SCHEMA`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")

    def write(self, events: Sequence[StoredEvent]) -> None:
        """Add ``events``, a row group of them."""
        rows = [
            asdict(event)
            | {"type": event.type.value, "time": event.time_ms, "placement": values_of(event).get("placement")}
            for event in events
        ]
        self._writer.write_table(pa.Table.from_pylist(rows, SCHEMA))

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def writer_of(path: Path, file: IO[bytes]) -> EventWriter:
    """Return what writes events in the format of ``path`` into ``file``.

    Raises:
        InputError: its suffix is that of no format.
    """
    match path.suffix:
        case ".parquet":
            return Parquet(file)
        case ".jsonl" | ".ndjson":
            return JsonLines(file)
        case _:
            raise InputError(f"{path}: events are exported as .parquet or .jsonl", path=path)
