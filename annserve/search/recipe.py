"""How a graph is built and searched: what tuning chooses and a manifest records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from annserve.domain.errors import InvalidArgumentError


class Reduction(str, Enum):
    """How largest inner product becomes the nearest neighbour that a graph can follow."""

    INNER_PRODUCT = "ip"
    """None: the graph is built on the inner product itself."""

    AUGMENTED_L2 = "augmented_l2"
    """One more dimension gives every item the norm of the longest, and Euclidean order is then that of inner
    products: Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean transformation for
    inner-product spaces", RecSys 2014; Neyshabur and Srebro, "On symmetric and asymmetric LSHs for inner
    product search", ICML 2015.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that makes a graph what it is, except the points. Every field is a JSON value.

    Raises:
        InvalidArgumentError: a number outside its range; hnswlib takes any, and crashes or answers garbage.
    """

    reduction: Reduction
    m: int
    """Links per item and layer, 2 to 128. Memory is about ``8 m`` bytes an item."""
    ef_construction: int
    """Length of the candidate list while building, 1 to 10,000."""
    ef_search: int
    """Length of the candidate list while searching, 1 to 10,000."""

    def __post_init__(self) -> None:
        for field, most in (("m", 128), ("ef_construction", 10_000), ("ef_search", 10_000)):
            least, value = (2 if field == "m" else 1), getattr(self, field)
            if not least <= value <= most:
                raise InvalidArgumentError.of(field, f"must be {least} to {most}, got {value}")
        object.__setattr__(self, "reduction", Reduction(self.reduction))
