"""Where operations are kept: in the service's own database, or in memory for tests; same promises."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from services.chassis import records
from services.chassis.errors import AlreadyExists

Document = dict[str, object]


class OperationStore(Protocol):
    """Where operations are kept."""

    def insert(self, document: Document) -> None:
        """Add a new one; AlreadyExists when the id is taken."""

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""

    def due(self, now: datetime, limit: int, kinds: Collection[str] | None = None) -> list[Document]:
        """Return unfinished ones whose wake_at has come: never taken, paused, or with an expired lease.

        What has waited longest comes first; of these kinds only, when they are named.
        """

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest, newest first."""

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields if the lease token is still this one; say whether it was."""

    def forget(self, before: datetime) -> int:
        """Remove those that ended before a time; return how many."""


class MongoOperations:
    """Operations in the service's own database."""

    def __init__(self, service: str) -> None:
        self._service = service

    def _collection(self) -> records.pymongo.collection.Collection:
        return records.database(self._service)["operations"]

    def ensure_indexes(self) -> None:
        """Create the indexes of due() and newest()."""
        with records.driver_errors():
            self._collection().create_index([("open", 1), ("wake_at", 1)])
            self._collection().create_index([("department", 1), ("create_time", -1)])

    def insert(self, document: Document) -> None:
        """Add a new one."""
        with records.driver_errors():
            self._collection().insert_one(dict(document))

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""
        with records.driver_errors():
            return self._collection().find_one({"_id": operation_id})

    def due(self, now: datetime, limit: int, kinds: Collection[str] | None = None) -> list[Document]:
        """Return what may be taken."""
        which = {} if kinds is None else {"kind": {"$in": list(kinds)}}
        with records.driver_errors():
            found = self._collection().find({"open": True, "wake_at": {"$lte": now}, **which})
            return list(found.sort([("wake_at", 1)]).limit(limit))

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest."""
        with records.driver_errors():
            found = self._collection().find({"department": department})
            return list(found.sort([("create_time", -1)]).limit(limit))

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields under the lease."""
        with records.driver_errors():
            result = self._collection().update_one({"_id": operation_id, "lease": lease}, {"$set": dict(changes)})
        return result.matched_count == 1

    def forget(self, before: datetime) -> int:
        """Remove what ended long ago."""
        ended = {"open": False, "wake_at": {"$lt": before}, "update_time": {"$lt": before}}  # the first two by an index
        with records.driver_errors():
            return int(self._collection().delete_many(ended).deleted_count)


class MemoryOperations:
    """Operations in memory, for tests; same promises."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._lock = threading.Lock()

    def insert(self, document: Document) -> None:
        """Add a new one."""
        with self._lock:
            if str(document["_id"]) in self._documents:
                raise AlreadyExists("an operation with this id exists already")
            self._documents[str(document["_id"])] = dict(document)

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""
        with self._lock:
            found = self._documents.get(operation_id)
            return dict(found) if found is not None else None

    def due(self, now: datetime, limit: int, kinds: Collection[str] | None = None) -> list[Document]:
        """Return what may be taken."""
        with self._lock:
            unfinished = [d for d in self._documents.values() if d["open"] and (kinds is None or d["kind"] in kinds)]
            found = [d for d in unfinished if d["wake_at"] <= now]  # type: ignore[operator]
            return [dict(d) for d in sorted(found, key=lambda d: str(d["wake_at"]))[:limit]]

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest."""
        with self._lock:
            found = [d for d in self._documents.values() if d["department"] == department]
            return [dict(d) for d in sorted(found, key=lambda d: str(d["create_time"]), reverse=True)[:limit]]

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields under the lease."""
        with self._lock:
            found = self._documents.get(operation_id)
            if found is None or found["lease"] != lease:
                return False
            found.update(changes)
            return True

    def forget(self, before: datetime) -> int:
        """Remove what ended long ago."""
        with self._lock:
            ended = [d for d in self._documents.values() if not d["open"]]
            gone = [d for d in ended if d["update_time"] < before]  # type: ignore[operator]
            for document in gone:
                del self._documents[str(document["_id"])]
            return len(gone)
