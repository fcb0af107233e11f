"""Interactions that are kept no longer: whole months, but for the people whom a legal hold keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.analytics.domain.tables import INTERACTIONS, MOVED
from services.analytics.lake import quoted
from services.analytics.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Month:
    """A month of UTC, as YYYY-MM, with its rows and those among them that are of kept people."""

    month: str
    rows: int
    kept: int


def months(warehouse: Warehouse, kept_ids: Sequence[str]) -> list[Month]:
    """Return the months that have interactions, oldest first."""
    counts: Counter[str] = Counter()
    for file in warehouse.lake.snapshot(INTERACTIONS).files:
        counts[file.partition] += file.rows
    kept = _kept(warehouse, kept_ids)
    return [Month(month, rows, kept.get(month, 0)) for month, rows in sorted(counts.items()) if rows]


def delete_months(warehouse: Warehouse, wanted: Sequence[str], kept_ids: Sequence[str]) -> None:
    """Delete the rows of months, but for kept people's, and the files that held them. A repeat changes nothing.

    Whoever reads an older version at this moment, or pages through one, is told to start again.

    Raises:
        Unavailable: other writers came first, time after time.
    """
    only = ""
    if kept_ids:
        only = f"profile_id NOT IN ({quoted(kept_ids)})"
        if records := _moved_to(warehouse, kept_ids):
            only += f" AND (record IS NULL OR record NOT IN ({quoted(records)}))"
    warehouse.lake.delete(INTERACTIONS, INTERACTIONS.partition, wanted, only)
    warehouse.lake.clean(INTERACTIONS, at_once=True)
    warehouse.derived.forget_all()


def _kept(warehouse: Warehouse, kept_ids: Sequence[str]) -> dict[str, int]:
    """Return how many rows of each month are told of these people, or of a record that a split gave them."""
    if not kept_ids:
        return {}
    pinned = warehouse.pin([])
    name = "told_interactions" if pinned.has_moved else "interactions"
    body = (
        f"SELECT strftime(event_time, '%Y-%m') AS month, count(*) FROM {name}"
        " WHERE profile_id IN (SELECT unnest($ids::VARCHAR[])) OR record IN (SELECT unnest($records::VARCHAR[]))"
        " GROUP BY month"
    )
    bound = {"ids": list(kept_ids), "records": _moved_to(warehouse, kept_ids)}
    return {str(month): int(str(count)) for month, count in warehouse.rows(pinned, ["interactions"], body, bound)}


def _moved_to(warehouse: Warehouse, profile_ids: Sequence[str]) -> list[str]:
    body = "SELECT record FROM moved_records WHERE profile_id IN (SELECT unnest($ids::VARCHAR[]))"
    found = warehouse.rows(warehouse.pin([]), [MOVED.name], body, {"ids": list(profile_ids)})
    return [str(record) for (record,) in found]
