"""Steady calls by the client that is shipped, every answer compared with what its snapshot must give."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threads import beside

from annserve.domain.model import Model
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_snapshot
from annserve.snapshot.store import SnapshotStore
from annserve_client import Client, Options, Personalize, Recommendations, Similar
from annserve_client import field as metadata_field
from annserve_client.errors import AnnserveError

SCORE_TOLERANCE = 1e-4
PAGE_SIZE = 10
PRICE_BELOW = 50


def small_model(seed: int, item_count: int = 3_000, user_count: int = 200, dimension: int = 16) -> Model:
    """Return a model whose ids are the same for every ``seed``, and whose scores are all others."""
    numbers = np.random.default_rng(seed)
    return Model(
        item_ids=[item_id(number) for number in range(item_count)],
        item_vectors=numbers.standard_normal((item_count, dimension), dtype=np.float32),
        user_ids=[f"user-{number}" for number in range(user_count)],
        user_vectors=numbers.standard_normal((user_count, dimension), dtype=np.float32),
        popularity=numbers.random(item_count).astype(np.float32),
        popularity_weight=0.3,
        likeness_exponent=0.5,
        recent_items_max=100,
        trainer="random",
    )


def item_id(number: int) -> str:
    """Return the id of an item of `small_model`."""
    return f"item-{number}"


def price(name: str) -> int:
    """Return what an item of `small_model` costs, 0 to 99, by its id alone."""
    return int(name.removeprefix("item-")) * 7 % 100


def two_snapshots(root: Path, item_count: int = 3_000) -> tuple[str, str]:
    """Build two snapshots with the same ids, the second of them live, and return their ids."""
    store = SnapshotStore(root)
    first, second = (build_snapshot(small_model(seed, item_count), store, threads=1).snapshot_id for seed in (1, 2))
    return first, second


def catalogue(folder: Path, item_count: int = 3_000) -> list[str]:
    """Write the prices of `small_model`'s items, and return the options that have `annserve serve` use them."""
    items, config = folder / "items.jsonl", folder / "catalog.yaml"
    lines = (f'{{"item_id": "{item_id(number)}", "price": {price(item_id(number))}}}' for number in range(item_count))
    items.write_text("\n".join(lines) + "\n")
    config.write_text("fields: {price: number}\n")
    histories = folder / "histories.jsonl"
    return ["--catalog", str(items), "--catalog-config", str(config), "--histories", str(histories)]


