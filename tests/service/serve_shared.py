"""A program that serves a twin as one of several workers on a port that was taken before; writes the address."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from edge_twin import TwinRecommender

from annserve.service.server import Served, serve
from annserve.service.settings import ServerSettings


def _tell(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(
        ServerSettings(address=sys.argv[1], transport=sys.argv[2], is_worker=True),  # type: ignore[arg-type]
        nullcontext(Served(recommender=TwinRecommender())),
        _tell,
    )
