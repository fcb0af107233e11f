"""Alerts with their facts, versions of rules, and how far the trail was watched; in memory and in MongoDB."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol

import mongoengine
import pymongo
from kehu.access.v1 import events_pb2

from services.access.domain.anomalies import DEFAULTS, Alert, Rule
from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.paging import Seen


class Alerts(Protocol):
    """What watching the trail needs."""

    def add(self, alert: Alert) -> bool:
        """Add an alert with its fact; False when it is there."""

    def get(self, alert_id: str) -> Alert | None:
        """Return one."""

    def save(self, alert: Alert) -> Alert:
        """Write a new state with its fact if nobody changed it, else Conflict."""

    def page(self, state: str, before: Seen | None, limit: int) -> list[Alert]:
        """Return up to `limit` of a state, or of all, the newest first; `before` is the last one seen."""

    def rules(self) -> list[Rule]:
        """Return the newest version of each rule, by id."""

    def revise(self, rule: Rule) -> None:
        """Add a version; AlreadyExists when it is taken."""

    def cursor(self) -> datetime | None:
        """Return up to when the trail was watched."""

    def advance(self, was: datetime | None, to: datetime) -> None:
        """Note up to when the trail was watched, unless somebody else did."""


def _newest(rows: list[Rule]) -> list[Rule]:
    found: dict[str, Rule] = {rule.id: replace(rule, version=0) for rule in DEFAULTS}
    for rule in rows:
        found[rule.id] = max(found.get(rule.id, rule), rule, key=lambda one: one.version)
    return [found[id] for id in sorted(found)]


class MemoryAlerts:
    """In dicts."""

    def __init__(self) -> None:
        self._rows: dict[str, Alert] = {}
        self._rules: dict[tuple[str, int], Rule] = {}
        self._cursor: datetime | None = None
        self._lock = threading.Lock()

    def add(self, alert: Alert) -> bool:
        """Add one."""
        with self._lock:
            if alert.id in self._rows:
                return False
            self._rows[alert.id] = replace(alert, version=1)
            return True

    def get(self, alert_id: str) -> Alert | None:
        """Return one."""
        return self._rows.get(alert_id)

    def save(self, alert: Alert) -> Alert:
        """Write a state."""
        with self._lock:
            if self._rows[alert.id].version != alert.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._rows[alert.id] = replace(alert, version=alert.version + 1)
            return self._rows[alert.id]

    def page(self, state: str, before: Seen | None, limit: int) -> list[Alert]:
        """Return a page."""
        rows = [alert for alert in self._rows.values() if state in ("", alert.state)]
        rows = [alert for alert in rows if before is None or (alert.time, alert.id) < before]
        return sorted(rows, key=lambda alert: (alert.time, alert.id), reverse=True)[:limit]

    def rules(self) -> list[Rule]:
        """Return rules."""
        return _newest(list(self._rules.values()))

    def revise(self, rule: Rule) -> None:
        """Add a version."""
        with self._lock:
            if (rule.id, rule.version) in self._rules:
                raise AlreadyExists("a record with this name or key exists already")
            self._rules[rule.id, rule.version] = rule

    def cursor(self) -> datetime | None:
        """Return the cursor."""
        return self._cursor

    def advance(self, was: datetime | None, to: datetime) -> None:
        """Move the cursor."""
        with self._lock:
            if self._cursor == was:
                self._cursor = to


class AlertRecord(records.Record):
    """An alert."""

    rule = mongoengine.StringField()
    rule_version = mongoengine.IntField()
    subject = mongoengine.StringField()
    department = mongoengine.StringField()
    time = mongoengine.DateTimeField()
    count = mongoengine.IntField()
    detail = mongoengine.StringField()
    examples = mongoengine.ListField(mongoengine.StringField())
    state = mongoengine.StringField()
    assignee = mongoengine.StringField()
    finding = mongoengine.StringField()
    comment = mongoengine.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "audit_alerts", "auto_create_index": False, "strict": False,
        "indexes": [*records.RECORD_INDEXES, ("-time", "-_id"), ("state", "-time", "-_id")],
    }  # fmt: skip


class MongoAlerts:
    """Alerts are records; versions of rules are inserted only."""

    def add(self, alert: Alert) -> bool:
        """Add one."""
        try:
            records.insert(_record(alert), [_fact(alert, 1)])
        except AlreadyExists:
            return False
        return True

    def get(self, alert_id: str) -> Alert | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(AlertRecord.objects(id=str(alert_id)).limit(1)), None)
        return _alert(record) if record else None

    def save(self, alert: Alert) -> Alert:
        """Write a state."""
        record = _record(alert)
        records.replace(record, [_fact(alert, alert.version + 1)])
        return _alert(record)

    def page(self, state: str, before: Seen | None, limit: int) -> list[Alert]:
        """Return a page."""
        found = AlertRecord.objects(records.before_seen("time", before))
        if state:
            found = found.filter(state=state)
        with records.driver_errors():
            return [_alert(record) for record in found.order_by("-time", "-id").limit(limit)]

    def rules(self) -> list[Rule]:
        """Return rules; they are few."""
        with records.driver_errors():
            rows = list(self._rows("audit_rules").find({}))
        return _newest([Rule(**{**row["rule"], "groups": tuple(row["rule"]["groups"])}) for row in rows])

    def revise(self, rule: Rule) -> None:
        """Add a version."""
        with records.driver_errors():
            self._rows("audit_rules").insert_one({"_id": f"{rule.id}:{rule.version}", "rule": asdict(rule)})

    def cursor(self) -> datetime | None:
        """Return the cursor."""
        with records.driver_errors():
            row = self._rows("audit_watch").find_one({"_id": "cursor"})
        return row["at"] if row else None

    def advance(self, was: datetime | None, to: datetime) -> None:
        """Move the cursor."""
        rows = self._rows("audit_watch")
        try:
            with records.driver_errors():
                if was is None:
                    rows.insert_one({"_id": "cursor", "at": to})
                else:
                    rows.update_one({"_id": "cursor", "at": was}, {"$set": {"at": to}})
        except AlreadyExists:
            return

    def _rows(self, name: str) -> pymongo.collection.Collection[dict[str, Any]]:
        return records.database("access")[name]


def _record(alert: Alert) -> AlertRecord:
    return AlertRecord(**asdict(alert))


def _alert(record: AlertRecord) -> Alert:
    values = {name: getattr(record, name) for name in Alert.__slots__}
    return Alert(**{**values, "examples": tuple(record.examples)})


def _fact(alert: Alert, version: int) -> records.Fact:
    message = events_pb2.AuditAlertChanged(
        alert_id=alert.id, version=version, rule_id=alert.rule, subject=alert.subject, state=alert.state,
        finding=alert.finding,
    )  # fmt: skip
    message.event_time.GetCurrentTime()
    return records.Fact(message, f"auditAlerts/{alert.id}", version)
