"""The token that names an answer in the events that come of it."""

from __future__ import annotations

import hashlib

from annserve.domain.query import Query


def attribution_token(snapshot_id: str, query: Query) -> str:
    """Return 32 hexadecimal digits that are equal for equal questions to one snapshot, whoever answers.

    What does not change the answer is left out: how a caller wants it explained, whether missing ids fail it, which
    snapshot it was pinned to, the order of excluded and candidate items. The hash is no secret: whoever knows all that
    was asked can compute it.
    """
    options = query.options
    candidates = options.candidate_item_ids
    # `repr` of str, int, float and None is the same in every process and costs a tenth of JSON.
    asked = (
        snapshot_id,
        query.mode.value,
        query.item_ids,
        query.user_id,
        tuple((recent.item_id, recent.weight) for recent in query.recent_items),
        # Adding 0.0 makes -0.0, which asks the same, print the same.
        query.user_impact + 0.0,
        options.k,
        sorted(set(options.exclude_item_ids)),
        None if candidates is None else sorted(set(candidates)),
        options.exclude_seen,
        None if options.popularity_weight is None else options.popularity_weight + 0.0,
        options.ef_search,
        options.exact,
    )
    return hashlib.blake2b(repr(asked).encode(), digest_size=16).hexdigest()
