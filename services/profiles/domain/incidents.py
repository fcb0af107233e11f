"""A quality incident: opened, kept up to date and closed by measurements alone; a person only says who works on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.profiles.domain.causes import Cause

FOUND, FIXING, VERIFIED = "found", "fixing", "verified"
OPEN = frozenset((FOUND, FIXING))
OCCURRENCES_KEPT = 50
SEVERITIES = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a measurement says of one rule in one department; `start_time` is when the measurement began."""

    failing: bool
    passed: int
    measured: int
    start_time: datetime
    operation: str
    causes: Sequence[Cause] = ()
    samples: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that the rule failed, from found to verified; `causes` and `samples` are those of the last failure."""

    found_time: datetime
    due_time: datetime
    passed: int
    measured: int
    found_by: str
    acknowledged_time: datetime | None = None
    acknowledged_by: str = ""
    note: str = ""
    verified_time: datetime | None = None
    verified_by: str = ""
    causes: Sequence[Cause] = ()
    samples: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Incident:
    """The one incident of a rule in a department; it has an occurrence for each time the rule began to fail."""

    id: str
    rule_id: str
    department: str
    dimension: str
    field: str
    source_id: str
    state: str = FOUND
    severity: str = "medium"
    threshold: float = 0.0
    passed: int = 0
    measured: int = 0
    measured_time: datetime | None = None
    occurrence_count: int = 0
    occurrences: Sequence[Occurrence] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def current(self) -> Occurrence:
        """Return the latest occurrence."""
        return self.occurrences[-1]

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether it is open after its due time."""
        return self.state in OPEN and now > self.current.due_time


def judged(incident: Incident, found: Judgement, due_days: int, now: datetime) -> Incident | None:
    """Return the incident after a measurement, or None where it says nothing new.

    A measurement that began before the last one judged is old and changes nothing: it may have read rows before they
    were corrected.
    """
    if incident.measured_time is not None and found.start_time <= incident.measured_time:
        return None
    is_open = bool(incident.occurrences) and incident.state in OPEN
    if not found.failing and not is_open:
        return None
    figures = replace(incident, passed=found.passed, measured=found.measured, measured_time=found.start_time)
    if not found.failing:
        closed = replace(incident.current, verified_time=now, verified_by=found.operation)
        return replace(figures, state=VERIFIED, occurrences=[*incident.occurrences[:-1], closed])
    if is_open:
        failing = replace(incident.current, causes=found.causes, samples=found.samples)
        return replace(figures, occurrences=[*incident.occurrences[:-1], failing])
    opened = Occurrence(
        now, now + timedelta(days=due_days), found.passed, found.measured, found.operation, causes=found.causes,
        samples=found.samples,
    )  # fmt: skip
    kept = [*incident.occurrences, opened][-OCCURRENCES_KEPT:]
    return replace(figures, state=FOUND, occurrences=kept, occurrence_count=incident.occurrence_count + 1)


def acknowledged(incident: Incident, by: str, note: str, now: datetime) -> Incident:
    """Return the incident with somebody at work on it; a later word changes who and the note, not the time."""
    current = incident.current
    time = current.acknowledged_time or now
    working = replace(current, acknowledged_time=time, acknowledged_by=by, note=note)
    return replace(incident, state=FIXING, occurrences=[*incident.occurrences[:-1], working])
