"""Made ``v1/``, the snapshot of format 1 that `test_golden` loads for ever. It is not run again.

A newer format gets a folder and a script of its own; if this one cannot be loaded any more, that is the bug.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from annserve.domain.model import FoldInConstants, Histories, Model
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_snapshot
from annserve.snapshot.store import SnapshotStore

# Two tastes, tea (even) and tools (odd), and one thing to be had with either.
ITEMS = (
    "녹차",
    "망치",
    "홍차",
    "톱",
    "보리차",
    "드릴",
    "우롱차",
    "펜치",
    "teapot",
    "tool box",
    "머그컵 🍵",
    "gift card",
)
USERS = ("차를 좋아하는 손님", "목수", "both")


def model() -> Model:
    """Return a model whose best answers a person can tell."""
    number = np.arange(len(ITEMS))
    vectors = np.stack([number % 2 == 0, number % 2 == 1, 0.02 * number], axis=1).astype(np.float32)
    vectors[-1] = (0.5, 0.5, 0.0)
    return Model(
        item_ids=ITEMS,
        item_vectors=vectors,
        user_ids=USERS,
        user_vectors=np.array([[1, 0, 1], [0, 1, 1], [0.7, 0.7, 0.1]], np.float32),
        popularity=np.linspace(1, 2, len(ITEMS), dtype=np.float32),
        popularity_weight=0.125,
        likeness_exponent=0.75,
        recent_items_max=50,
        fold_in=FoldInConstants(gram_weight=1.0, item_weight=9.0, target=10.0, regularization=0.5),
        histories=Histories(indptr=np.array([0, 2, 3, 3]), item_rows=np.array([0, 2, 1], np.int32)),
        trainer="by hand",
        parameters={"tastes": ["차", "tools"]},
        metrics={"recall@20": {"warm": 1.0}},
    )


def main() -> None:
    """Write ``v1/`` and, as ``v1_answers.json``, what it answers."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as root:
        shutil.copytree(build_snapshot(model(), SnapshotStore(Path(root)), threads=1).path, here / "v1")
    snapshot = load_snapshot(here / "v1")
    answers: dict[str, list[tuple[str, float]]] = {}
    for user_id in USERS:
        user = snapshot.user_vectors[snapshot.users.row(user_id)]
        found = snapshot.affinity.search(np.append(user, np.float32(0.125)), 4)
        answers[f"personalize {user_id}"] = list(
            zip(snapshot.items.ids(found.rows), found.scores.tolist(), strict=True)
        )
    for item_id in ITEMS:
        seed = snapshot.item_vectors[snapshot.items.row(item_id)]
        found = snapshot.likeness.search(seed / np.linalg.norm(seed), 4)
        answers[f"similar {item_id}"] = list(zip(snapshot.items.ids(found.rows), found.scores.tolist(), strict=True))
    (here / "v1_answers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
