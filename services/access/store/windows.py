"""How much of each caller's quota was handed out in its period; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Protocol

import pymongo

from services.chassis import records
from services.chassis.errors import AlreadyExists, Unavailable

TRIES = 100  # each means that another process was served


class QuotaWindows(Protocol):
    """Counters of periods, the same for all processes of access."""

    def add(self, key: str, count: int, now: datetime, expire_time: datetime) -> int:
        """Add to a period's counter and return what it was before; it is forgotten after `expire_time`."""


class MemoryQuotaWindows:
    """Counters in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, datetime]] = {}
        self._lock = threading.Lock()

    def add(self, key: str, count: int, now: datetime, expire_time: datetime) -> int:
        """Add to a counter."""
        with self._lock:
            before, end = self._rows.get(key, (0, expire_time))
            if key not in self._rows:
                self._rows = {name: row for name, row in self._rows.items() if row[1] >= now}
            self._rows[key] = (before + count, end)
            return before


class MongoQuotaWindows:
    """Counters in collection `quota_windows`, one small document per caller, quota and period."""

    def add(self, key: str, count: int, now: datetime, expire_time: datetime) -> int:
        """Add to a counter if nobody else did since it was read, else try again; the first clears away what is over.

        Raises:
            Unavailable: others were quicker each time.
        """
        for _ in range(TRIES):
            with records.driver_errors():
                row = self._rows().find_one({"_id": key})
            if row is None and self._begin(key, count, now, expire_time):
                return 0
            if row is not None and self._count(key, int(row["taken"]), count):
                return int(row["taken"])
        raise Unavailable("too many gateways ask for the same quota at once; try again")

    def _begin(self, key: str, count: int, now: datetime, expire_time: datetime) -> bool:
        try:
            with records.driver_errors():
                self._rows().insert_one({"_id": key, "taken": count, "expire_time": expire_time})
                self._rows().delete_many({"expire_time": {"$lt": now}})
        except AlreadyExists:
            return False
        return True

    def _count(self, key: str, before: int, count: int) -> bool:
        with records.driver_errors():
            changed = self._rows().update_one({"_id": key, "taken": before}, {"$inc": {"taken": count}})
        return changed.matched_count == 1

    def ensure_indexes(self) -> None:
        """Create the index by which old periods are found."""
        with records.driver_errors():
            self._rows().create_index("expire_time")

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["quota_windows"]
