"""Interactions in, a model out: what is weighed how, and in which order.

Time first, library second: recency in training and in the user's history and the prior of recent popularity are worth
more than the choice between factorisation libraries (docs/evaluation.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annserve.domain.arrays import Vectors
from annserve.domain.errors import InputError
from annserve.domain.model import FoldInConstants, Histories, Model
from annserve.domain.progress import Progress, no_progress
from annserve.snapshot.soundness import gram_matrix
from annserve.training.fold_in import FoldIn
from annserve.training.pairs import DAY_MS, Pairs
from annserve.training.trainers import ImplicitALS, ItemTrainer, TruncatedSVD

_TYPICAL_RANK = 20
_TYPICAL_USERS_MAX = 2_000
_DECAY_MIN = 1e-6


SVD_DEFAULTS: Mapping[str, Any] = {
    "factors": 256,
    "half_life_days": 180.0,
    "strength_exponent": 0.5,
    "item_exponent": 0.8,
    "user_exponent": 0.6,
    "history_half_life_days": 90.0,
    "popularity_half_life_days": 7.0,
    "popularity_share": 0.4,
    "likeness_exponent": 0.5,
}
"""What validation chose for ``svd`` where it differs from the defaults below, which are those of ``als``."""


class TrainingSettings(BaseModel):
    """How to train. The defaults were chosen on validation windows of the bundled data, never on its test window."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    trainer: Literal["als", "svd"] = Field(default="als", description="which library fits the item vectors")
    factors: int = Field(default=128, ge=1, le=2_048, description="dimensions of the space")
    singular_exponent: float = Field(default=0.1, ge=0, le=1, description="svd: singular values are raised to it")
    fold_in_shrinkage: float = Field(
        default=8.0, ge=0, description="svd: added to the number of items that a user's sum is divided by"
    )
    iterations: int = Field(default=15, ge=1, description="als: how often users and items take turns")
    alpha: float = Field(default=2.0, gt=0, description="als: what a confidence of 1 counts against the unobserved")
    regularization: float = Field(default=3.0, ge=0, description="als: pulls vectors towards zero")
    fold_in_regularization: float = Field(default=30.0, ge=0, description="als: the same, when a user is folded in")
    half_life_days: float = Field(default=60.0, gt=0, description="age at which an interaction counts half; inf: never")
    strength_exponent: float = Field(
        default=0.25, ge=0, le=2, description="what repetition and weight count: their sum is raised to it"
    )
    item_exponent: float = Field(
        default=0.5, ge=0, le=1, description="confidences are divided by their item's total, raised to it"
    )
    user_exponent: float = Field(
        default=0.5, ge=0, le=1, description="confidences are divided by their user's total, raised to it"
    )
    recent_items_max: int = Field(default=100, ge=1, le=1_000, description="latest items that make a user's vector")
    history_half_life_days: float = Field(
        default=120.0, gt=0, description="age at which an item counts half in its user's vector; inf: never"
    )
    popularity_half_life_days: float = Field(
        default=10.0, gt=0, description="age at which a first interaction counts half in the popularity prior"
    )
    popularity_share: float = Field(
        default=0.15, ge=-10, le=10, description="weight of the prior, in units of a typical user's 20th best score"
    )
    likeness_exponent: float = Field(
        default=0.75, ge=0.5, le=1, description="power of an item's norm that likeness is divided by"
    )
    seed: int = Field(default=0, ge=0, description="equal seeds, data and threads train equal vectors")

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_of_the_trainer(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**SVD_DEFAULTS, **values} if values.get("trainer") == "svd" else values

    @classmethod
    def of_parameters(cls, parameters: Mapping[str, Any]) -> TrainingSettings:
        """Return the settings that a model's `parameters` tell of.

        Raises:
            InputError: they are not those of a model that was trained here.
        """
        try:
            # Without it any model would be taken for one that was trained with every default.
            values = {"trainer": parameters["trainer"], **parameters}
            return cls.model_validate({name: np.inf if value is None else value for name, value in values.items()})
        except (KeyError, ValidationError) as error:
            raise InputError("its parameters are not those of a training that can be repeated") from error

    def as_parameters(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them: an infinite half-life becomes None."""
        return {name: None if value == np.inf else value for name, value in self.model_dump().items()}

    def item_trainer(self) -> ItemTrainer:
        """Return the trainer these settings name."""
        if self.trainer == "svd":
            return TruncatedSVD(
                factors=self.factors,
                singular_exponent=self.singular_exponent,
                fold_in_shrinkage=self.fold_in_shrinkage,
                seed=self.seed,
            )
        return ImplicitALS(
            factors=self.factors,
            alpha=self.alpha,
            regularization=self.regularization,
            fold_in_regularization=self.fold_in_regularization,
            iterations=self.iterations,
            seed=self.seed,
        )


def train(pairs: Pairs, settings: TrainingSettings, *, threads: int = 1, progress: Progress = no_progress) -> Model:
    """Return the model of ``pairs``. Rows of the model are positions in the ids of ``pairs``.

    An item without any pair (as when ``pairs`` are one window of a longer source) gets a vector of no meaning.
    """
    trainer = settings.item_trainer()
    item_vectors = trainer.fit(confidences(pairs, settings), threads=threads, progress=progress)
    popularity = popularity_prior(pairs, settings.popularity_half_life_days)
    user_vectors = folded_in(pairs, item_vectors, trainer.fold_in, settings)
    typical = typical_score(user_vectors, item_vectors, seed=settings.seed)
    return Model(
        item_ids=pairs.item_ids,
        item_vectors=item_vectors,
        user_ids=pairs.user_ids,
        user_vectors=user_vectors,
        popularity=popularity,
        popularity_weight=settings.popularity_share * typical,
        likeness_exponent=settings.likeness_exponent,
        recent_items_max=settings.recent_items_max,
        fold_in=trainer.fold_in,
        histories=Histories(indptr=pairs.indptr, item_rows=pairs.items),
        trainer=trainer.name,
        parameters=settings.as_parameters(),
    )


def folded_in(pairs: Pairs, item_vectors: Vectors, constants: FoldInConstants, settings: TrainingSettings) -> Vectors:
    """Return the vectors of the users of ``pairs``, ``(users, d)``, as serving would fold them in."""
    histories, weights = fold_in_histories(pairs, settings)
    return FoldIn(gram_matrix(item_vectors), constants).user_vectors(item_vectors, histories, weights)


def confidences(pairs: Pairs, settings: TrainingSettings) -> sp.csr_array:
    """Return what each pair counts in training, ``(users, items)`` float32, with mean 1 over the pairs.

    Strength and recency, then divided by the totals of item and user raised to their exponents.
    """
    values = pairs.strengths.astype(np.float64) ** settings.strength_exponent
    values *= _decay(pairs.ages_days, settings.half_life_days)
    item_totals = np.bincount(pairs.items, weights=values, minlength=len(pairs.item_ids))
    user_totals = np.bincount(pairs.users, weights=values, minlength=len(pairs.user_ids))
    values /= item_totals[pairs.items] ** settings.item_exponent * user_totals[pairs.users] ** settings.user_exponent
    return pairs.matrix(values / values.mean())


def popularity_prior(pairs: Pairs, half_life_days: float) -> npt.NDArray[np.float32]:
    """Return ``log1p`` of how many users took up each item lately, ``(items,)``: first interactions, with decay."""
    ages_days = (pairs.now_ms - pairs.first_times) / DAY_MS
    counts = np.bincount(pairs.items, weights=_decay(ages_days, half_life_days), minlength=len(pairs.item_ids))
    return np.log1p(counts).astype(np.float32)


def fold_in_histories(pairs: Pairs, settings: TrainingSettings) -> tuple[Histories, npt.NDArray[np.float64]]:
    """Return each user's latest items, at most ``recent_items_max``, and what each counts in her vector."""
    indptr = pairs.indptr
    from_last = np.repeat(indptr[1:], np.diff(indptr)) - np.arange(len(pairs))
    latest = from_last <= settings.recent_items_max
    kept_counts = np.minimum(np.diff(indptr), settings.recent_items_max)
    histories = Histories(indptr=np.r_[0, np.cumsum(kept_counts)], item_rows=pairs.items[latest])
    return histories, _decay(pairs.ages_days[latest], settings.history_half_life_days)


def typical_score(user_vectors: Vectors, item_vectors: Vectors, *, seed: int = 0) -> float:
    """Return the mean over users of the 20th best inner product: the scale that the prior is weighed on."""
    if len(user_vectors) == 0:
        return 0.0
    chosen = np.random.default_rng(seed).permutation(len(user_vectors))[:_TYPICAL_USERS_MAX]
    rank = min(_TYPICAL_RANK, len(item_vectors))
    best = [np.partition(item_vectors @ user_vectors[user], -rank)[-rank] for user in chosen]
    return float(np.mean(best))


def _decay(ages_days: npt.NDArray[np.float64], half_life_days: float) -> npt.NDArray[np.float64]:
    # However old, an interaction counts something: fold-in and the trainers want weights above 0.
    decay: npt.NDArray[np.float64] = np.maximum(np.exp2(-np.maximum(ages_days, 0.0) / half_life_days), _DECAY_MIN)
    return decay
