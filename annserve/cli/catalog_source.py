"""Which catalogue a command means, and how to open it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from annserve import demo
from annserve.catalog.config import CatalogConfig
from annserve.cli.options import settings
from annserve.domain.catalog import CatalogStore, Schema
from annserve.domain.errors import InputError
from annserve.keeper.settings import KeeperSettings
from annserve.settings import Settings

CatalogOption = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="mongodb://…|FILE",
        help="Where items' metadata and users' histories are: MongoDB, or a Parquet, JSON Lines or CSV file; all but "
        "Parquet need --catalog-config. A password is safer in the environment. [env: ANNSERVE_CATALOG]",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog-config",
        metavar="YAML",
        help="Declares the fields, and where MongoDB keeps what. [env: ANNSERVE_CATALOG_CONFIG]",
    ),
]
HistoriesOption = Annotated[
    Path | None,
    typer.Option(
        "--histories",
        metavar="FILE",
        help="Where histories are kept when the catalogue is a file. [env: ANNSERVE_HISTORIES]",
    ),
]
DemoOption = Annotated[bool, typer.Option("--demo", help="Use the bundled data and its fields.")]

MONGODB_SCHEMES: Final = ("mongodb://", "mongodb+srv://")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSource:
    """A catalogue that can be opened."""

    address: str
    config: CatalogConfig | None
    """None to take the fields from the file itself."""
    config_path: Path | None = None
    """Where it was read from."""
    histories: Path

    @property
    def is_mongodb(self) -> bool:
        """Whether it is a MongoDB server."""
        return self.address.startswith(MONGODB_SCHEMES)

    def __str__(self) -> str:
        """Return what may be shown of it: never a password."""
        return "MongoDB" if self.is_mongodb else self.address

    def schema(self) -> Schema:
        """Return the declared fields.

        Raises:
            InputError: as `open`.
        """
        if self.config is not None:
            return self.config.declared()
        if self.is_mongodb:
            raise _undeclared()
        from annserve.catalog.documents import inferred_schema

        return inferred_schema(Path(self.address))

    def open(self, *, create: bool = False) -> CatalogStore:
        """Return the store, made for the loop that runs; with ``create`` a file that is not there counts as empty.

        Raises:
            InputError: the address, the file or the configuration cannot be used.
        """
        if self.is_mongodb:
            if self.config is None:
                raise _undeclared()
            from annserve.catalog.mongo_store import MongoCatalog

            return MongoCatalog(self.address, self.config)
        from annserve.catalog.file_store import FileCatalog

        return FileCatalog(self._path(), self.schema(), self.histories, create=create)

    def check(self) -> None:
        """Look, before an instance starts, whether it can be opened; of a long file the first rows stand for all.

        Raises:
            InputError: as `open`.
        """
        if self.is_mongodb:
            self.use(_nothing)
            return
        from annserve.catalog.documents import look_at

        path = self._path()
        if not path.is_file():
            raise InputError(f"there is no catalogue at {path}", path=path)
        look_at(path, self.schema())

    def _path(self) -> Path:
        if "://" in self.address:
            raise InputError("--catalog takes a mongodb:// address or a file")
        return Path(self.address)

    def use(self, task: Callable[[CatalogStore], Awaitable[T]], *, create: bool = False) -> T:
        """Open the store, return what ``task`` does with it, and close it."""

        async def run() -> T:
            async with aclosing(_Closing(self.open(create=create))) as closing:
                return await task(closing.store)

        return asyncio.run(run())


def _undeclared() -> InputError:
    from annserve.catalog.documents import TO_DECLARE

    return InputError(f"MongoDB says nothing of its fields: {TO_DECLARE}")


async def _nothing(_: CatalogStore) -> None:
    """Do nothing with a store: that it could be opened is enough."""


class _Closing:
    def __init__(self, store: CatalogStore) -> None:
        self.store = store

    async def aclose(self) -> None:
        await self.store.close()


def catalog_source(
    address: str | None, config: Path | None, histories: Path | None = None, *, use_demo: bool = False
) -> CatalogSource | None:
    """Return the catalogue that options and settings name; with ``use_demo`` the bundled one if they name none."""
    known = settings()
    if address is None and known.catalog is not None:
        address = known.catalog.get_secret_value()
    config = config or known.catalog_config
    if use_demo:
        address, config = address or str(demo.ITEMS), config or demo.CATALOG
    if not address:
        return None
    return CatalogSource(
        address=address,
        config=None if config is None else CatalogConfig.read(config),
        config_path=config,
        histories=histories or known.histories,
    )


def required_source(
    address: str | None, config: Path | None, histories: Path | None = None, *, use_demo: bool = False
) -> CatalogSource:
    """Return what `catalog_source` does.

    Raises:
        InputError: no catalogue is named.
    """
    source = catalog_source(address, config, histories, use_demo=use_demo)
    if source is None:
        raise InputError("which catalogue? name it with --catalog or ANNSERVE_CATALOG, or use --demo")
    return source


def keeper_settings_of(settings: Settings) -> KeeperSettings:
    """Return how the catalogue is to be followed."""
    return KeeperSettings(ttl_seconds=settings.catalog_ttl_ms / 1_000)
