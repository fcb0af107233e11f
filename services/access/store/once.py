"""What was used when, and what may be used once; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import hashlib
import threading
from datetime import datetime
from typing import Protocol

import pymongo

from services.chassis import records
from services.chassis.errors import AlreadyExists


class Uses(Protocol):
    """When each credential of a principal last got it a token."""

    def note(self, principal_id: str, credential_id: str, time: datetime) -> None:
        """Write a use down; of several the latest counts."""

    def of(self, principal_id: str) -> dict[str, datetime]:
        """Return the last use by credential id."""


class Once(Protocol):
    """Ids that are good once, in all processes together."""

    def spend(self, id: str, now: datetime, expire_time: datetime) -> bool:
        """Say whether nobody spent the id before; it is remembered until it could not be used anyway."""


class MemoryUses:
    """Uses in a dict."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], datetime] = {}

    def note(self, principal_id: str, credential_id: str, time: datetime) -> None:
        """Write a use down."""
        key = (principal_id, credential_id)
        self._rows[key] = max(time, self._rows.get(key, time))

    def of(self, principal_id: str) -> dict[str, datetime]:
        """Return the last uses."""
        return {credential: time for (owner, credential), time in list(self._rows.items()) if owner == principal_id}


class MongoUses:
    """Uses in collection `credential_uses`, one small document per credential."""

    def note(self, principal_id: str, credential_id: str, time: datetime) -> None:
        """Write a use down."""
        with records.driver_errors():
            self._rows().update_one(
                {"_id": f"{principal_id}/{credential_id}"},
                {"$max": {"time": time}, "$setOnInsert": {"principal_id": principal_id}},
                upsert=True,
            )

    def of(self, principal_id: str) -> dict[str, datetime]:
        """Return the last uses."""
        with records.driver_errors():
            found = list(self._rows().find({"principal_id": principal_id}))
        return {row["_id"].rpartition("/")[2]: row["time"] for row in found}

    def ensure_indexes(self) -> None:
        """Create the index of `of`."""
        with records.driver_errors():
            self._rows().create_index("principal_id")

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["credential_uses"]


class MemoryOnce:
    """Spent ids in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def spend(self, id: str, now: datetime, expire_time: datetime) -> bool:
        """Spend an id."""
        with self._lock:
            self._rows = {key: end for key, end in self._rows.items() if end > now}
            return self._rows.setdefault(id, expire_time) is expire_time


class MongoOnce:
    """Spent ids in collection `spent`, by their hash; the insert decides between processes."""

    def spend(self, id: str, now: datetime, expire_time: datetime) -> bool:
        """Spend an id."""
        try:
            with records.driver_errors():
                self._rows().insert_one({"_id": hashlib.sha256(id.encode()).hexdigest(), "expire_time": expire_time})
        except AlreadyExists:
            return False
        with records.driver_errors():
            self._rows().delete_many({"expire_time": {"$lt": now}})
        return True

    def ensure_indexes(self) -> None:
        """Create the index by which old ids are found."""
        with records.driver_errors():
            self._rows().create_index("expire_time")

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["spent"]