class Oracle:
    """Knows the score of every item in some snapshots, from their vectors by the formulas of the documentation."""

    def __init__(self, root: Path, snapshot_ids: Iterable[str]) -> None:
        store = SnapshotStore(root)
        self._snapshots = {one: load_snapshot(store.path(one)) for one in snapshot_ids}

    def problem(self, request: Similar | Personalize, answer: Recommendations) -> str | None:
        """Return what is wrong with ``answer``, None when nothing is."""
        snapshot = self._snapshots.get(answer.snapshot_id)
        if snapshot is None:
            return f"the snapshot {answer.snapshot_id} is none of those"
        names = [one.item_id for one in answer]
        rows = [snapshot.items.row(name) for name in names]
        if None in rows:
            return "an item that the snapshot does not have"
        if len(set(names)) != PAGE_SIZE:
            return f"{len(set(names))} different items"
        found = np.array([row for row in rows if row is not None])
        vectors = snapshot.item_vectors[found].astype(np.float64)
        expected: NDArray[np.float64]
        if isinstance(request, Similar):
            seed = snapshot.items.row(request.item_ids[0])
            if seed in found:
                return "the seed itself"
            query = snapshot.item_vectors[seed].astype(np.float64)
            norms = np.linalg.norm(vectors, axis=1)
            expected = vectors @ (query / np.linalg.norm(query)) / norms**snapshot.likeness_exponent
        else:
            user = snapshot.users.row(request.user_id or "")
            prior = snapshot.popularity_weight * snapshot.popularity[found].astype(np.float64)
            expected = vectors @ snapshot.user_vectors[user].astype(np.float64) + prior
        scores = np.array([one.score for one in answer])
        if np.abs(scores - expected).max() > SCORE_TOLERANCE:
            return f"scores that are not {answer.snapshot_id}'s: {scores - expected}"
        if (np.diff(scores) > 0).any():
            return "not best first"
        if request.options.filter is not None and any(price(name) >= PRICE_BELOW for name in names):
            return "an item that fails the filter"
        return None


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one call."""

    begun: float
    seconds: float
    snapshot_id: str
    """Empty when there was no answer."""
    error: str
    """Why there was none; empty when there was."""
    problem: str | None
    """What is wrong with the answer."""


@dataclass(slots=True)
class Traffic:
    """Calls at a steady pace by threads that each have a connection of their own.

    Half of the answers may come from the cache; the others are made for their call.
    """

    address: str
    oracle: Oracle
    item_count: int = 3_000
    is_filtering: bool = True
    clients: int = 8
    rate: float = 200.0
    """Calls a second in all, when they are answered soon."""
    timeout_seconds: float | None = None
    """The client's own unless set."""
    calls: list[Call] = field(default_factory=list)

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        """Call for the time of a block."""
        with beside(partial(self._flow, number) for number in range(self.clients)):
            yield self

    @property
    def failed(self) -> list[Call]:
        """Calls without an answer."""
        return [call for call in self.calls if call.error]

    @property
    def invalid(self) -> list[Call]:
        """Answers that are wrong."""
        return [call for call in self.calls if call.problem]

    def between(self, begun: float, ended: float) -> list[Call]:
        """Return the calls that began within a time on the monotonic clock."""
        return [call for call in self.calls if begun <= call.begun < ended]

    def _flow(self, number: int, stopping: threading.Event) -> None:
        chance = random.Random(number)
        interval = self.clients / self.rate
        with Client(self.address, timeout_seconds=self.timeout_seconds) as client:
            # No two at the same moment.
            at = time.monotonic() + interval * number / self.clients
            while not stopping.wait(max(at - time.monotonic(), 0.0)):
                self.calls.append(self._call(client, self._request(chance)))
                # After a call that took long it goes on in its own time: together, all would wait for each other.
                at += interval * max(math.ceil((time.monotonic() - at) / interval), 1)

    def _request(self, chance: random.Random) -> Similar | Personalize:
        kinds = ["similar", "personalize", "filtered"] if self.is_filtering else ["similar", "personalize"]
        kind, bypass = chance.choice(kinds), chance.random() < 0.5
        options = Options(page_size=PAGE_SIZE, bypass_cache=bypass)
        if kind == "personalize":
            return Personalize(user_id=f"user-{chance.randrange(200)}", options=options)
        if kind == "filtered":
            wanted = metadata_field("price") < PRICE_BELOW
            options = Options(page_size=PAGE_SIZE, bypass_cache=bypass, filter=wanted)
        # Few seeds are asked about often.
        seed = min(int(chance.paretovariate(1.0)) - 1, self.item_count - 1)
        return Similar(item_ids=[item_id(seed)], options=options)

    def _call(self, client: Client, request: Similar | Personalize) -> Call:
        begun = time.monotonic()
        try:
            answer = client.recommend(request)
        except AnnserveError as error:
            return Call(begun, time.monotonic() - begun, "", str(error), None)
        seconds = time.monotonic() - begun
        return Call(begun, seconds, answer.snapshot_id, "", self.oracle.problem(request, answer))


def percentile_ms(calls: Sequence[Call], share: float) -> float:
    """Return how many milliseconds ``share`` percent of the answered ``calls`` took at most; 0 without any."""
    taken = [call.seconds for call in calls if not call.error]
    return round(float(np.percentile(taken, share)) * 1e3, 2) if taken else 0.0


def errors(calls: Sequence[Call]) -> dict[str, int]:
    """Return how often there was which error."""
    return dict(Counter(call.error for call in calls if call.error))
