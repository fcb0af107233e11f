"""Where shares are kept; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import mongoengine
from mongoengine import Q

from services.access.domain.shares import LENT, Lent
from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.paging import Seen

IDS_PER_QUERY = 32  # the embedded server compares each document found with each key asked for


class ShareStore(Protocol):
    """Shares; they stay: who had which record when is asked years later."""

    def insert(self, share: Lent) -> Lent:
        """Add one; when its id is taken return the one that is there."""

    def get(self, share_id: str) -> Lent | None:
        """Return one."""

    def save(self, share: Lent) -> Lent:
        """Write a new state if nobody changed it, else Conflict."""

    def page(
        self, lender: str, borrowers: Collection[str], department: str, before: Seen | None, limit: int
    ) -> list[Lent]:
        """Return up to `limit` of a lender, of borrowers, or of a lender's department (any when all are empty).

        Newest first; `before` is time and id of the last one seen.
        """

    def counts(self, borrower: str, lender: str, now: datetime) -> tuple[int, int, int]:
        """Return how many a borrower has in force, how many a lender gave, and how many there are in all."""

    def of_records(self, record_ids: Collection[str]) -> list[Lent]:
        """Return those not closed whose record has one of these ids, or had it when it was lent."""

    def in_force(self, now: datetime) -> list[Lent]:
        """Return those that count now, in no order."""

    def changed_since(self, when: datetime) -> list[Lent]:
        """Return all changed at or after a time, in no order."""


class MemoryShares:
    """In a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Lent] = {}
        self._lock = threading.Lock()

    def insert(self, share: Lent) -> Lent:
        """Add one."""
        with self._lock:
            return self._rows.setdefault(share.id, replace(share, version=1, update_time=datetime.now(UTC)))

    def get(self, share_id: str) -> Lent | None:
        """Return one."""
        return self._rows.get(share_id)

    def save(self, share: Lent) -> Lent:
        """Write a state."""
        with self._lock:
            known = self._rows.get(share.id)
            if known is None or known.version != share.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._rows[share.id] = replace(share, version=share.version + 1, update_time=datetime.now(UTC))
            return self._rows[share.id]

    def page(
        self, lender: str, borrowers: Collection[str], department: str, before: Seen | None, limit: int
    ) -> list[Lent]:
        """Return a page."""
        rows = [
            row
            for row in list(self._rows.values())
            if not (lender or borrowers or department)
            or (lender and row.lender == lender)
            or row.borrower in borrowers
            or (department and row.department == department)
        ]
        rows = [row for row in rows if before is None or (row.create_time, row.id) < before]
        return sorted(rows, key=lambda row: (row.create_time, row.id), reverse=True)[:limit]

    def counts(self, borrower: str, lender: str, now: datetime) -> tuple[int, int, int]:
        """Return the counts."""
        live = self.in_force(now)
        return sum(row.borrower == borrower for row in live), sum(row.lender == lender for row in live), len(live)

    def of_records(self, record_ids: Collection[str]) -> list[Lent]:
        """Return those of records."""
        wanted = set(record_ids)
        rows = [row for row in list(self._rows.values()) if row.state == LENT and {row.record_id, row.lent_id} & wanted]
        return sorted(rows, key=lambda row: row.id)

    def in_force(self, now: datetime) -> list[Lent]:
        """Return those that count."""
        return [row for row in list(self._rows.values()) if row.is_in_force(now)]

    def changed_since(self, when: datetime) -> list[Lent]:
        """Return the changed ones."""
        return [row for row in list(self._rows.values()) if row.update_time is not None and row.update_time >= when]


class ShareRecord(records.Record):
    """A share."""

    resource = mongoengine.StringField()
    record_id = mongoengine.StringField()
    lent_id = mongoengine.StringField()
    borrower = mongoengine.StringField()
    purpose = mongoengine.StringField()
    reason = mongoengine.StringField()
    lender = mongoengine.StringField()
    department = mongoengine.StringField()
    lender_purpose = mongoengine.StringField()
    end_time = mongoengine.DateTimeField()
    state = mongoengine.StringField()
    closer = mongoengine.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "shares", "auto_create_index": False, "strict": False,
        "indexes": [
            *records.RECORD_INDEXES, "update_time", "record_id", "lent_id", ("state", "end_time"),
            ("lender", "-create_time"), ("borrower", "-create_time"), ("department", "-create_time"),
            ("-create_time", "-_id"),
        ],
    }  # fmt: skip


class MongoShares:
    """Records in collection `shares`."""

    def insert(self, share: Lent) -> Lent:
        """Add one."""
        record = ShareRecord(**asdict(share))
        try:
            records.insert(record)
        except AlreadyExists:
            known = self.get(share.id)
            if known is None:
                raise
            return known
        return _share(record)

    def get(self, share_id: str) -> Lent | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(ShareRecord.objects(id=str(share_id)).limit(1)), None)
        return _share(record) if record else None

    def save(self, share: Lent) -> Lent:
        """Write a state."""
        record = ShareRecord(**asdict(share))
        records.replace(record)
        return _share(record)

    def page(
        self, lender: str, borrowers: Collection[str], department: str, before: Seen | None, limit: int
    ) -> list[Lent]:
        """Return a page."""
        found = ShareRecord.objects(id__gt="")
        if lender or borrowers or department:
            whose = Q(lender=lender or None) | Q(department=department or None) | Q(borrower__in=list(borrowers))
            found = found.filter(whose)
        found = found.filter(records.before_seen("create_time", before))
        with records.driver_errors():
            return [_share(record) for record in found.order_by("-create_time", "-id").limit(limit)]

    def counts(self, borrower: str, lender: str, now: datetime) -> tuple[int, int, int]:
        """Return the counts."""
        with records.driver_errors():
            live = ShareRecord.objects(state=LENT, end_time__gt=now)
            of_borrower, of_lender = live.filter(borrower=str(borrower)), live.filter(lender=str(lender))
            return of_borrower.count(), of_lender.count(), live.count()

    def of_records(self, record_ids: Collection[str]) -> list[Lent]:
        """Return those of records."""
        wanted = sorted(map(str, record_ids))
        found: dict[str, Lent] = {}
        for start in range(0, len(wanted), IDS_PER_QUERY):
            ids = wanted[start : start + IDS_PER_QUERY]
            for where in ({"record_id__in": ids}, {"lent_id__in": ids}):
                with records.driver_errors():
                    found |= {record.id: _share(record) for record in ShareRecord.objects(state=LENT, **where)}
        return [found[key] for key in sorted(found)]

    def in_force(self, now: datetime) -> list[Lent]:
        """Return those that count."""
        with records.driver_errors():
            return [_share(record) for record in ShareRecord.objects(state=LENT, end_time__gt=now)]

    def changed_since(self, when: datetime) -> list[Lent]:
        """Return the changed ones."""
        with records.driver_errors():
            return [_share(record) for record in ShareRecord.objects(update_time__gte=when)]


def _share(record: ShareRecord) -> Lent:
    values = {name: getattr(record, name) for name in Lent.__slots__}
    return Lent(**{**values, "closer": record.closer or "", "lender_purpose": record.lender_purpose or ""})
