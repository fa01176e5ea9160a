"""What calls took, each of them: no buckets, so that any percentile is exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Samples:
    """Calls in the order in which they ended; all times in seconds."""

    due: list[float] = field(default_factory=list)
    """When each was due, from the start."""
    late: list[float] = field(default_factory=list)
    """How much later it was sent: what the maker of the load is to blame for."""
    taken: list[float] = field(default_factory=list)
    """From when it was due until it had ended."""
    codes: list[str] = field(default_factory=list)

    def add(self, due: float, late: float, taken: float, code: str) -> None:
        """Note a call."""
        self.due.append(due)
        self.late.append(late)
        self.taken.append(taken)
        self.codes.append(code)

    def write(self, path: Path) -> None:
        """Keep all in a file of NumPy's."""
        np.savez_compressed(path, due=self.due, late=self.late, taken=self.taken, codes=np.array(self.codes, str))

    @classmethod
    def read(cls, path: Path) -> Samples:
        """Return what `write` kept."""
        with np.load(path) as kept:
            return cls(*(kept[name].tolist() for name in ("due", "late", "taken", "codes")))

    def taken_ms(self) -> NDArray[np.float64]:
        """Return how long the calls took. Those that failed are among them: they kept somebody waiting too."""
        return np.array(self.taken) * 1e3

    def figures(self) -> dict[str, Any]:
        """Return the row of a table."""
        milliseconds = self.taken_ms()
        return {
            "calls/s": round(len(self.codes) / max(self.due, default=1.0), 1),
            "failed": len(self.codes) - self.codes.count("OK"),
            **{f"p{percent:g} ms": percentile(milliseconds, percent) for percent in (50, 90, 99, 99.9)},
            "longest ms": percentile(milliseconds, 100),
            "sent late p99 ms": percentile(np.array(self.late) * 1e3, 99),
        }

    def failures(self) -> dict[str, int]:
        """Return how many calls ended with which status, those of success left out."""
        return {code: self.codes.count(code) for code in sorted(set(self.codes) - {"OK"})}


def percentile(values: NDArray[np.float64], percent: float) -> float | None:
    """Return a percentile, rounded to two digits; None of nothing."""
    return round(float(np.percentile(values, percent)), 2) if len(values) else None
