"""The bundled data: a year of a gift shop's sales, so that the first minute shows real recommendations.

Online Retail, by Dr Daqing Chen, CC0; see ``online_retail/README.md``.
"""

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "online_retail"

INTERACTIONS = _FOLDER / "interactions.parquet"
"""One row per invoice line of a known customer: `customer_id`, `item_id`, `quantity`, `time`."""

ITEMS = _FOLDER / "items.parquet"
"""One row per product: `item_id`, `name` and what else is known of it."""

CATALOG = Path(__file__).parent / "catalog.yaml"
"""Declares the fields of `ITEMS`."""

PLACEMENTS = Path(__file__).parent / "placements"
"""Four worked examples: `home`, `popup`, `page_end`, `cart`."""

COLUMNS: dict[str, Any] = {"user": "customer_id", "item": "item_id", "time": "time"}
"""Which column of `INTERACTIONS` is what: arguments of `training.interactions.Columns`."""

TRAINING = {"trainer": "svd"}
"""What validation chose for this data, where it is not the default (docs/evaluation.md)."""
