"""Who gets which variant: by share, for good, and independently of other experiments."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from annserve.placements.assignment import Assignment

UNITS = 1_000_000
SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}


def assigned(
    experiment: str, shares: dict[str, float], units: int = UNITS
) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    variant_of = Assignment(experiment, shares).variant_of
    place = {name: number for number, name in enumerate(shares)}
    return np.fromiter((place[variant_of(f"user-{unit}")] for unit in range(units)), np.int8, units)


def test_of_a_million_units_each_variant_gets_its_share_and_two_experiments_know_nothing_of_each_other() -> None:
    first, second = assigned("home_variety", SHARES), assigned("popup_text", SHARES)

    counts = np.bincount(first, minlength=3)
    assert np.abs(counts / UNITS - list(SHARES.values())).max() < 0.002
    assert chisquare(counts, np.array(list(SHARES.values())) * UNITS).pvalue > 0.001

    together = np.zeros((3, 3), int)
    np.add.at(together, (first, second), 1)
    assert chi2_contingency(together).pvalue > 0.001
    for one, other in product(range(3), repeat=2):
        expected = list(SHARES.values())[one] * list(SHARES.values())[other]
        assert abs(together[one, other] / UNITS - expected) < 0.002


def test_another_process_assigns_alike() -> None:
    units = [f"user-{number}" for number in range(200)] + ["", "é", "상" * 42]
    program = (
        "import sys; from annserve.placements.assignment import Assignment; "
        f"a = Assignment('home', {SHARES!r}); print([a.variant_of(unit) for unit in {units!r}])"
    )
    ours = [Assignment("home", SHARES).variant_of(unit) for unit in units]
    # Python's own hashes would differ.
    environment = {"PYTHONHASHSEED": "4711", "PYTHONIOENCODING": "utf-8"}

    theirs = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert theirs.stdout.strip() == str(ours)


def test_assignment_of_known_units_is_the_same_in_every_release() -> None:
    known = [Assignment("home", {"a": 0.5, "b": 0.5}).variant_of(f"user-{number}") for number in range(16)]

    assert "".join(known) == "bbbbbbbbbbbaabab"


def test_growing_a_share_moves_only_who_comes_to_it() -> None:
    before = assigned("home", {"a": 0.9, "b": 0.1}, 20_000)
    after = assigned("home", {"a": 0.8, "b": 0.2}, 20_000)

    assert not ((before == 1) & (after == 0)).any()
    assert abs((before != after).mean() - 0.1) < 0.01


@pytest.mark.parametrize("shares", [{"a": 0.0, "b": 1.0, "c": 0.0}, {"b": 1.0}, {"b": 1.0 - 1e-7, "c": 0.0}])
def test_variant_without_a_share_is_given_to_nobody(shares: dict[str, float]) -> None:
    assignment = Assignment("home", shares)

    assert {assignment.variant_of(f"user-{number}") for number in range(2_000)} == {"b"}
