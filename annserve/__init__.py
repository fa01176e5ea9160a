"""annserve: recommendations from one matrix-factorisation space, served over gRPC."""

from __future__ import annotations

__version__: str
"""Looked up when it is asked for: what that imports costs more than a process of the instance should pay to begin."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - takes as long as the rest of a loader's beginning

    return version("annserve")
