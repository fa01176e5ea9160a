"""Who gets which variant: a hash of experiment and unit, so that it is the same in every process, today and tomorrow.

The experiment's name is the key of the hash: two experiments cut the same units independently of each other. Shares may
change: as long as the order of variants stays, few units move.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

_BYTES = 8
_WHOLE = 1 << 8 * _BYTES


class Assignment:
    """The variants of one experiment."""

    def __init__(self, experiment: str, shares: Mapping[str, float]) -> None:
        """Assign by ``shares``, which add up to 1, of variants by name; ``experiment`` has at most 64 bytes."""
        self._key = experiment.encode()
        self._variants = tuple(shares)
        # Shares of 0 have no room between two bounds, and the last bound is beyond every hash.
        self._bounds = [math.ceil(bound * _WHOLE) for bound in accumulate(shares.values())]
        last = max(place for place, share in enumerate(shares.values()) if share > 0)
        self._bounds[last:] = [_WHOLE] * (len(self._bounds) - last)

    def variant_of(self, unit: str) -> str:
        """Return the variant of ``unit``, whatever else there is."""
        digest = hashlib.blake2b(unit.encode(errors="surrogatepass"), digest_size=_BYTES, key=self._key).digest()
        return self._variants[bisect_right(self._bounds, int.from_bytes(digest))]
