"""What callers ask, by scenario: seeded streams of calls without end, the same for every tool that makes load."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from open_loop import Call

from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import filter_pb2, recommendation_pb2
from annserve.v1 import recommendation_service_pb2 as messages

SERVICE: Final = "/annserve.v1.RecommendationService/"
ZIPF_EXPONENT: Final = 1.1
HOT_SHARE: Final = 0.3
"""Of all questions, those about the one item of a supernode."""
BATCH_ROWS: Final = 16
_COLD_ITEMS_MAX: Final = 20
_DRAWN_AT_ONCE: Final = 4_096

PRICE_MAX: Final = 100
"""Items cost from 0 to this, at random (`catalogue_lines`)."""
_PRICES_BELOW: Final = (50, 20, 5)
_UNKNOWN_FILTER_SHARE: Final = 0.02
"""Of filtered questions, those under a bound that nobody asked for before."""

Draw: TypeAlias = Callable[[np.random.Generator, int, int], NDArray[np.int64]]
"""``count`` places among ``size``."""
Request: TypeAlias = (
    messages.SimilarRequest
    | messages.PersonalizeRequest
    | messages.RelatedRequest
    | messages.RecommendRequest
    | messages.BatchRecommendRequest
)


@dataclass(frozen=True, slots=True)
class Population:
    """Whom and what calls can be about."""

    item_ids: Sequence[str]
    """In an order of chance: skewed loads ask most about the first."""
    user_ids: Sequence[str]
    """Those with a vector."""

    @classmethod
    def of(cls, snapshot: Snapshot, *, items_max: int | None = None) -> Population:
        """Return that of ``snapshot``, or as many items of it."""
        rows = np.random.default_rng(0).permutation(len(snapshot.items))[:items_max]
        return cls(snapshot.items.ids(rows), [snapshot.users.id(row) for row in range(len(snapshot.users))])

    @classmethod
    def in_folder(cls, snapshots: Path) -> Population:
        """Return that of the live snapshot in a folder."""
        return cls.of(load_current(SnapshotStore(snapshots)).snapshot)


def uniform(chance: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """Return every place as often as any other."""
    return chance.integers(0, size, count)


def zipf(chance: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """Return place ``i``, from 1 on, in proportion to ``i ** -ZIPF_EXPONENT``: as catalogues are asked about."""
    bounds = np.cumsum(np.arange(1, size + 1) ** -ZIPF_EXPONENT)
    places: NDArray[np.int64] = np.searchsorted(bounds, chance.random(count) * bounds[-1])
    return places


def one_hot(chance: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """Return the first place `HOT_SHARE` of the time, else any."""
    places = uniform(chance, size, count)
    places[chance.random(count) < HOT_SHARE] = 0
    return places


DRAWS: Final[Mapping[str, Draw]] = {"uniform": uniform, "zipf": zipf, "supernode": one_hot}


def calls_of(scenario: str, population: Population, seed: int = 0) -> Iterator[Call]:
    """Return the calls of ``scenario``, one of `SCENARIOS`; another ``seed`` gives others of the same kind."""
    for request in SCENARIOS[scenario](population, np.random.default_rng(seed)):
        yield call_of(request)


def call_of(request: Request) -> Call:
    """Return the call that sends ``request``."""
    return Call(SERVICE + type(request).__name__.removesuffix("Request"), request.SerializeToString())


def ids_drawn(draw: Draw, ids: Sequence[str], chance: np.random.Generator) -> Iterator[str]:
    """Return ids as ``draw`` chooses them."""
    while True:
        for place in draw(chance, len(ids), _DRAWN_AT_ONCE).tolist():
            yield ids[place]


def price_below(bound: float) -> filter_pb2.Filter:
    """Return the filter that a share of ``bound / PRICE_MAX`` of all items pass."""
    below = filter_pb2.FieldRange(below=filter_pb2.FieldValue(number_value=bound))
    return filter_pb2.Filter(condition=filter_pb2.FieldCondition(field="price", range=below))


def catalogue_lines(item_ids: Sequence[str], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Return a document for each item: what it costs, whether it is in stock, what it is called."""
    prices = np.random.default_rng(seed).uniform(0, PRICE_MAX, len(item_ids)).tolist()
    for item_id, price in zip(item_ids, prices, strict=True):
        yield {"item_id": item_id, "price": price, "in_stock": True, "name": f"the item {item_id}"}


