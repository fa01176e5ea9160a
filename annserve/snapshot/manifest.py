"""The manifest: everything a snapshot says of itself, under a checksum of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from annserve.domain.errors import (
    InvalidArgumentError,
    SnapshotChecksumError,
    SnapshotFormatError,
    SnapshotIncompleteError,
)
from annserve.domain.model import FoldInConstants, Space
from annserve.domain.query import SearchPath
from annserve.domain.value_problems import key_problems
from annserve.search.bands import Bands
from annserve.search.recipe import Recipe
from annserve.snapshot.files import is_plain_file

FORMAT_VERSION = 1
"""The format that is written, and the newest that is read."""

DIMENSION_MAX = 65_536
"""More than any factorisation has; what a damaged number must not exceed."""

MANIFEST = "manifest.json"

_BYTES_MAX = 16 << 20
_SHA256 = r"^[0-9a-f]{64}$"


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Entry):
    """What a file must be, byte for byte."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class KindEntry(_Entry):
    """One kind of entity: how many have a vector, and its dimension."""

    count: int = Field(ge=0, lt=2**31)
    dimension: int = Field(ge=1, le=DIMENSION_MAX)


class Kinds(_Entry):
    """The kinds that have vectors; one dimension for all of them."""

    items: KindEntry
    users: KindEntry

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.items.count == 0 or self.items.dimension != self.users.dimension:
            raise ValueError("there must be items, and users of their dimension")
        return self


class SpaceEntry(_Entry):
    """How one space is searched, and what that was measured to find."""

    path: SearchPath
    recipe: Recipe | None
    """None when exact search serves."""
    recall_target: float = Field(gt=0, le=1)
    """The recall@10 that was asked for, or that was accepted below it: what the planner expects of the graph."""
    recall: float = Field(ge=0, le=1)
    """The recall@10 measured at full size, on queries that chose nothing."""
    check_count: int = Field(ge=1)
    """How many queries with known answers there are."""
    check_recall: float = Field(ge=0, le=1)
    """The recall@10 on those when the snapshot was built, which a load must reach again."""
    bands: Bands | None
    trials: list[dict[str, JsonValue]]
    """Everything that was tried, in order."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is SearchPath.HNSW) != (self.recipe is not None) or (self.recipe is None) != (self.bands is None):
            raise ValueError("a graph needs a recipe and bands, exact search has neither")
        if self.bands is not None:
            band_count = len(self.bands.edges) + 1
            if any({len(level.hit_shares), len(level.recalls)} != {band_count} for level in self.bands.levels):
                raise ValueError(f"every level must tell of {band_count} bands")
        return self


class Spaces(_Entry):
    """The two spaces over items."""

    affinity: SpaceEntry
    likeness: SpaceEntry

    def of(self, space: Space) -> SpaceEntry:
        """Return the entry of one space."""
        return self.affinity if space is Space.AFFINITY else self.likeness


class Training(_Entry):
    """Where the vectors come from."""

    trainer: str
    parameters: dict[str, JsonValue]


class Constants(_Entry):
    """What serving needs to know of the model beside its vectors; see `annserve.domain.model.Model`."""

    popularity_weight: float
    likeness_exponent: float = Field(ge=0, le=1)
    recent_items_max: int = Field(ge=0)
    fold_in: FoldInConstants | None


class Manifest(_Entry):
    """What ``manifest.json`` holds, except for its own checksum."""

    format_version: int
    snapshot_id: str
    created_time: datetime
    created_by: str
    """The version of annserve that built it."""
    kinds: Kinds
    history_item_count: int | None = Field(ge=0)
    """The length of all users' histories together; None when there are none."""
    spaces: Spaces
    constants: Constants
    training: Training
    metrics: dict[str, JsonValue]
    files: dict[str, FileEntry]

    def to_bytes(self) -> bytes:
        """Return the file: this manifest and its checksum."""
        return _rendered(self.model_dump(mode="json"))


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the snapshot folder at ``path``; no other file is looked at.

    Raises:
        SnapshotIncompleteError: there is none, or an empty one: it is written last.
        SnapshotFormatError: it is not of a format this annserve reads.
        SnapshotChecksumError: it is not, byte for byte, what was written.
        OSError: it cannot be read.
    """
    raw = _read(path)
    try:
        document = json.loads(raw)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        _check_version(path, document)
        document.pop("checksum", None)
        rendered = _rendered(document)
    except (ValueError, RecursionError) as error:
        raise SnapshotFormatError(path, f"{MANIFEST} is not JSON of ours: {error}") from error
    # Compared as bytes, not as values: nothing passes that was written differently, however it parses.
    if raw != rendered:
        raise SnapshotChecksumError(path, f"{MANIFEST} does not have the checksum it states")
    try:
        return Manifest.model_validate_json(json.dumps(document))
    except InvalidArgumentError as error:
        raise SnapshotFormatError(path, f"{MANIFEST}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[:1]
        raise SnapshotFormatError(path, f"{MANIFEST}: {key_problems(first)}") from error


def sha256_of(document: Mapping[str, JsonValue]) -> str:
    """Return the SHA-256 of a document's canonical JSON (sorted names, no spaces, ASCII), 64 hexadecimal digits."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _rendered(document: Mapping[str, JsonValue]) -> bytes:
    complete = {**document, "checksum": sha256_of(document)}
    return (json.dumps(complete, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _check_version(path: Path, document: Mapping[str, JsonValue]) -> None:
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise SnapshotFormatError(path, f"{MANIFEST} states no format version")
    if version > FORMAT_VERSION:
        raise SnapshotFormatError(
            path, f"is of format {version}, this annserve reads formats up to {FORMAT_VERSION}: a newer one is needed"
        )


def _read(path: Path) -> bytes:
    file = path / MANIFEST
    try:
        if not is_plain_file(file):
            raise SnapshotFormatError(path, f"{MANIFEST} is not a regular file")
        with file.open("rb") as stream:
            raw = stream.read(_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SnapshotIncompleteError(path, f"{MANIFEST} is missing") from error
    if not raw.strip(b"\0 \n"):
        raise SnapshotIncompleteError(path, f"{MANIFEST} is empty")
    if len(raw) > _BYTES_MAX:
        raise SnapshotFormatError(path, f"{MANIFEST} is longer than {_BYTES_MAX} bytes")
    return raw
