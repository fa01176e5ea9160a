"""One snapshot of every format version, loaded for ever and asked what it was asked when it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annserve.domain.arrays import Vectors
from annserve.domain.model import FoldInConstants
from annserve.domain.query import SearchPath
from annserve.search.cost import CostModel
from annserve.search.index import SpaceIndex
from annserve.snapshot.manifest import FORMAT_VERSION
from annserve.snapshot.snapshot import Snapshot, load_snapshot

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """The snapshot, on a machine on which its graphs are faster than scans of twelve rows."""
    return load_snapshot(HERE / "v1", cost=CostModel(exact_us=1e6))


def asked(snapshot: Snapshot, question: str) -> tuple[SpaceIndex, Vectors]:
    verb, id_ = question.split(" ", 1)
    if verb == "personalize":
        user = snapshot.user_vectors[snapshot.users.row(id_)]
        return snapshot.affinity, np.append(user, np.float32(snapshot.popularity_weight))
    seed = snapshot.item_vectors[snapshot.items.row(id_)]
    return snapshot.likeness, seed / np.linalg.norm(seed)


def test_every_format_version_has_its_snapshot() -> None:
    assert sorted(path.name for path in HERE.glob("v*") if path.is_dir()) == [
        f"v{number}" for number in range(1, FORMAT_VERSION + 1)
    ]


@pytest.mark.parametrize("path", SearchPath)
def test_the_snapshot_of_format_1_answers_as_it_did_when_it_was_made(snapshot: Snapshot, path: SearchPath) -> None:
    answers = json.loads((HERE / "v1_answers.json").read_text())

    assert len(answers) == 15
    for question, expected in answers.items():
        space, query = asked(snapshot, question)
        found = space.search(query, len(expected), exact=path is SearchPath.EXACT)
        assert found.path is path
        assert snapshot.items.ids(found.rows) == [item_id for item_id, _ in expected], question
        np.testing.assert_allclose(found.scores, [score for _, score in expected], rtol=1e-5)


def test_the_snapshot_of_format_1_still_says_all_it_said(snapshot: Snapshot) -> None:
    assert snapshot.manifest.format_version == 1
    assert snapshot.manifest.training.parameters == {"tastes": ["차", "tools"]}
    assert snapshot.manifest.metrics == {"recall@20": {"warm": 1.0}}
    assert (snapshot.popularity_weight, snapshot.likeness_exponent, snapshot.recent_items_max) == (0.125, 0.75, 50)
    assert snapshot.fold_in == FoldInConstants(gram_weight=1.0, item_weight=9.0, target=10.0, regularization=0.5)
    assert snapshot.items.id(int(snapshot.popular_rows[0])) == "gift card"
    assert snapshot.histories is not None
    assert snapshot.items.ids(snapshot.histories.of(snapshot.users.row("차를 좋아하는 손님") or 0)) == ["녹차", "홍차"]
