"""Where quality incidents are kept, with the facts about them: on MongoDB and in memory, same promises."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

import mongoengine

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.records import RECORD_INDEXES, Fact, Record
from services.profiles.domain.causes import Cause
from services.profiles.domain.incidents import Incident, Occurrence

OWN = ("id", "version", "create_time", "update_time")


class IncidentDocument(Record):
    """An incident; what it is listed by beside its content."""

    rule_id = mongoengine.StringField()
    department = mongoengine.StringField()
    state = mongoengine.StringField()
    content = mongoengine.DictField()

    meta: ClassVar[dict[str, object]] = {
        "db_alias": "profiles",
        "collection": "quality_incidents",
        "auto_create_index": False,
        "strict": False,
        "indexes": [*RECORD_INDEXES, ["department", "id"]],
    }


class Incidents(Protocol):
    """Incidents by id; every change is a compare-and-set on the version, and commits with its facts."""

    def get(self, incident_id: str) -> Incident | None:
        """Return one by id."""

    def write(self, incident: Incident, facts: Sequence[Fact]) -> Incident:
        """Insert (version 0) or replace it; AlreadyExists or Conflict when somebody else was faster."""

    def page(self, equal: Mapping[str, str], after: str, limit: int) -> list[Incident]:
        """Return those of a department, a state or a rule with a greater id than `after`, by id."""


class MongoIncidents:
    """Incidents in the service's own database."""

    def get(self, incident_id: str) -> Incident | None:
        """Return one by id."""
        with records.driver_errors():
            found = IncidentDocument._get_collection().find_one({"_id": incident_id})
        return _incident(found) if found else None

    def write(self, incident: Incident, facts: Sequence[Fact]) -> Incident:
        """Write it with its facts."""
        content = {name: value for name, value in asdict(incident).items() if name not in OWN}
        document = IncidentDocument(
            id=incident.id, version=incident.version, create_time=incident.create_time, rule_id=incident.rule_id,
            department=incident.department, state=incident.state, content=content,
        )  # fmt: skip
        if incident.version:
            records.replace(document, facts)
        else:
            records.insert(document, facts)
        return replace(
            incident, version=document.version, create_time=document.create_time, update_time=document.update_time
        )

    def page(self, equal: Mapping[str, str], after: str, limit: int) -> list[Incident]:
        """Return a page by id."""
        query = {**equal, "_id": {"$gt": after}}
        with records.driver_errors():
            found = IncidentDocument._get_collection().find(query).sort("_id", 1).limit(limit)
            return [_incident(item) for item in found]


def _incident(document: Mapping[str, Any]) -> Incident:
    content = dict(document["content"])
    occurrences = [_occurrence(item) for item in content.pop("occurrences")]
    times = {name: document[name] for name in OWN if name in document and name != "id"}
    return Incident(**{**content, **times, "id": str(document["_id"]), "occurrences": occurrences})


def _occurrence(plain: Mapping[str, Any]) -> Occurrence:
    return Occurrence(**{**plain, "causes": [Cause(**item) for item in plain["causes"]]})


class MemoryIncidents:
    """Incidents in memory, for tests; facts go to the list given."""

    def __init__(self, facts: list[Fact]) -> None:
        self._facts = facts
        self._items: dict[str, Incident] = {}
        self._lock = threading.Lock()

    def get(self, incident_id: str) -> Incident | None:
        """Return one by id."""
        return self._items.get(incident_id)

    def write(self, incident: Incident, facts: Sequence[Fact]) -> Incident:
        """Write it with its facts."""
        now = datetime.now(UTC)
        with self._lock:
            found = self._items.get(incident.id)
            if found is not None and not incident.version:
                raise AlreadyExists("a record with this name or key exists already")
            if (found.version if found else 0) != incident.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            stored = replace(
                incident, version=incident.version + 1, create_time=incident.create_time or now, update_time=now
            )
            self._items[incident.id] = stored
            self._facts.extend(facts)
        return stored

    def page(self, equal: Mapping[str, str], after: str, limit: int) -> list[Incident]:
        """Return a page by id."""
        with self._lock:
            found = [self._items[key] for key in sorted(self._items) if key > after]
        return [item for item in found if all(getattr(item, k) == v for k, v in equal.items())][:limit]
