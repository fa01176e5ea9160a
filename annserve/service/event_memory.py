"""How much memory events take while they wait: many times what they took on the wire, the more the shorter ids are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from sys import getsizeof
from typing import Final

from annserve.domain.events import Event

_EVENT_BYTES: Final = 240
"""An event, its tuples, its time and its value, without what they hold."""
_PLACEMENT_BYTES: Final = 160
_WORD_BYTES: Final = 8


def held_bytes(events: Iterable[Event]) -> int:
    """Return about how many bytes ``events`` hold: rather more than less, by a few per cent."""
    return sum(map(_held_bytes, events))


def _held_bytes(event: Event) -> int:
    texts = [event.event_id, event.user_id, event.attribution_token, event.impression_id]
    use, own_bytes = event.placement, _EVENT_BYTES
    if use is not None:
        own_bytes += _PLACEMENT_BYTES
        texts += (use.name, use.version, use.experiment, use.variant, use.suppressed_reason)
    own_bytes += _WORD_BYTES * (len(event.item_ids) + len(event.context_item_ids))
    return own_bytes + sum(map(_text_bytes, chain(texts, event.item_ids, event.context_item_ids)))


def _text_bytes(text: str) -> int:
    # The allocator gives room in steps of 16 bytes. Of short texts that all programs share there may be no copy.
    return getsizeof(text) + 15 & ~15
