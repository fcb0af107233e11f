"""The sessions of people; in memory and in MongoDB by the same promises. A session that is ended is gone."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Protocol

import pymongo

from services.access.domain.sessions import Session
from services.chassis import records


class Sessions(Protocol):
    """The sessions that have not ended."""

    def add(self, session: Session) -> None:
        """Begin one; those that are over by then are forgotten."""

    def get(self, session_id: str) -> Session | None:
        """Return one by id."""

    def prolong(self, session: Session) -> bool:
        """Write its later times, unless it was ended meanwhile; say whether it was there."""

    def of(self, principal_id: str, now: datetime) -> list[Session]:
        """Return a person's, the newest first."""

    def remove(self, principal_id: str, session_id: str = "") -> bool:
        """End one of a person's, or all; say whether there was any."""


class MemorySessions:
    """Sessions in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Session] = {}
        self._lock = threading.Lock()

    def add(self, session: Session) -> None:
        """Begin one."""
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if row.expire_time > session.create_time}
            self._rows[session.id] = session

    def get(self, session_id: str) -> Session | None:
        """Return one."""
        return self._rows.get(session_id)

    def prolong(self, session: Session) -> bool:
        """Write its later times."""
        with self._lock:
            there = session.id in self._rows
            if there:
                self._rows[session.id] = session
            return there

    def of(self, principal_id: str, now: datetime) -> list[Session]:
        """Return a person's."""
        found = [row for row in list(self._rows.values()) if row.principal_id == principal_id and row.expire_time > now]
        return sorted(found, key=lambda row: row.create_time, reverse=True)

    def remove(self, principal_id: str, session_id: str = "") -> bool:
        """End some."""
        with self._lock:
            gone = [k for k, row in self._rows.items() if row.principal_id == principal_id and session_id in ("", k)]
            for key in gone:
                del self._rows[key]
            return bool(gone)


class MongoSessions:
    """Sessions in collection `sessions`, one document each."""

    def add(self, session: Session) -> None:
        """Begin one."""
        row = {"_id": session.id, "principal_id": session.principal_id, "create_time": session.create_time}
        with records.driver_errors():
            self._rows().insert_one({**row, **_times(session)})
            self._rows().delete_many({"expire_time": {"$lte": session.create_time}})

    def get(self, session_id: str) -> Session | None:
        """Return one."""
        with records.driver_errors():
            row = next(iter(self._rows().find({"_id": str(session_id)}).limit(1)), None)
        return _session(row) if row else None

    def prolong(self, session: Session) -> bool:
        """Write its later times."""
        with records.driver_errors():
            done = self._rows().update_one({"_id": session.id}, {"$set": _times(session)})
        return bool(done.matched_count)

    def of(self, principal_id: str, now: datetime) -> list[Session]:
        """Return a person's."""
        with records.driver_errors():
            rows = list(self._rows().find({"principal_id": str(principal_id), "expire_time": {"$gt": now}}))
        return sorted(map(_session, rows), key=lambda row: row.create_time, reverse=True)

    def remove(self, principal_id: str, session_id: str = "") -> bool:
        """End some."""
        where = {"principal_id": str(principal_id)} | ({"_id": str(session_id)} if session_id else {})
        with records.driver_errors():
            return bool(self._rows().delete_many(where).deleted_count)

    def ensure_indexes(self) -> None:
        """Create the indexes of `of` and of what is forgotten."""
        with records.driver_errors():
            self._rows().create_index("principal_id")
            self._rows().create_index("expire_time")

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["sessions"]


def _times(session: Session) -> dict[str, object]:
    return {
        "methods": list(session.methods),
        "last_token_time": session.last_token_time,
        "expire_time": session.expire_time,
    }


def _session(row: dict[str, object]) -> Session:
    values = {name: row[name] for name in ("principal_id", "create_time", "last_token_time", "expire_time")}
    return Session(id=row["_id"], methods=tuple(row["methods"]), **values)  # type: ignore[arg-type]
