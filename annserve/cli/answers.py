"""An answer as people and machines read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from annserve.cli.names import Names
from annserve_client import PlacementUse, Recommendation, Recommendations, RuleEffect, Value


def row_of(
    rank: int, result: Recommendation, names: Names, fields: Sequence[str], *, has_rules: bool = False
) -> dict[str, object]:
    """Return the row of a table that shows ``result``, with its ``fields`` and, if it has them, what rules did."""
    row: dict[str, object] = {"rank": rank, "item_id": result.item_id}
    if names.by_id:
        row["name"] = names.of(result.item_id) or ""
    row |= {name: _cell(result.metadata.get(name)) for name in fields}
    row["score"] = result.score
    if result.explanation is not None:
        parts = asdict(result.explanation)
        del parts["effects"]
        row |= {part.replace("_", " "): value for part, value in parts.items() if value is not None}
    if has_rules:
        effects = () if result.explanation is None else result.explanation.effects
        row["rules"] = ", ".join(map(_effect, effects))
    row["source"] = result.source.value
    if result.fallback_step:
        row["source"] = f"{result.source.value}, fallback {result.fallback_step}"
    return row


def _effect(effect: RuleEffect) -> str:
    return effect.rule if effect.weight is None else f"{effect.rule} x{effect.weight:.3g}"


def _cell(values: Sequence[Value] | None) -> object:
    """Return what to show of a field: one value as it is, several side by side, None where there is none."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values or ()]
    return ", ".join(map(str, plain)) if len(plain) > 1 else next(iter(plain), None)


def remarks_on(answer: Recommendations, forced_variants: Iterable[str] = ()) -> list[str]:
    """Return what a person should know about the answer, a line each.

    Args:
        answer: What a server answered.
        forced_variants: The experiments whose variants were asked for. The server lets those pass that it does not
            know, so that a tester may send all of hers with every call; here one may be misspelt.
    """
    remarks = [f"snapshot {answer.snapshot_id}, found by {answer.search_path.value} search"]
    if answer.placement is not None and answer.placement.suppressed_reason:
        remarks = [f"snapshot {answer.snapshot_id}"]
    if answer.user_impact is not None:
        remarks[0] += f", user impact {answer.user_impact:.2g}"
    if answer.placement is not None:
        remarks.insert(0, _placement(answer.placement))
        its = answer.placement.experiment
        its_own = f"which is {its}" if its else "which has none"
        remarks += [
            f"--variant {name}: not the experiment of placement {answer.placement.name}, {its_own}"
            for name in forced_variants
            if name != its
        ]
    if answer.stage_seconds:
        row_counts = {stage: f", {count} rows" for stage, count in answer.stage_row_counts.items()}
        took = "; ".join(
            f"{stage} {seconds * 1e6:.0f} us{row_counts.get(stage, '')}"
            for stage, seconds in answer.stage_seconds.items()
        )
        remarks.append(f"took: {took}")
    if answer.catalog_age_seconds is not None:
        remarks.append(f"the catalogue as it was {answer.catalog_age_seconds:.3g} s ago")
    if answer.degradations:
        remarks.append(f"degraded: {', '.join(degradation.value for degradation in answer.degradations)}")
    if answer.catalog_use is not None:
        counts = asdict(answer.catalog_use).items()
        used = ", ".join(f"{name.removesuffix('_count').replace('_', ' ')} {count}" for name, count in counts if count)
        remarks.append(f"of the catalogue: {used or 'nothing'}")
    if answer.missing_ids:
        remarks.append(f"without a vector: {', '.join(answer.missing_ids)}")
    if answer.shortfall is not None:
        short = answer.shortfall
        remarks.append(
            f"{short.returned_count} of {short.requested_count}: {short.eligible_count} items were eligible "
            f"(limited by {short.limiting_rule.value})"
        )
    return remarks


def _placement(use: PlacementUse) -> str:
    text = f"placement {use.name}, version {use.version}"
    if use.experiment:
        text += f", experiment {use.experiment}: {use.variant}"
    text += f"; asked {use.mode}" if use.mode else f"; shows nothing: {use.suppressed_reason}"
    if use.user_context_similarity is not None:
        text += f"; similarity of user and context {use.user_context_similarity:.3f}"
    return text


def json_of(answer: Recommendations, names: Names) -> dict[str, object]:
    """Return ``answer`` as JSON can hold it."""
    value = asdict(answer)
    if value["catalog_use"] is None:
        del value["catalog_use"]
    if value["placement"] is None:
        del value["placement"], value["stage_row_counts"]
    for result in value["results"]:
        if names.by_id:
            result["name"] = names.of(result["item_id"])
        if result["explanation"] is None:
            del result["explanation"]
        result["metadata"] = {
            name: [held.isoformat() if isinstance(held, datetime) else held for held in values]
            for name, values in result["metadata"].items()
        }
    return value
