#!/usr/bin/env python3
"""Make annserve/demo/online_retail from the Online Retail data set, given its transactions.parquet and items.parquet.

Kept are the sales (positive quantity and price) of real products to known customers, a row per invoice line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TARGET = Path(__file__).resolve().parent.parent / "annserve" / "demo" / "online_retail"


def main(source: Path) -> None:
    """Write interactions.parquet, ordered by time, and items.parquet, ordered by id."""
    items = pq.read_table(source / "items.parquet").filter(pc.field("is_product"))
    sold = (
        pc.field("CustomerID").is_valid()
        & (pc.field("Quantity") > 0)
        & (pc.field("UnitPrice") > 0)
        & pc.field("StockCode").isin(items["StockCode"])
    )
    lines = pq.read_table(source / "transactions.parquet").filter(sold).sort_by("InvoiceDate")
    interactions = pa.table(
        {
            "customer_id": lines["CustomerID"].cast(pa.string()),
            "item_id": lines["StockCode"].cast(pa.string()),
            "quantity": lines["Quantity"],
            "time": lines["InvoiceDate"],
        }
    )
    pq.write_table(interactions, TARGET / "interactions.parquet", compression="zstd", compression_level=19)
    catalogue = pa.table(
        {
            "item_id": items["StockCode"].cast(pa.string()),
            "name": items["description"].cast(pa.string()),
            "price": items["price_median"],
            "first_sold": items["first_sold"],
            "last_sold": items["last_sold"],
        }
    ).sort_by("item_id")
    pq.write_table(catalogue, TARGET / "items.parquet", compression="zstd", compression_level=19)
    print(f"{interactions.num_rows:,} invoice lines, {catalogue.num_rows:,} products")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
