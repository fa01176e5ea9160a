"""Which items placements name: what a snapshot without them would no longer show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from annserve.domain.placements import PlacementText
from annserve.placements.compiling import read_placement
from annserve.placements.file import PlacementFile, Rules
from annserve.placements.problems import Problem


def named_items(texts: Iterable[PlacementText]) -> tuple[Mapping[str, Sequence[str]], Sequence[Problem]]:
    """Return the items of pins and lists, each once, by placement; and what is wrong with files that cannot be read."""
    found: dict[str, Sequence[str]] = {}
    problems: list[Problem] = []
    for text in texts:
        file, wrong = read_placement(text)
        problems += wrong
        if file is not None and (item_ids := _named_by(file)):
            found[text.name] = item_ids
    return found, problems


def _named_by(file: PlacementFile) -> list[str]:
    variants: Iterable[Rules] = [] if file.experiment is None else file.experiment.variants.values()
    named: dict[str, None] = {}
    for rules in (file, *variants):
        named |= dict.fromkeys(pin.item for pin in rules.pins)
        for step in rules.fallback:
            named |= dict.fromkeys(step.items or ())
    return list(named)
