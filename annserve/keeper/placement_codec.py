"""Placements as the keeper tells them to workers: their texts, which each compiles for itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

from annserve.domain.placements import PlacementText
from annserve.keeper.frames import Header

TOPIC = "placements"


def encode_texts(texts: Sequence[PlacementText], version: int) -> tuple[Header, bytes]:
    """Return what `decode_texts` reads; ``version`` is that of the set they make."""
    return {"version": version}, encoded(texts)


def decode_texts(_header: Header, payload: bytes) -> Sequence[PlacementText]:
    """Return what `encode_texts` was given."""
    return decoded(payload)


def encoded(texts: Sequence[PlacementText]) -> bytes:
    """Return ``texts`` as bytes."""
    return json.dumps([[text.name, text.origin, text.text] for text in texts]).encode()


def decoded(payload: bytes) -> Sequence[PlacementText]:
    """Return what `encoded` was given."""
    return [PlacementText(name=name, origin=origin, text=text) for name, origin, text in json.loads(payload)]
