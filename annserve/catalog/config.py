"""What the team's catalogue looks like: its declared fields, and where MongoDB keeps items and histories.

::

    fields:
      price: number
      tags: {type: string, many: true}
      country: {type: string, path: origin.country}
    mongodb:
      database: shop
      items: {collection: products, id_field: sku}
      histories: {layout: events, collection: events, user_field: user, time_field: at}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from annserve.catalog.mongo_compile import PATH
from annserve.domain import filter as domain
from annserve.domain.catalog import Schema
from annserve.domain.errors import InputError
from annserve.domain.value_problems import key_problems

FIELDS_MAX = 64
_PROBLEMS_MAX = 5
"""How many are told of at once."""

FieldName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,63}\z")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"\A[^$\x00]+\z")]
IdType = Literal["string", "integer", "object_id"]
"""What MongoDB holds where requests have strings: the same, a whole number, or an ObjectId (24 lower-case digits)."""


class Section(BaseModel):
    """A part of the file: nothing unknown in it, and no value of another type than declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _checked_path(path: str) -> str:
    if len(path) > 256 or not PATH.fullmatch(path):
        raise ValueError("must be one name or two joined by a dot, none of them a number or starting with $")
    return path


class FieldConfig(Section):
    """A declared field; in the file, a bare type will do."""

    type: Literal["string", "number", "boolean", "time"]
    many: bool = False
    path: str | None = None
    """The field's own name when left out."""

    @field_validator("path")
    @classmethod
    def _is_path(cls, path: str | None) -> str | None:
        return None if path is None else _checked_path(path)


class ItemsConfig(Section):
    """The collection of items, one document each."""

    collection: Name = "items"
    id_field: str = "_id"
    id_type: IdType = "string"

    @field_validator("id_field")
    @classmethod
    def _is_path(cls, path: str) -> str:
        return _checked_path(path)


class HistoriesConfig(Section):
    """The collection of histories: a document a user with a list of entries, or a document an event."""

    collection: Name = "histories"
    layout: Literal["documents", "events"] = "documents"
    user_field: str | None = None
    """``_id`` of documents and ``user_id`` of events when left out."""
    user_id_type: IdType = "string"
    item_field: str = "item_id"
    item_id_type: IdType = "string"
    event_field: str = "event"
    time_field: str = "time"
    entries_field: str = "entries"
    """Of documents only."""
    entries_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """How many entries of a user are kept (documents) and read (both)."""

    @field_validator("user_field", "item_field", "event_field", "time_field", "entries_field")
    @classmethod
    def _is_one_name(cls, name: str | None) -> str | None:
        if name is not None and "." in _checked_path(name):
            raise ValueError("must be one name, without a dot")
        return name

    @property
    def user_path(self) -> str:
        """Where the user's id is."""
        return self.user_field or ("_id" if self.layout == "documents" else "user_id")


class EventsConfig(Section):
    """The collection of events that `EventService` writes: annserve's own, where nobody else writes."""

    collection: Name = "annserve_events"


class MongoConfig(Section):
    """Where things are in MongoDB, and how long to wait for them. The server's address is no part of it."""

    database: Name = "annserve"
    items: ItemsConfig = ItemsConfig()
    histories: HistoriesConfig = HistoriesConfig()
    events: EventsConfig = EventsConfig()
    unindexed_fields: Literal["refuse", "warn"] = "refuse"
    """What to do about a filter that makes MongoDB read every document."""
    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """How many look-ups may be under way at once, each on a connection."""
    operation_timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 500
    """How long a look-up may take, whatever the caller's deadline."""


class CatalogConfig(Section):
    """The whole file."""

    fields: Annotated[dict[FieldName, FieldConfig], Field(max_length=FIELDS_MAX)] = {}
    mongodb: MongoConfig = MongoConfig()

    @field_validator("fields", mode="before")
    @classmethod
    def _spell_out(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: {"type": field} if isinstance(field, str) else field for name, field in fields.items()}

    def declared(self) -> Schema:
        """Return the declared fields."""
        return Schema(
            domain.Field(name=name, type=domain.FieldType(field.type), many=field.many, path=field.path or name)
            for name, field in self.fields.items()
        )

    @classmethod
    def read(cls, path: Path) -> CatalogConfig:
        """Return what the YAML file at ``path`` says.

        Raises:
            InputError: the file cannot be read or says something else than it may.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}", path=path) from error
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not YAML: {error}", path=path) from error
        try:
            return cls.model_validate({} if content is None else content)
        except ValidationError as error:
            raise InputError(f"{path}: {key_problems(error.errors()[:_PROBLEMS_MAX], 'the file')}", path=path) from None
