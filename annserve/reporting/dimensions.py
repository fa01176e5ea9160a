"""What impressions are told apart by: what made the answer, the hour, and bands of similarity."""

from __future__ import annotations

import math
from datetime import datetime
from enum import Enum
from functools import lru_cache
from zoneinfo import ZoneInfo

from annserve.domain.errors import InputError
from annserve.reporting.join import Shown

BANDS = 10
"""Bands of similarity from 0 to 1; what is below 0 is one more."""
_QUARTER_MS = 900_000


class Dimension(str, Enum):
    """Something that a report has a row for each value of."""

    VERSION = "version"
    VARIANT = "variant"
    """With its experiment."""
    MODE = "mode"
    HOUR = "hour"
    USER_CONTEXT = "user_context"
    """The band of the cosine of the user's taste and what was on screen."""
    CONTEXT_SHOWN = "context_shown"
    """The band of the cosine of what was on screen and what was shown."""


SIMILARITIES = (Dimension.USER_CONTEXT, Dimension.CONTEXT_SHOWN)

UNKNOWN = "-"
"""The value where there is none: no experiment, no similarity, no version that the event tells."""


def similarity(shown: Shown, dimension: Dimension) -> float | None:
    """Return the similarity that a dimension of `SIMILARITIES` is the band of."""
    if dimension is Dimension.USER_CONTEXT:
        return shown.user_context_similarity
    return shown.context_shown_similarity


def label(shown: Shown, dimension: Dimension, zone: ZoneInfo) -> str:
    """Return the value that an impression has; values of one dimension sort as text."""
    answerer = shown.answerer
    match dimension:
        case Dimension.VERSION:
            return answerer.version or UNKNOWN
        case Dimension.VARIANT:
            return f"{answerer.experiment}/{answerer.variant}" if answerer.experiment else UNKNOWN
        case Dimension.MODE:
            return answerer.mode.value
        case Dimension.HOUR:
            return _hour(shown.time_ms // _QUARTER_MS, zone)
    return band(similarity(shown, dimension))


def band(cosine: float | None) -> str:
    """Return the band of a cosine: ``< 0``, ``0.0 to 0.1``, … ``0.9 to 1.0``."""
    if cosine is None or math.isnan(cosine):
        return UNKNOWN
    if cosine < 0:
        return "< 0"
    number = min(int(cosine * BANDS), BANDS - 1)
    return f"{number / BANDS:.1f} to {(number + 1) / BANDS:.1f}"


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # No zone; a folder of zones; no name.
        raise InputError(f"time zone {name!r} is not known; give an IANA name, Europe/Berlin say, or UTC") from None


@lru_cache(maxsize=4_096)
def _hour(quarter: int, zone: ZoneInfo) -> str:
    # Clocks differ from UTC by whole quarters of an hour, and are looked up once for each.
    return f"{datetime.fromtimestamp(quarter * _QUARTER_MS / 1e3, zone).hour:02d}"
