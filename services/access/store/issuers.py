"""Where company issuers are kept; in memory and in MongoDB by the same promises."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import mongoengine

from services.access.domain.errors import IssuerExists
from services.access.domain.issuers import DIRECTORY_CLAIM, Issuer, as_json, rules_of
from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict

TAKEN = "An issuer with this id or URL is there already."


class Issuers(Protocol):
    """Company issuers; no two have the same URL."""

    def insert(self, issuer: Issuer, request_id: str = "") -> Issuer:
        """Add one; IssuerExists when its id or URL is taken, unless by the same request: then that one."""

    def get(self, issuer_id: str) -> Issuer | None:
        """Return one by id."""

    def by_url(self, url: str) -> Issuer | None:
        """Return the one whose tokens carry this `iss`."""

    def save(self, issuer: Issuer) -> Issuer:
        """Write the state if nobody changed it since it was read, else Conflict."""

    def delete(self, issuer_id: str) -> bool:
        """Remove one; say whether it was there."""

    def all(self) -> list[Issuer]:
        """Return all by id: a handful."""


class MemoryIssuers:
    """Issuers in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Issuer] = {}
        self._requests: dict[str, str] = {}
        self._lock = threading.Lock()

    def insert(self, issuer: Issuer, request_id: str = "") -> Issuer:
        """Add one."""
        with self._lock:
            if issuer.id in self._rows and request_id and self._requests.get(issuer.id) == request_id:
                return self._rows[issuer.id]
            if issuer.id in self._rows or any(row.url == issuer.url for row in self._rows.values()):
                raise IssuerExists(TAKEN)
            now = datetime.now(UTC)
            self._rows[issuer.id] = replace(issuer, version=1, create_time=now, update_time=now)
            self._requests[issuer.id] = request_id
            return self._rows[issuer.id]

    def get(self, issuer_id: str) -> Issuer | None:
        """Return one by id."""
        return self._rows.get(issuer_id)

    def by_url(self, url: str) -> Issuer | None:
        """Return one by URL."""
        return next((row for row in list(self._rows.values()) if row.url == url), None)

    def save(self, issuer: Issuer) -> Issuer:
        """Write the state if nobody changed it."""
        with self._lock:
            known = self._rows.get(issuer.id)
            if known is None or known.version != issuer.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._rows[issuer.id] = replace(issuer, version=issuer.version + 1, update_time=datetime.now(UTC))
            return self._rows[issuer.id]

    def delete(self, issuer_id: str) -> bool:
        """Remove one."""
        with self._lock:
            return self._rows.pop(issuer_id, None) is not None

    def all(self) -> list[Issuer]:
        """Return all."""
        return sorted(self._rows.values(), key=lambda row: row.id)


class IssuerRecord(records.Record):
    """A company issuer."""

    url = mongoengine.StringField()
    audiences = mongoengine.ListField(mongoengine.StringField())
    login_claim = mongoengine.StringField()
    rules = mongoengine.StringField()
    provision = mongoengine.BooleanField()
    scim_client = mongoengine.StringField()
    disabled = mongoengine.BooleanField()
    directory_claim = mongoengine.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "issuers", "auto_create_index": False, "strict": False,
        "indexes": [*records.RECORD_INDEXES, {"fields": ["url"], "unique": True}],
    }  # fmt: skip


class MongoIssuers:
    """Issuers in collection `issuers`; a unique index keeps URLs apart."""

    def insert(self, issuer: Issuer, request_id: str = "") -> Issuer:
        """Add one."""
        record = _record(issuer)
        try:
            records.insert(record, request_id=request_id)
        except AlreadyExists as error:
            known = self._find(id=issuer.id)
            if known is not None and request_id and request_id in known.request_ids:
                return _issuer(known)
            raise IssuerExists(TAKEN) from error
        return _issuer(record)

    def get(self, issuer_id: str) -> Issuer | None:
        """Return one by id."""
        found = self._find(id=issuer_id)
        return _issuer(found) if found else None

    def by_url(self, url: str) -> Issuer | None:
        """Return one by URL."""
        found = self._find(url=url)
        return _issuer(found) if found else None

    def save(self, issuer: Issuer) -> Issuer:
        """Write the state if nobody changed it."""
        record = _record(issuer)
        records.replace(record)
        return _issuer(record)

    def delete(self, issuer_id: str) -> bool:
        """Remove one."""
        with records.driver_errors():
            return bool(IssuerRecord.objects(id=issuer_id).delete())

    def all(self) -> list[Issuer]:
        """Return all."""
        with records.driver_errors():
            return [_issuer(found) for found in IssuerRecord.objects(id__gt="").order_by("id")]

    def _find(self, **where: str) -> IssuerRecord | None:
        with records.driver_errors():
            return next(iter(IssuerRecord.objects(**where).limit(1)), None)


def _record(issuer: Issuer) -> IssuerRecord:
    return IssuerRecord(
        id=issuer.id, url=issuer.url, audiences=list(issuer.audiences), login_claim=issuer.login_claim,
        rules=as_json(issuer.rules), provision=issuer.provision, scim_client=issuer.scim_client,
        disabled=issuer.disabled, directory_claim=issuer.directory_claim, version=issuer.version,
        create_time=issuer.create_time, update_time=issuer.update_time,
    )  # fmt: skip


def _issuer(record: IssuerRecord) -> Issuer:
    return Issuer(
        record.id, record.url, tuple(record.audiences), record.login_claim, rules_of(record.rules),
        bool(record.provision), record.scim_client or "", bool(record.disabled),
        record.directory_claim or DIRECTORY_CLAIM, record.version, record.create_time, record.update_time,
    )  # fmt: skip
