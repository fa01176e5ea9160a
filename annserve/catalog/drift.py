"""How documents differ from the declared fields."""

from __future__ import annotations

from collections.abc import Sequence

from annserve.catalog.evaluate import found_at, metadata_of
from annserve.domain.catalog import Document, FieldDrift, Schema

_EXAMPLES_MAX = 5


class DriftCount:
    """Looks at documents one by one and counts."""

    def __init__(self, schema: Schema) -> None:
        self._fields = tuple(schema.fields.values())
        self._missing = dict.fromkeys(schema.fields, 0)
        self._other_type = dict.fromkeys(schema.fields, 0)
        self._examples: dict[str, list[str]] = {name: [] for name in schema.fields}

    def add(self, item_id: str, document: Document) -> None:
        """Look at the next document."""
        there = metadata_of(self._fields, document)
        for field in self._fields:
            if not found_at(field.path, document):
                self._missing[field.name] += 1
            elif field.name not in there:
                self._other_type[field.name] += 1
                if len(self._examples[field.name]) < _EXAMPLES_MAX:
                    self._examples[field.name].append(item_id)

    def fields(self) -> Sequence[FieldDrift]:
        """Return what was found, a field each."""
        return [
            FieldDrift(
                field=name,
                missing=self._missing[name],
                other_type=self._other_type[name],
                examples=tuple(self._examples[name]),
            )
            for name in self._missing
        ]
