"""The story's second part: a year of transactions, and what they say of each customer."""

from __future__ import annotations

import time

from gateway.client import Json, entries
from infra.story.context import WAIT_SECONDS, Context, StepFailed, check_sum, require, shown, whole
from infra.story.customers import golden_records, read_assignments

LAKE_SECONDS = 120.0  # without anything new arriving in the lake
LOOK_SECONDS = 1.0
EVERYBODY: Json = {
    "event": {
        "event_type": "order_completed",
        "measure": "MEASURE_COUNT",
        "operator": "OPERATOR_GE",
        "value": "0",
        "within_days": 1,
    }
}


def import_transactions(story: Context) -> list[str]:
    """Import the transaction lines; each belongs to the golden record of the card it was paid with."""
    total = whole(story.read("manifest.json")["transactions"])

    def progress(metadata: Json) -> None:
        read = whole(metadata.get("read_rows"))
        story.progress(read / total, f"{shown(read)}/{shown(total)}")

    file = story.sample / "transactions.parquet"
    operation = story.analyst.upload("/v1/interactions:import", file, key="sample-transactions", source_id="till")
    result = story.analyst.wait_operation(operation, WAIT_SECONDS, progress)
    why = ", ".join(f"{row['reason']} {shown(row['rows'])}" for row in entries(result, "apart")) or "none"
    apart = sum(whole(row.get("rows")) for row in entries(result, "apart"))
    parts = {"written": whole(result.get("written_rows")), "known already": whole(result.get("duplicate_rows"))}
    check_sum({**parts, "set apart": apart}, total)
    require(sum(parts.values()), f"no transaction belongs to a customer: {why}")
    written, again = shown(result.get("written_rows")), shown(result.get("duplicate_rows"))
    return [f"{shown(result.get('read_rows'))} lines read: {written} written, {again} known already, set apart: {why}"]


def compute_scores(story: Context) -> list[str]:
    """Compute RFM and tell the sizes of its segments, and the sales that the lake knows."""
    await_lake(story)
    operation = story.analyst.post("/v1/scores:compute")  # without a key: done again, it looks again
    result = story.analyst.wait_operation(operation, WAIT_SECONDS)
    require(whole(result.get("profile_count")), "no customer was scored; see logs/analytics.log and logs/work.log")
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


def await_lake(story: Context) -> None:
    """Wait until the lake knows all golden records: their events come through the broker.

    Raises:
        StepFailed: some are missing, and nothing more comes.
    """
    if set(read_assignments(story).values()) <= _known_to_lake(story):
        return
    # some of these may have been merged since: ask which there are now
    golden = {str(profile["name"]).removeprefix("profiles/") for profile in golden_records(story)}
    fewest, deadline = len(golden) + 1, 0.0
    while missing := len(golden - _known_to_lake(story)):
        if missing < fewest:
            fewest, deadline = missing, time.monotonic() + LAKE_SECONDS
        if time.monotonic() >= deadline:
            raise StepFailed(
                f"{shown(missing)} of {shown(len(golden))} golden records have not reached the lake, and none came for "
                f"{LAKE_SECONDS:.0f} s; see logs/consume.log, logs/rabbitmq.log and logs/analytics.log"
            )
        arrived = len(golden) - missing
        story.progress(0.9 * arrived / len(golden), f"lake: {shown(arrived)}/{shown(len(golden))} customers")
        time.sleep(LOOK_SECONDS)


def _known_to_lake(story: Context) -> set[str]:
    """Return the ids of the profiles that an audience of everybody takes in."""
    found: set[str] = set()
    token = ""
    while True:
        page = story.analyst.post("/v1/audiences:evaluate", {"rule": EVERYBODY, "page_token": token})
        ids = page.get("profile_ids", [])
        found.update(map(str, ids if isinstance(ids, list) else []))
        token = str(page.get("next_page_token", ""))
        if not token:
            return found


def _place(row: Json) -> str:
    values = row.get("dimension_values")
    return "/".join(values) if isinstance(values, list) else "all"


def _size(row: Json) -> str:
    return "fewer than 5" if row.get("suppressed") else shown(row.get("profile_count"))
