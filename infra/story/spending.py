"""The story's second part: a year of transactions, and what they say of each customer."""

from __future__ import annotations

import time

from kehu.analytics.v1 import analytics_pb2 as pb

from infra.story.context import WAIT_SECONDS, Context, Json, StepFailed, check_sum, moment, require, shown
from infra.story.customers import golden_records, read_assignments

LAKE_SECONDS = 120.0  # without anything new arriving in the lake
LOOK_SECONDS = 1.0
EVERYBODY: Json = {
    "event": {
        "event_type": "order_completed",
        "measure": "MEASURE_COUNT",
        "operator": "OPERATOR_GE",
        "value": 0,
        "within_days": 1,
    }
}


def import_transactions(story: Context) -> list[str]:
    """Import the transaction lines; each belongs to the golden record of the card it was paid with."""
    total = story.read("manifest.json")["transactions"]

    def progress(metadata: pb.ImportInteractionsMetadata) -> None:
        story.progress(metadata.read_rows / total, f"{shown(metadata.read_rows)}/{shown(total)}")

    file = story.sample / "transactions.parquet"
    analytics = story.analyst.analytics
    operation = analytics.import_interactions(file=file, source_id="till", request_id="sample-transactions")
    result = operation.wait(WAIT_SECONDS, progress)
    why = ", ".join(f"{row.reason} {shown(row.rows)}" for row in result.apart) or "none"
    parts = {"written": result.written_rows, "known already": result.duplicate_rows}
    check_sum({**parts, "set apart": sum(row.rows for row in result.apart)}, total)
    require(sum(parts.values()), f"no transaction belongs to a customer: {why}")
    written, again = shown(result.written_rows), shown(result.duplicate_rows)
    return [f"{shown(result.read_rows)} lines read: {written} written, {again} known already, set apart: {why}"]


def compute_scores(story: Context) -> list[str]:
    """Compute RFM and tell the sizes of its segments, and the sales that the lake knows."""
    await_lake(story)
    operation = story.analyst.analytics.compute_scores()  # with an id of its own: done again, it looks again
    result = operation.wait(WAIT_SECONDS)
    require(result.profile_count, "no customer was scored; see logs/analytics.log and logs/work.log")
    sizes = ", ".join(f"{row.title} {_size(row)}" for row in result.segments)
    lines = [f"{shown(result.profile_count)} customers scored up to {moment(result.data_cutoff)}: {sizes}"]
    sales = story.analyst.analytics.query_metric(name="metrics/sales", dimensions=["region"])
    best = sorted(sales.rows, key=lambda row: -row.value)[:3]
    tops = ", ".join(f"{'/'.join(row.dimension_values) or 'all'} ¥{row.value / 100:,.0f}" for row in best)
    held = shown(sales.suppressed_cell_count)
    lines.append(f"sales by region, of {shown(sales.source_row_count)} rows: {tops}; {held} small cells withheld")
    return lines


def await_lake(story: Context) -> None:
    """Wait until the lake knows all golden records: their events come through the broker.

    Raises:
        StepFailed: some are missing, and nothing more comes.
    """
    if set(read_assignments(story).values()) <= _known_to_lake(story):
        return
    # some of these may have been merged since: ask which there are now
    golden = {profile.name.removeprefix("profiles/") for profile in golden_records(story)}
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
    return set(story.analyst.analytics.evaluate_audience(rule=EVERYBODY))


def _size(row: pb.SegmentCount) -> str:
    return "withheld" if row.suppressed else shown(row.profile_count)
