"""Where access requests are kept, with their facts; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import mongoengine
from kehu.access.v1 import events_pb2
from mongoengine import Q

from services.access.domain.requests import GRANTED, AccessRequest
from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.paging import Seen


class Requests(Protocol):
    """Access requests; they stay: who had which role when is asked years later."""

    def insert(self, request: AccessRequest) -> AccessRequest:
        """Add one; when its id is taken return the one that is there."""

    def get(self, request_id: str) -> AccessRequest | None:
        """Return one."""

    def save(self, request: AccessRequest) -> AccessRequest:
        """Write a new state with its fact if nobody changed it, else Conflict."""

    def page(self, subject: str, department: str, before: Seen | None, limit: int) -> list[AccessRequest]:
        """Return up to `limit` of a subject or of a department (either when both, all when none), newest first.

        `before` is time and id of the last one seen.
        """

    def lent(self, now: datetime) -> list[AccessRequest]:
        """Return the granted ones whose end lies ahead, by id."""

    def emergencies(self, subject: str) -> list[AccessRequest]:
        """Return the broken glasses of a person that nobody reviewed."""


class MemoryRequests:
    """In a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, AccessRequest] = {}
        self._lock = threading.Lock()

    def insert(self, request: AccessRequest) -> AccessRequest:
        """Add one."""
        with self._lock:
            new = replace(request, version=1, update_time=datetime.now(UTC))
            return self._rows.setdefault(request.id, new)

    def get(self, request_id: str) -> AccessRequest | None:
        """Return one."""
        return self._rows.get(request_id)

    def save(self, request: AccessRequest) -> AccessRequest:
        """Write a state."""
        with self._lock:
            known = self._rows.get(request.id)
            if known is None or known.version != request.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._rows[request.id] = replace(request, version=request.version + 1, update_time=datetime.now(UTC))
            return self._rows[request.id]

    def page(self, subject: str, department: str, before: Seen | None, limit: int) -> list[AccessRequest]:
        """Return a page."""
        rows = [
            row
            for row in list(self._rows.values())
            if (not subject and not department) or row.subject == subject or row.department == department
        ]
        rows = [row for row in rows if before is None or (row.create_time, row.id) < before]
        return sorted(rows, key=lambda row: (row.create_time, row.id), reverse=True)[:limit]

    def lent(self, now: datetime) -> list[AccessRequest]:
        """Return those in force."""
        rows = [row for row in list(self._rows.values()) if row.state == GRANTED and row.end_time > now]
        return sorted(rows, key=lambda row: row.id)

    def emergencies(self, subject: str) -> list[AccessRequest]:
        """Return the unreviewed."""
        rows = list(self._rows.values())
        return [row for row in rows if row.subject == subject and row.emergency and not row.finding]


class AccessRequestRecord(records.Record):
    """An access request."""

    subject = mongoengine.StringField()
    department = mongoengine.StringField()
    role = mongoengine.StringField()
    purpose = mongoengine.StringField()
    reason = mongoengine.StringField()
    end_time = mongoengine.DateTimeField()
    state = mongoengine.StringField()
    emergency = mongoengine.BooleanField()
    sensitive = mongoengine.BooleanField()
    renews = mongoengine.StringField()
    approver = mongoengine.StringField()
    countersigner = mongoengine.StringField()
    closer = mongoengine.StringField()
    comment = mongoengine.StringField()
    finding = mongoengine.StringField()
    reminded = mongoengine.BooleanField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "access_requests", "auto_create_index": False, "strict": False,
        "indexes": [
            *records.RECORD_INDEXES, ("state", "end_time"), ("subject", "-create_time"), ("department", "-create_time"),
            ("-create_time", "-_id"),
        ],
    }  # fmt: skip


class MongoRequests:
    """Records in collection `access_requests`."""

    def insert(self, request: AccessRequest) -> AccessRequest:
        """Add one."""
        record = _record(request)
        try:
            records.insert(record, [_fact(request, 1)])
        except AlreadyExists:
            known = self.get(request.id)
            if known is None:
                raise
            return known
        return _request(record)

    def get(self, request_id: str) -> AccessRequest | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(AccessRequestRecord.objects(id=str(request_id)).limit(1)), None)
        return _request(record) if record else None

    def save(self, request: AccessRequest) -> AccessRequest:
        """Write a state."""
        record, known = _record(request), self.get(request.id)
        reminder = known is not None and request.reminded and not known.reminded
        records.replace(record, [_fact(request, request.version + 1, reminder)])
        return _request(record)

    def page(self, subject: str, department: str, before: Seen | None, limit: int) -> list[AccessRequest]:
        """Return a page."""
        found = AccessRequestRecord.objects(id__gt="")
        if subject or department:
            found = found.filter(Q(subject=subject or None) | Q(department=department or None))
        found = found.filter(records.before_seen("create_time", before))
        with records.driver_errors():
            return [_request(record) for record in found.order_by("-create_time", "-id").limit(limit)]

    def lent(self, now: datetime) -> list[AccessRequest]:
        """Return those in force."""
        with records.driver_errors():
            found = AccessRequestRecord.objects(state=GRANTED, end_time__gt=now)
            return sorted((_request(record) for record in found), key=lambda row: row.id)

    def emergencies(self, subject: str) -> list[AccessRequest]:
        """Return the unreviewed."""
        with records.driver_errors():
            found = AccessRequestRecord.objects(subject=str(subject), emergency=True, finding="")
            return [_request(record) for record in found]


def _record(request: AccessRequest) -> AccessRequestRecord:
    return AccessRequestRecord(**asdict(request))


def _request(record: AccessRequestRecord) -> AccessRequest:
    values = {name: getattr(record, name) for name in AccessRequest.__slots__}
    texts = {name: value or "" for name, value in values.items() if name in _TEXTS}
    return AccessRequest(**{**values, **texts})


_TEXTS = ("renews", "approver", "countersigner", "closer", "comment", "finding")


def _fact(request: AccessRequest, version: int, reminder: bool = False) -> records.Fact:
    message = events_pb2.AccessRequestChanged(
        access_request_id=request.id, version=version, subject=request.subject, department=request.department,
        role=request.role, state=request.state, emergency=request.emergency, reminder=reminder,
    )  # fmt: skip
    message.event_time.GetCurrentTime()
    message.end_time.FromDatetime(request.end_time)
    return records.Fact(message, f"accessRequests/{request.id}", version)
