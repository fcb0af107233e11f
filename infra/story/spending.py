"""The story's second part: a year of transactions, and what they say of each customer."""

from __future__ import annotations

from infra.api import Json, entries
from infra.story.context import Context, shown, whole


def import_transactions(story: Context) -> list[str]:
    """Import the transaction lines; each belongs to the golden record of the card it was paid with."""
    total = whole(story.read("manifest.json")["transactions"])

    def progress(metadata: Json) -> None:
        read = whole(metadata.get("read_rows"))
        story.progress(read / total, f"{shown(read)}/{shown(total)}")

    file = story.sample / "transactions.parquet"
    operation = story.analyst.upload("/v1/interactions:import", file, key="sample-transactions", source_id="till")
    result = story.analyst.finished(operation, progress)
    why = ", ".join(f"{row['reason']} {shown(row['rows'])}" for row in entries(result, "apart")) or "none"
    written, again = shown(result.get("written_rows")), shown(result.get("duplicate_rows"))
    return [f"{shown(result.get('read_rows'))} lines read: {written} written, {again} known already, set apart: {why}"]


def compute_scores(story: Context) -> list[str]:
    """Compute RFM and tell the sizes of its segments, and the sales that the lake knows."""
    operation = story.analyst.post("/v1/scores:compute", key="sample-scores")
    result = story.analyst.finished(operation)
    sizes = ", ".join(f"{row['title']} {_size(row)}" for row in entries(result, "segments"))
    lines = [f"{shown(result.get('profile_count'))} customers scored up to {result.get('data_cutoff')}: {sizes}"]
    sales = story.analyst.post("/v1/metrics/sales:query", {"dimensions": ["region"]})
    best = sorted(entries(sales, "rows"), key=lambda row: -whole(row.get("value")))[:3]
    tops = ", ".join(f"{_place(row)} ¥{whole(row.get('value')) / 100:,.0f}" for row in best)
    held = shown(sales.get("suppressed_cell_count"))
    lines.append(
        f"sales by region, of {shown(sales.get('source_row_count'))} rows: {tops}; {held} small cells withheld"
    )
    return lines


def _place(row: Json) -> str:
    values = row.get("dimension_values")
    return "/".join(values) if isinstance(values, list) else "all"


def _size(row: Json) -> str:
    return "fewer than 5" if row.get("suppressed") else shown(row.get("profile_count"))
