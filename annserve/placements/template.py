"""The file that `annserve placements new` writes."""

from __future__ import annotations

from pathlib import Path

_TEMPLATE = Path(__file__).parent / "template.yaml"


def template_of(name: str) -> str:
    """Return a placement called ``name`` that asks for what suits the user; all other keys are in comments."""
    return _TEMPLATE.read_text(encoding="utf-8").replace("{name}", name, 1)
