"""The token that names an answer in the events that come of it."""

from __future__ import annotations

import hashlib
from datetime import datetime

from annserve.domain.filter import key_of
from annserve.domain.query import ContextValue, Mode, Options, Placed, PlacementUse, Query


def attribution_token(snapshot_id: str, query: Query, use: PlacementUse | None = None) -> str:
    """Return 32 hexadecimal digits that are equal for equal requests to one snapshot, whoever answers.

    What plainly does not change which items are asked for is left out: how a caller wants them explained, which of
    their fields to return, whether missing ids fail the request, which snapshot it was pinned to, how old the catalogue
    may be, repeated seeds, the order of excluded and candidate items and of a filter's parts, taste where none is asked
    for. What the catalogue holds is no part of it either: one token may stand for answers from before and after a
    change. Of a placement the version and the variant that answered count, and the circumstances; whom an experiment
    assigned does not. The hash is no secret: whoever knows all that was asked can compute it.
    """
    return _digest(_asked(snapshot_id, query, use))


class SeedTokens:
    """The tokens of Similar requests that differ in their only seed."""

    def __init__(self, snapshot_id: str, options: Options) -> None:
        # The text that is hashed is the same but for the seed in it, which stands where a letter of no id does.
        asked = _asked(snapshot_id, Query(mode=Mode.SIMILAR, item_ids=("\0",), options=options), None)
        self._before, _, self._after = asked.partition(repr("\0"))

    def of(self, item_id: str) -> str:
        """Return the token of the request about ``item_id``."""
        return _digest(f"{self._before}{item_id!r}{self._after}")


def _digest(asked: str) -> str:
    return hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()


def _asked(snapshot_id: str, query: Query, use: PlacementUse | None) -> str:
    """Return all that a token tells apart, as a text."""
    options = query.options
    popularity_weight, exclude_seen = options.popularity_weight, options.exclude_seen
    if query.mode is Mode.SIMILAR:
        popularity_weight, exclude_seen = None, True
    candidates = options.candidate_item_ids
    # `repr` of str, int, float and None is the same in every process and costs a tenth of JSON.
    asked = (
        snapshot_id,
        query.mode.value,
        tuple(dict.fromkeys(query.item_ids)),
        query.user_id,
        tuple((recent.item_id, recent.weight) for recent in query.recent_items),
        # Adding 0.0 makes -0.0, which asks the same, print the same.
        query.user_impact + 0.0,
        options.k,
        sorted(set(options.exclude_item_ids)),
        None if candidates is None else sorted(set(candidates)),
        exclude_seen,
        None if popularity_weight is None else popularity_weight + 0.0,
        None if options.exact else options.ef_search,
        options.exact,
        # Added only where there is one, so that all other tokens stay what they were.
        *(() if options.filter is None else (key_of(options.filter),)),
        *(() if query.placed is None or use is None else _placed(query.placed, use)),
    )
    return repr(asked)


def _placed(placed: Placed, use: PlacementUse) -> tuple[object, ...]:
    context = sorted((name, _plain(value)) for name, value in placed.context.items())
    return use.name, use.version, use.variant, context, placed.page_size, placed.exclude_seen


def _plain(value: ContextValue) -> str:
    """Return a text that is the same in every process."""
    return repr(value.timestamp() if isinstance(value, datetime) else value)
