"""Which candidate is decided alongside, and what was counted: in memory and in MongoDB."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import pymongo

from services.chassis import records
from services.chassis.access.shadow import ShadowCounts, ShadowKey

KEPT = 10_000  # different differences of one candidate
CURRENT = "current"


@dataclass(frozen=True, slots=True)
class ShadowTotals:
    """What all processes have counted of one candidate."""

    compared: int = 0
    differing: int = 0
    failed: int = 0


def row_id(key: ShadowKey) -> str:
    """Return the place of a difference in the list."""
    return hashlib.sha256(repr(asdict(key)).encode()).hexdigest()[:32]


class MemoryShadows:
    """In dicts."""

    def __init__(self) -> None:
        self._current = ""
        self._totals: dict[str, ShadowTotals] = {}
        self._rows: dict[str, dict[str, tuple[ShadowKey, int]]] = {}
        self._lock = threading.Lock()

    def current(self) -> str:
        """Return the id of the candidate, empty for none."""
        return self._current

    def set(self, policy_id: str) -> None:
        """Take a candidate, or none; counts of earlier ones stay."""
        self._current = policy_id

    def add(self, policy_id: str, counts: ShadowCounts) -> None:
        """Add what one process counted."""
        with self._lock:
            t = self._totals.get(policy_id, ShadowTotals())
            compared, differing = t.compared + counts.compared, t.differing + counts.differing
            self._totals[policy_id] = replace(
                t, compared=compared, differing=differing, failed=t.failed + counts.failed
            )
            rows = self._rows.setdefault(policy_id, {})
            for key, count in counts.differences.items():
                place = row_id(key)
                if place in rows or len(rows) < KEPT:
                    rows[place] = (key, rows.get(place, (key, 0))[1] + count)

    def totals(self, policy_id: str) -> ShadowTotals:
        """Return the sums."""
        return self._totals.get(policy_id, ShadowTotals())

    def page(self, policy_id: str, after: str, limit: int) -> list[tuple[str, ShadowKey, int]]:
        """Return up to `limit` differences with their counts, by place, those after a place."""
        rows = sorted((place, *row) for place, row in self._rows.get(policy_id, {}).items() if place > after)
        return rows[:limit]


class MongoShadows:
    """In two collections; a row's id is candidate and place."""

    def current(self) -> str:
        """Return the id of the candidate."""
        with records.driver_errors():
            row = self._states().find_one({"_id": CURRENT})
        return str(row["policy_id"]) if row else ""

    def set(self, policy_id: str) -> None:
        """Take a candidate, or none."""
        with records.driver_errors():
            self._states().update_one({"_id": CURRENT}, {"$set": {"policy_id": policy_id}}, upsert=True)

    def add(self, policy_id: str, counts: ShadowCounts) -> None:
        """Add what one process counted."""
        sums = {"compared": counts.compared, "differing": counts.differing, "failed": counts.failed}
        with records.driver_errors():
            self._states().update_one({"_id": f"of {policy_id}"}, {"$inc": sums}, upsert=True)
            state = self._states().find_one({"_id": f"of {policy_id}"}) or {}
            room, new = KEPT - state.get("rows", 0), 0
            for key, count in counts.differences.items():
                where = {"_id": f"{policy_id} {row_id(key)}"}
                if new < room or self._rows().find_one(where):
                    change = {"$inc": {"count": count}, "$set": asdict(key)}
                    new += self._rows().update_one(where, change, upsert=True).upserted_id is not None
            self._states().update_one({"_id": f"of {policy_id}"}, {"$inc": {"rows": new}})

    def totals(self, policy_id: str) -> ShadowTotals:
        """Return the sums."""
        with records.driver_errors():
            row: Mapping[str, int] = self._states().find_one({"_id": f"of {policy_id}"}) or {}
        return ShadowTotals(row.get("compared", 0), row.get("differing", 0), row.get("failed", 0))

    def page(self, policy_id: str, after: str, limit: int) -> list[tuple[str, ShadowKey, int]]:
        """Return a page by place."""
        where = {"_id": {"$gt": f"{policy_id} {after}", "$lt": f"{policy_id} ~"}}
        with records.driver_errors():
            rows = list(self._rows().find(where).sort("_id", 1).limit(limit))
        names = ShadowKey.__slots__
        return [(row["_id"].rpartition(" ")[2], ShadowKey(*(row[n] for n in names)), row["count"]) for row in rows]

    def _states(self) -> pymongo.collection.Collection:
        return records.database("access")["shadows"]

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["shadow_differences"]
