#!/usr/bin/env python3
"""The most calls a second that a server answers, whatever the client: h2load in a closed loop, with more and more calls
in flight, on `annserve serve` with a snapshot, and on an empty handler on the same transport, which it cannot pass.

h2load sends one request over and over. Answers are not kept, unless --keep-answers: then it is what cached bytes cost.
The commands are printed, to be run by hand against any server that speaks without TLS.

    .venv/bin/python loadtest/ceiling.py --snapshots FOLDER [--workers 2] [--transport native] [--keep-answers] [--json]
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own servers, for those who train the demo; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from catalog_faults import snapshots_in
from edge import METHOD_PATH, STAND_IN, Command, drive, serving, write_body
from scenarios import Population

from annserve.cli.output import print_json, print_rows, say
from annserve.v1 import recommendation_service_pb2 as messages

IN_FLIGHT = ((1, 1), (4, 1), (4, 4), (4, 8))
"""Connections, and calls under way on each. From 64 that wait on, grpcio refuses by itself: cheap, and no answers."""


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--transport", choices=["grpcio", "native"], action="append", help="else both")
    parser.add_argument("--calls", type=int, default=10_000, help="of each step; a tenth where one is in flight")
    parser.add_argument("--keep-answers", action="store_true", help="let the cache answer")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: `apt-get install nghttp2-client`, or `brew install nghttp2`")
    with tempfile.TemporaryDirectory() as scratch, snapshots_in(arguments.snapshots, Path(scratch)) as folder:
        item_id = Population.in_folder(folder).item_ids[0]
        body = write_body(Path(scratch) / "body", messages.SimilarRequest(item_ids=[item_id]))
        annserve = [sys.executable, "-m", "annserve.cli", "serve", "--snapshots", str(folder)]
        annserve += ["--workers", str(arguments.workers)]
        kept = [] if arguments.keep_answers else ["env", "ANNSERVE_ANSWER_TTL_MS=0"]
        rows = []
        for transport in arguments.transport or ("grpcio", "native"):
            tail = ["--transport", transport]
            empty = functools.partial(command_of, [sys.executable, STAND_IN, "empty"], tail)
            whole = functools.partial(command_of, [*kept, *annserve, "--address"], tail)
            rows += steps(f"empty handler, {transport}", empty, body, arguments.calls)
            rows += steps(f"annserve, {transport}, {arguments.workers} workers", whole, body, arguments.calls)
    if arguments.json:
        print_json(rows)
    else:
        print_rows(rows, as_json=False, title="Similar, h2load, closed loop")


def command_of(before: Sequence[str], after: Sequence[str], address: str) -> list[str]:
    """Return the command that has its address in the midst."""
    return [*before, address, *after]


def steps(name: str, command: Command, body: Path, calls: int) -> list[dict[str, Any]]:
    """Return a row for each number of calls in flight."""
    rows = []
    with serving(command) as (address, pid):
        drive(address, pid, body, 1_000, 1, 1)  # Warm-up: imports, first connections.
        for connections, streams in IN_FLIGHT:
            count = calls if connections * streams > 1 else calls // 10
            say(
                f"h2load -n {count} -c {connections} -m {streams} -d {body} -H 'content-type: application/grpc' "
                f"-H 'te: trailers' http://{address}{METHOD_PATH}"
            )
            costs = drive(address, pid, body, count, connections, streams)
            rows.append({"server": name, "connections": connections, "in flight": connections * streams, **costs})
    return rows


if __name__ == "__main__":
    main()