CATALOGUE_FIELDS: Final[Mapping[str, str]] = {"price": "number", "in_stock": "boolean", "name": "string"}


def _similar(draw: Draw) -> Callable[[Population, np.random.Generator], Iterator[messages.SimilarRequest]]:
    def requests(population: Population, chance: np.random.Generator) -> Iterator[messages.SimilarRequest]:
        for item_id in ids_drawn(draw, population.item_ids, chance):
            yield messages.SimilarRequest(item_ids=[item_id])

    return requests


def _filtered(population: Population, chance: np.random.Generator) -> Iterator[Request]:
    """Ask what is similar and cheap, mostly under filters that many use, and for names and prices."""
    for item_id in ids_drawn(zipf, population.item_ids, chance):
        known = chance.random() >= _UNKNOWN_FILTER_SHARE
        bound = chance.choice(_PRICES_BELOW) if known else round(chance.uniform(1, PRICE_MAX), 6)
        options = recommendation_pb2.RecommendOptions(filter=price_below(float(bound)))
        options.read_mask.paths.extend(["name", "price"])
        yield messages.SimilarRequest(item_ids=[item_id], options=options)


def _warm(population: Population, chance: np.random.Generator) -> Iterator[messages.PersonalizeRequest]:
    if not population.user_ids:
        yield from _cold(population, chance)
    for user_id in ids_drawn(zipf, population.user_ids, chance):
        yield messages.PersonalizeRequest(user_id=user_id)


def _cold(population: Population, chance: np.random.Generator) -> Iterator[messages.PersonalizeRequest]:
    """Ask for users without a vector, who have dealt with a few items just now."""
    recent = ids_drawn(zipf, population.item_ids, chance)
    while True:
        ids = itertools.islice(recent, int(chance.integers(1, _COLD_ITEMS_MAX + 1)))
        items = [recommendation_pb2.WeightedItem(item_id=item_id) for item_id in dict.fromkeys(ids)]
        yield messages.PersonalizeRequest(user_id=f"new-{chance.integers(1 << 40)}", recent_items=items)


def _related(population: Population, chance: np.random.Generator) -> Iterator[Request]:
    users = ids_drawn(uniform, population.user_ids, chance) if population.user_ids else itertools.repeat("nobody")
    for item_id, user_id in zip(ids_drawn(zipf, population.item_ids, chance), users, strict=False):
        yield messages.RelatedRequest(item_ids=[item_id], user_id=user_id, user_impact=0.3)


def _mixed(population: Population, chance: np.random.Generator) -> Iterator[Request]:
    """Ask what a shop's pages ask: mostly what is similar, and everything else too."""
    parts = (_similar(zipf), _warm, _related, _filtered, _cold)
    streams = [part(population, one) for part, one in zip(parts, chance.spawn(len(parts)), strict=True)]
    while True:
        for number in chance.choice(len(parts), _DRAWN_AT_ONCE, p=(0.45, 0.25, 0.1, 0.15, 0.05)):
            yield next(streams[number])


def _batch(population: Population, chance: np.random.Generator) -> Iterator[Request]:
    """Ask about `BATCH_ROWS` users and items at once."""
    similar, warm = _similar(zipf)(population, chance), _warm(population, chance)
    while True:
        rows = [messages.BatchRecommendRow(similar=next(similar)) for _ in range(BATCH_ROWS // 2)]
        rows += [messages.BatchRecommendRow(personalize=next(warm)) for _ in range(BATCH_ROWS // 2)]
        yield messages.BatchRecommendRequest(rows=rows)


SCENARIOS: Final[Mapping[str, Callable[[Population, np.random.Generator], Iterator[Request]]]] = {
    "uniform": _similar(uniform),
    "zipf": _similar(zipf),
    "supernode": _similar(one_hot),
    "filtered": _filtered,
    "cold": _cold,
    "mixed": _mixed,
    "batch": _batch,
    # The same questions; whoever runs it changes the snapshot meanwhile.
    "swap": _mixed,
}
