"""Pages that rules made of kept candidates: what depends on the seeds, the catalogue and a few circumstances.

Most of what a placement costs is putting its candidates in order, and that comes out the same for all who ask about the
same item under the same circumstances. A page is kept for those: the conditions on the request count by their outcome,
mixed ones by the values that they read. What differs for each request, chance or what its user was shown, keeps none.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from cachetools import LRUCache

from annserve.domain.arrays import Rows
from annserve.engine.placing.candidate_reader import CandidateReader
from annserve.engine.placing.candidates import Ordered
from annserve.engine.placing.circumstances import Circumstances
from annserve.engine.placing.method import Method
from annserve.engine.placing.occasion import Occasion
from annserve.engine.ranking import Ranking

BYTES_KEPT: Final = 10 << 20
"""About: some 3,000 pages of ten, of 200 candidates each."""
_CANDIDATE_BYTES, _ROW_BYTES = 8, 160


class KeptPages:
    """Keeps pages until something they rest on changes. One event loop uses it."""

    def __init__(self) -> None:
        self._kept: LRUCache[Hashable, tuple[Rows, Method, Ordered]] = LRUCache(BYTES_KEPT, _bytes_of)

    def key_of(
        self, ranking: Ranking, occasion: Occasion, circumstances: Circumstances, reader: CandidateReader | None
    ) -> Hashable | None:
        """Return what two requests share that are shown the same page of ``ranking``; None where none is kept.

        It is another one once anything of the catalogue has changed that the page rests on.
        """
        method, options = occasion.method, occasion.options
        if not (ranking.is_kept and method.keeps_pages) or options.explain:
            return None
        versions: tuple[int, ...] | None = ()
        if reader is not None:
            versions = reader.versions(method.item_filters, options.max_staleness_seconds, method.field_names)
        if versions is None:
            return None
        held = tuple(circumstances.hold(condition) for condition in method.request_conditions)
        read = tuple(_told_apart(circumstances.values.get(name)) for name in method.mixed_names)
        # Both are alive as long as what is kept under the key, so nothing else gets their identities.
        return id(ranking.rows), id(method), occasion.size, held, read, versions

    def get(self, key: Hashable) -> Ordered | None:
        """Return the page that is kept under ``key``."""
        kept = self._kept.get(key)
        return None if kept is None else kept[2]

    def keep(self, key: Hashable, ranking: Ranking, method: Method, page: Ordered) -> None:
        """Keep ``page``, which ``method`` made of ``ranking``."""
        self._kept[key] = ranking.rows, method, page


def _bytes_of(kept: tuple[Rows, Method, Ordered]) -> int:
    rows, _, page = kept
    return _CANDIDATE_BYTES * len(rows) + _ROW_BYTES * (1 + len(page.rows))


def _told_apart(value: object) -> object:
    """Return what is equal for values that no expression tells apart: of 0.0 and -0.0, which are equal, 1 / x does."""
    return value.hex() if isinstance(value, float) else value
