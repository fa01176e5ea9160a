"""Changes of fresh items as the keeper tells them to workers: a header, and the vectors one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annserve.domain.fresh import FreshChange
from annserve.keeper.frames import Header

TOPIC = "fresh"

_GONE, _RESTORED, _HERE = "gone", "restored", "here"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreshNews:
    """What is told at once."""

    changes: Sequence[FreshChange]
    version: int
    """Of the items once ``changes`` are applied."""
    is_all: bool
    """Whether whatever was told before is to be forgotten."""


def encode_news(news: FreshNews) -> tuple[Header, bytes]:
    """Return what `decode_news` reads."""
    vectors = [change.vector.astype("<f4").tobytes() for change in news.changes if change.vector is not None]
    told = [[change.item_id, change.number, _kind(change), float(change.popularity)] for change in news.changes]
    return {"is_all": news.is_all, "version": news.version, "changes": told}, b"".join(vectors)


def decode_news(header: Header, payload: bytes) -> FreshNews:
    """Return what `encode_news` was given."""
    here_count = sum(kind == _HERE for _, _, kind, _ in header["changes"])
    vectors = iter(np.frombuffer(payload, "<f4").astype(np.float32).reshape(here_count, -1) if here_count else ())
    changes = [
        FreshChange(
            item_id=item_id,
            number=number,
            vector=next(vectors) if kind == _HERE else None,
            popularity=popularity,
            is_deleted=kind == _GONE,
        )
        for item_id, number, kind, popularity in header["changes"]
    ]
    return FreshNews(changes=changes, version=header["version"], is_all=header["is_all"])


def _kind(change: FreshChange) -> str:
    if change.vector is not None:
        return _HERE
    return _GONE if change.is_deleted else _RESTORED
