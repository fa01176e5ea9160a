"""The search for the highest rate of calls that a server bears."""

from __future__ import annotations

from collections.abc import Callable


def highest_rate(
    bears: Callable[[float], bool], *, first: float, precision: float = 0.1, rate_max: float = 1e6
) -> float | None:
    """Return the highest rate that ``bears`` affirms, less than ``precision`` below one that it denies.

    Rates double until one is denied, then the gap is halved. A denial is asked for twice: whatever else ran on the
    machine may have been the reason.

    Args:
        bears: Tries a rate.
        first: The rate to begin with; if that is denied, it is halved, six times at most.
        precision: A share of the rate.
        rate_max: Where to stop.

    Returns:
        The rate; None if even a 64th of ``first`` is denied.
    """

    def surely_bears(rate: float) -> bool:
        return bears(rate) or bears(rate)

    low, high = None, first
    if surely_bears(first):
        low, high = first, 2 * first
        while high < rate_max and surely_bears(high):
            low, high = high, 2 * high
    else:
        while low is None:
            rate = high / 2
            if rate < first / 64:
                return None
            low, high = (rate, high) if surely_bears(rate) else (None, rate)
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if surely_bears(middle) else (low, middle)
    return low
