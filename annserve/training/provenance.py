"""What a model was trained on, in a few words: enough to tell whether there is anything new since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from annserve.training.interactions import Interactions

METRIC: Final = "data"
"""Where a manifest's metrics have it."""

_ROWS_AT_ONCE = 1 << 20
_PRIMES = tuple(np.uint64(prime) for prime in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """A description of interactions."""

    interaction_count: int
    newest_ms: int | None
    """The latest time, in milliseconds since 1970; None where there are no times."""
    oldest_ms: int | None = field(default=None, compare=False)
    """The earliest; None also of snapshots that were made before it was kept. The digest tells data apart."""
    digest: str
    """Of every user, item, weight and time, in whatever order they were read: 16 hexadecimal digits."""

    def as_metric(self) -> dict[str, Any]:
        """Return what a manifest holds of it."""
        return asdict(self)


def provenance_of(interactions: Interactions) -> Provenance:
    """Return the description of ``interactions``."""
    users, items = _hashes(interactions.user_ids), _hashes(interactions.item_ids)
    total = np.uint64(0)
    for start in range(0, len(interactions), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        mixed = _mixed(users[interactions.users[rows]])
        mixed = _mixed(mixed + items[interactions.items[rows]])
        mixed = _mixed(mixed + interactions.weights[rows].view(np.uint32))
        if interactions.times is not None:
            mixed = _mixed(mixed + interactions.times[rows].view(np.uint64))
        # A sum does not care for the order, which a database does not keep.
        total = np.add(total, mixed.sum(dtype=np.uint64), dtype=np.uint64, casting="unsafe")
    return Provenance(
        interaction_count=len(interactions),
        newest_ms=None if interactions.times is None else int(interactions.times.max()),
        oldest_ms=None if interactions.times is None else int(interactions.times.min()),
        digest=f"{int(total):016x}",
    )


def trained_on(metrics: Mapping[str, Any]) -> Provenance | None:
    """Return what the metrics of a manifest say that it was trained on; None where they say nothing."""
    match metrics.get(METRIC):
        case {"interaction_count": int(count), "newest_ms": int() | None as newest_ms, "digest": str(digest)}:
            oldest_ms = metrics[METRIC].get("oldest_ms")
            return Provenance(interaction_count=count, newest_ms=newest_ms, oldest_ms=oldest_ms, digest=digest)
    return None


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(blake2b(id_.encode(), digest_size=8).digest() for id_ in ids), np.uint64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) of each of ``values``."""
    values = values + _PRIMES[0]
    values = (values ^ (values >> np.uint64(30))) * _PRIMES[1]
    values = (values ^ (values >> np.uint64(27))) * _PRIMES[2]
    return values ^ (values >> np.uint64(31))
