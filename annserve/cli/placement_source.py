"""Which placements an instance has, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from annserve.cli.catalog_source import CatalogSource
from annserve.cli.output import say
from annserve.domain.catalog import CatalogStore, Schema
from annserve.domain.errors import CatalogUnavailableError, InputError
from annserve.domain.placements import PlacementSource, PlacementText
from annserve.placements.folder import PlacementFolder, read_folder
from annserve.settings import Settings

NO_FIELDS: Final = "no fields are known: name the catalogue with "


def schema_of(source: CatalogSource | None) -> Schema:
    """Return the fields that placements may name; none without a catalogue."""
    return Schema() if source is None else source.schema()


def has_placements(settings: Settings) -> bool:
    """Return whether the instance is to have placements."""
    return settings.placements is not None or settings.placements_from_mongodb


def placement_source(settings: Settings, store: CatalogStore | None) -> PlacementSource | None:
    """Return where placements are, None without any; to be closed before ``store``.

    Raises:
        InputError: they are said to be in two places, or in a MongoDB that there is not.
    """
    if settings.placements is not None:
        if settings.placements_from_mongodb:
            raise InputError(
                "placements are in a folder or in MongoDB: unset ANNSERVE_PLACEMENTS or "
                "ANNSERVE_PLACEMENTS_FROM_MONGODB"
            )
        return PlacementFolder(settings.placements)
    if not settings.placements_from_mongodb:
        return None
    from annserve.catalog.mongo_store import MongoCatalog

    if not isinstance(store, MongoCatalog):
        raise InputError("placements are to come from MongoDB, and the catalogue is not there: --catalog mongodb://…")
    return store.placement_source()


def check_placements(settings: Settings, source: CatalogSource | None) -> bool:
    """Look, before an instance starts, whether its placements are right; return whether they could be looked at.

    Raises:
        InputError: they are not, or are not there; the message says where and why.
    """
    if not has_placements(settings):
        return True
    from annserve.placements.loading import compiled_set
    from annserve.placements.problems import PlacementsRefusedError

    try:
        texts = _read(settings, source)
    except CatalogUnavailableError as error:
        # The instance may outlive this, and has its placements as soon as the database answers.
        say(f"placements are not checked: {error}")
        return False
    try:
        compiled_set(texts, schema_of(source))
    except PlacementsRefusedError as error:
        hint = f"\n{NO_FIELDS}--catalog" if source is None else ""
        raise InputError(f"placements are wrong, so nothing is started:\n{error}{hint}") from None
    return True


def placement_texts(settings: Settings, source: CatalogSource | None, path: Path | None) -> Sequence[PlacementText]:
    """Return the placements at ``path``, else those where the settings say they are, as far as they are to be had here.

    Raises:
        InputError: there are none at ``path``.
    """
    if path is not None:
        return read_folder(path)
    try:
        return _read(settings, source)
    except (InputError, CatalogUnavailableError) as error:
        # The settings may be those of an instance elsewhere, and placements only add to what is asked for.
        say(f"placements are not looked at: {error.message}")
        return ()


def _read(settings: Settings, source: CatalogSource | None) -> Sequence[PlacementText]:
    if settings.placements is not None and not settings.placements_from_mongodb:
        return read_folder(settings.placements)
    if source is None:
        placement_source(settings, None)
        return ()

    async def read(store: CatalogStore) -> Sequence[PlacementText]:
        placements = placement_source(settings, store)
        if placements is None:
            return ()
        try:
            return await placements.read()
        finally:
            await placements.close()

    return source.use(read)
