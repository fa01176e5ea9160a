"""Candidates and recipes to arrange, and the rules of an arrangement, spelled out slowly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.filter import Field, FieldType, Scalar
from annserve.domain.query import Mode
from annserve.engine.arrangement import Arranged, Candidates, arrange
from annserve.placements.recipe import Cap, Pin, PolicyRow, Recipe

DIMENSION = 5
SIZES = st.sampled_from([12, 16, 14, 10, 9, 7, 5, 3, 2, 1, 0])


@dataclass(frozen=True)
class Case:
    candidates: Candidates
    recipe: Recipe
    k: int
    pins: Sequence[tuple[Pin, int]]
    seed: int

    def arranged(self, *, explain: bool = False) -> Arranged:
        return arrange(self.candidates, self.recipe, self.k, self.pins, self.seed, explain=explain)

    @property
    def kept(self) -> list[int]:
        """Whom weights leave, in the order of the arrangement's own scores."""
        return [
            row for row in range(len(self.candidates.scores)) if all(w[row] for w in self.candidates.weights.values())
        ]


def recipe_of(*, diversity: float = 0.0, caps: tuple[Cap, ...] = (), exploration_share: float = 0.0) -> Recipe:
    return Recipe(
        name="home",
        version="0" * 16,
        policy=(PolicyRow(when=None, mode=Mode.PERSONALIZE),),
        diversity=diversity,
        caps=caps,
        exploration_share=exploration_share,
    )


def candidates_of(
    scores: Sequence[float],
    *,
    vectors: Vectors | None = None,
    weights: Mapping[str, Sequence[float]] | None = None,
    values: Mapping[str, Sequence[tuple[Scalar, ...]]] | None = None,
    fresh: Sequence[int] = (),
) -> Candidates:
    return Candidates(
        rows=np.arange(len(scores), dtype=np.int64),
        scores=np.array(scores, np.float32),
        vectors=no_vectors if vectors is None else lambda positions: vectors[positions],
        weights={rule: np.array(weight, np.float32) for rule, weight in (weights or {}).items()},
        values=values or {},
        is_fresh=np.isin(np.arange(len(scores)), fresh),
    )


def no_vectors(positions: Rows) -> Vectors:
    raise AssertionError(f"without diversity no vector is needed, asked for {positions.tolist()}")


def cap(number: int, *, at_most: int, window: int = 0) -> Cap:
    field = Field(name="author", type=FieldType.STRING, many=True, path="author")
    return Cap(name=f"caps[{number}]", field=field, at_most=at_most, window=window)


def pin(number: int, rank: int, position: int) -> tuple[Pin, int]:
    return Pin(name=f"pins[{number}]", rank=rank, item_id=f"item-{position}"), position


def units(rng: np.random.Generator, count: int) -> Vectors:
    """Return vectors of length 1, some of them equal."""
    vectors = rng.normal(size=(count, DIMENSION))[rng.integers(0, max(count, 1), count)]
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    diversities: st.SearchStrategy[float] = st.just(0.0) | st.floats(0.01, 1.0),  # noqa: B008 - strategies are immutable
    shares: st.SearchStrategy[float] = st.just(0.0) | st.floats(0.01, 1.0),  # noqa: B008
    caps_max: int = 2,
    pins_max: int = 3,
    zero_weights: bool = True,
) -> Case:
    """Draw a few candidates that share values, scores and vectors more often than any real ones would."""
    count, k = draw(SIZES), draw(SIZES)
    # Shapes are drawn one by one, to be shrunk; what fills them at once, to be quick.
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    factors = [0.0, 0.5, 1.0, 1.0, 2.0] if zero_weights else [0.5, 1.0, 1.0, 2.0]
    windows = st.integers(0, 5)
    caps = tuple(
        cap(number, at_most=draw(st.integers(1, 2)), window=draw(windows))
        for number in range(draw(st.integers(0, caps_max)))
    )
    pin_count = draw(st.integers(0, pins_max)) if count else 0
    return Case(
        candidates=candidates_of(
            rng.integers(-4, 5, count).tolist(),
            vectors=units(rng, count),
            weights={f"boosts[{n}]": rng.choice(factors, count).tolist() for n in range(draw(st.integers(0, 2)))},
            values={
                one.name: [tuple(rng.choice(list("aab"), rng.integers(0, 3))) for _ in range(count)] for one in caps
            },
            fresh=rng.permutation(count)[:4].tolist(),
        ),
        recipe=recipe_of(diversity=draw(diversities), caps=caps, exploration_share=draw(shares)),
        k=k,
        pins=[pin(n, int(rng.integers(1, k + 3)), int(rng.integers(0, count))) for n in range(pin_count)],
        seed=draw(st.integers(0, 99)),
    )


def crowded(case: Case, shown: Mapping[int, int], place: int) -> bool:
    """Return whether a window that holds ``place`` has a value of who stands there too often; by counting."""
    for one in case.recipe.caps:
        values = case.candidates.values[one.name]
        width = one.window or 10_000
        for start in range(place - width + 1, place + 1) if one.window else (0,):
            near = [position for at, position in shown.items() if start <= at < start + width]
            if any(sum(value in values[position] for position in near) > one.at_most for value in values[shown[place]]):
                return True
    return False


def slowly_arranged(case: Case, scores: npt.NDArray[np.float32]) -> list[int]:
    """Return what should be shown without diversity and exploration, ``scores`` being those after weights."""
    waiting = sorted(case.kept, key=lambda position: (-scores[position], position))
    place_count = min(case.k, len(waiting))
    shown: dict[int, int] = {}
    for one, position in case.pins:
        if one.rank <= place_count and one.rank - 1 not in shown and position in waiting:
            shown[one.rank - 1] = position
            waiting.remove(position)
    for place in range(place_count):
        while place not in shown:
            fitting = [position for position in waiting if not crowded(case, {**shown, place: position}, place)]
            if fitting:
                shown[place] = fitting[0]
                waiting.remove(fitting[0])
            elif max(shown, default=0) > place:
                waiting = sorted([*waiting, shown.pop(max(shown))], key=lambda position: (-scores[position], position))
            else:
                return [shown[at] for at in range(place)]
    return [shown[at] for at in range(place_count)]
