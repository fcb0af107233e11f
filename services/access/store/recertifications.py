"""Where recertifications are kept, with their facts; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import mongoengine
from kehu.access.v1 import events_pb2

from services.access.domain.recertification import CLOSED, Grant, Recertification
from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.paging import Seen


class Recertifications(Protocol):
    """Reviews and the roles they are about; they stay: who confirmed what is asked years later."""

    def add(self, review: Recertification) -> Recertification:
        """Begin one; when its id is taken return the one that is there."""

    def get(self, review_id: str) -> Recertification | None:
        """Return one."""

    def save(self, review: Recertification, open_grants: int = 0, reminder: bool = False) -> Recertification:
        """Write a new state with its fact if nobody changed it, else Conflict."""

    def unfinished(self) -> list[Recertification]:
        """Return those that are not closed, by id."""

    def page(self, department: str, before: Seen | None, limit: int) -> list[Recertification]:
        """Return up to `limit` of a department, or of all when it is empty, the newest first."""

    def add_grants(self, grants: Iterable[Grant]) -> None:
        """Add those that are not there yet."""

    def grant(self, grant_id: str) -> Grant | None:
        """Return one."""

    def save_grant(self, grant: Grant) -> Grant:
        """Write a new state if nobody changed it, else Conflict."""

    def grants(self, review_id: str, state: str, after: str, limit: int) -> list[Grant]:
        """Return up to `limit` of a review by id, those after an id; only of a state unless it is empty."""


class MemoryRecertifications:
    """In dicts."""

    def __init__(self) -> None:
        self._reviews: dict[str, Recertification] = {}
        self._grants: dict[str, Grant] = {}
        self._lock = threading.Lock()

    def add(self, review: Recertification) -> Recertification:
        """Begin one."""
        with self._lock:
            return self._reviews.setdefault(review.id, replace(review, version=1))

    def get(self, review_id: str) -> Recertification | None:
        """Return one."""
        return self._reviews.get(review_id)

    def save(self, review: Recertification, open_grants: int = 0, reminder: bool = False) -> Recertification:
        """Write a state."""
        with self._lock:
            _same(self._reviews.get(review.id), review.version)
            self._reviews[review.id] = replace(review, version=review.version + 1)
            return self._reviews[review.id]

    def unfinished(self) -> list[Recertification]:
        """Return the unfinished."""
        return [self._reviews[key] for key in sorted(self._reviews) if self._reviews[key].state != CLOSED]

    def page(self, department: str, before: Seen | None, limit: int) -> list[Recertification]:
        """Return a page."""
        rows = [row for row in list(self._reviews.values()) if department in ("", row.department)]
        rows = [row for row in rows if before is None or (row.start_time, row.id) < before]
        return sorted(rows, key=lambda row: (row.start_time, row.id), reverse=True)[:limit]

    def add_grants(self, grants: Iterable[Grant]) -> None:
        """Add grants."""
        with self._lock:
            for grant in grants:
                self._grants.setdefault(grant.id, replace(grant, version=1))

    def grant(self, grant_id: str) -> Grant | None:
        """Return one."""
        return self._grants.get(grant_id)

    def save_grant(self, grant: Grant) -> Grant:
        """Write a state."""
        with self._lock:
            _same(self._grants.get(grant.id), grant.version)
            self._grants[grant.id] = replace(grant, version=grant.version + 1)
            return self._grants[grant.id]

    def grants(self, review_id: str, state: str, after: str, limit: int) -> list[Grant]:
        """Return grants."""
        rows = [row for row in list(self._grants.values()) if row.recertification_id == review_id and row.id > after]
        return sorted((row for row in rows if state in ("", row.state)), key=lambda row: row.id)[:limit]


def _same(known: Recertification | Grant | None, version: int) -> None:
    if known is None or known.version != version:
        raise Conflict("the record was changed meanwhile; read it again and repeat")


class RecertificationRecord(records.Record):
    """A review of a department."""

    department = mongoengine.StringField()
    start_time = mongoengine.DateTimeField()
    due_time = mongoengine.DateTimeField()
    state = mongoengine.StringField()
    escalated = mongoengine.BooleanField()
    reminders = mongoengine.IntField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "recertifications", "auto_create_index": False, "strict": False,
        "indexes": [*records.RECORD_INDEXES, "state", ("department", "-start_time"), ("-start_time", "-_id")],
    }  # fmt: skip


class GrantRecord(records.Record):
    """A role in a review."""

    recertification_id = mongoengine.StringField()
    subject = mongoengine.StringField()
    department = mongoengine.StringField()
    role = mongoengine.StringField()
    of_policy = mongoengine.BooleanField()
    state = mongoengine.StringField()
    answerer = mongoengine.StringField()
    comment = mongoengine.StringField()
    answer_time = mongoengine.DateTimeField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "recertification_grants", "auto_create_index": False, "strict": False,
        "indexes": [*records.RECORD_INDEXES, ("recertification_id", "_id"), ("recertification_id", "state", "_id")],
    }  # fmt: skip


class MongoRecertifications:
    """Records in two collections."""

    def add(self, review: Recertification) -> Recertification:
        """Begin one."""
        with suppress(AlreadyExists):
            records.insert(RecertificationRecord(**asdict(review)))
        found = self.get(review.id)
        if found is None:
            raise Conflict("the review is gone")
        return found

    def get(self, review_id: str) -> Recertification | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(RecertificationRecord.objects(id=str(review_id)).limit(1)), None)
        return _review(record) if record else None

    def save(self, review: Recertification, open_grants: int = 0, reminder: bool = False) -> Recertification:
        """Write a state."""
        record = RecertificationRecord(**asdict(review))
        records.replace(record, [_fact(review, open_grants, reminder)])
        return _review(record)

    def unfinished(self) -> list[Recertification]:
        """Return the unfinished."""
        with records.driver_errors():
            found = [_review(record) for record in RecertificationRecord.objects(state__in=["opening", "open"])]
        return sorted(found, key=lambda row: row.id)

    def page(self, department: str, before: Seen | None, limit: int) -> list[Recertification]:
        """Return a page."""
        found = RecertificationRecord.objects(id__gt="")
        if department:
            found = found.filter(department=department)
        found = found.filter(records.before_seen("start_time", before))
        with records.driver_errors():
            return [_review(record) for record in found.order_by("-start_time", "-id").limit(limit)]

    def add_grants(self, grants: Iterable[Grant]) -> None:
        """Add grants."""
        for grant in grants:
            with suppress(AlreadyExists):
                records.insert(GrantRecord(**asdict(grant)))

    def grant(self, grant_id: str) -> Grant | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(GrantRecord.objects(id=str(grant_id)).limit(1)), None)
        return _grant(record) if record else None

    def save_grant(self, grant: Grant) -> Grant:
        """Write a state."""
        record = GrantRecord(**asdict(grant))
        records.replace(record)
        return _grant(record)

    def grants(self, review_id: str, state: str, after: str, limit: int) -> list[Grant]:
        """Return grants."""
        found = GrantRecord.objects(recertification_id=str(review_id), id__gt=after)
        if state:
            found = found.filter(state=state)
        with records.driver_errors():
            return [_grant(record) for record in found.order_by("id").limit(limit)]


RECORDS: tuple[type[records.Record], ...] = (RecertificationRecord, GrantRecord)


def _review(record: RecertificationRecord) -> Recertification:
    return Recertification(**{name: getattr(record, name) for name in Recertification.__slots__})


def _grant(record: GrantRecord) -> Grant:
    values = {name: getattr(record, name) for name in Grant.__slots__}
    return Grant(**{**values, "answerer": values["answerer"] or "", "comment": values["comment"] or ""})


def _fact(review: Recertification, open_grants: int, reminder: bool) -> records.Fact:
    version = review.version + 1
    message = events_pb2.RecertificationChanged(
        recertification_id=review.id, version=version, department=review.department, state=review.state,
        escalated=review.escalated, reminder=reminder, open_grants=open_grants, event_time=datetime.now(UTC),
    )  # fmt: skip
    message.due_time.FromDatetime(review.due_time)
    return records.Fact(message, f"recertifications/{review.id}", version)
