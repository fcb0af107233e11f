"""What a measurement leaves behind: the figures of the day, and incidents opened, kept up to date or verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from kehu.profiles.v1 import events_pb2
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.jobs import Job
from services.chassis.records import Fact, new_id
from services.profiles.domain.causes import suspected
from services.profiles.domain.incidents import OPEN, Incident, Judgement, judged
from services.profiles.domain.quality_report import Cell
from services.profiles.errors import ProfilesBusy
from services.profiles.quality.tally import QualityRule, Tally
from services.profiles.quality.values import DayFigures, day_of, figures_id
from services.profiles.store import Store

ATTEMPTS = 8
PER_READ = 500


def conclude(
    store: Store,
    tally: Tally,
    rules: Sequence[QualityRule],
    metadata: pb.QualityMeasurement,
    job: Job,
    start_time: datetime,
) -> pb.QualityMeasurement:
    """Keep the figures and judge every rule in every department measured; a repeat after a crash changes nothing."""
    keep_figures(store, tally.cells(), metadata.department, start_time, job.name)
    departments = {*tally.departments(), *_departments_with_incidents(store)}
    if metadata.department:
        departments = {metadata.department}
    for rule in rules:
        for department in sorted(departments):
            if rule.department in ("", department):
                judge(store, rule, department, _judgement(tally, rule, department, start_time, job.name))
    metadata.report = f"qualityReports/{day_of(start_time)}"
    _count(store, metadata, departments, job.name)
    return metadata


def _judgement(tally: Tally, rule: QualityRule, department: str, start_time: datetime, operation: str) -> Judgement:
    rows = tally.suspects(rule.rule_id, department)
    failed = rows.measured - rows.passed
    counts: Mapping[str, Mapping[str, tuple[int, int]]] = {
        factor: {value: (sums[0], sums[1]) for value, sums in values.items()} for factor, values in rows.counts.items()
    }
    causes = suspected(failed, rows.measured, counts)
    failing = rule.fails(rows.passed, rows.measured)
    return Judgement(failing, rows.passed, rows.measured, start_time, operation, causes, list(rows.samples))


def judge(store: Store, rule: QualityRule, department: str, found: Judgement) -> None:
    """Open, keep up to date or verify the incident of a rule in a department; a disabled rule opens none.

    Raises:
        ProfilesBusy: others kept changing it.
    """
    for _ in range(ATTEMPTS):
        now = datetime.now(UTC)
        incident = store.incidents.get(incident_id(rule.rule_id, department)) or _new(rule, department)
        if not rule.is_active and not (incident.version and incident.state in OPEN):
            return
        current = replace(incident, threshold=rule.threshold, severity=rule.severity)
        changed = judged(current, found, rule.due_days, now)
        if changed is None:
            return
        is_news = not incident.version or (changed.state, changed.occurrence_count) != (
            incident.state, incident.occurrence_count
        )  # fmt: skip
        try:
            store.incidents.write(changed, [incident_changed(changed, now)] if is_news else [])
        except (AlreadyExists, Conflict):
            continue
        return
    raise ProfilesBusy("others keep changing the incident; try again")


def incident_id(rule_id: str, department: str) -> str:
    """Return the one id of a rule's incident in a department."""
    return new_id(f"{rule_id}/{department}", "quality-incident")


def _new(rule: QualityRule, department: str) -> Incident:
    return Incident(
        incident_id(rule.rule_id, department), rule.rule_id, department, rule.dimension, rule.field, rule.source_id
    )


def incident_changed(incident: Incident, now: datetime) -> Fact:
    """Return the fact that an incident is now in this state, at its next version."""
    message = events_pb2.QualityIncidentChanged(
        incident_id=incident.id, version=incident.version + 1, rule_id=incident.rule_id,
        department=incident.department, dimension=incident.dimension, field=incident.field,
        source_id=incident.source_id, state=incident.state, severity=incident.severity,
        score=incident.passed / incident.measured if incident.measured else 1.0,
        occurrence_count=incident.occurrence_count,
    )  # fmt: skip
    message.event_time.FromDatetime(now)
    message.due_time.FromDatetime(incident.current.due_time)
    return Fact(message, f"qualityIncidents/{incident.id}", incident.version + 1)


def keep_figures(store: Store, cells: Sequence[Cell], department: str, start_time: datetime, operation: str) -> None:
    """Keep the figures of the day by department; those of a measurement that began later stay."""
    day = str(day_of(start_time))
    by_department: dict[str, list[list[object]]] = {department: []} if department else {}
    if not department:
        by_department = {item.department: [] for item in figures_of(store, day)}
    for cell in cells:
        held = by_department.setdefault(cell.department, [])
        held.append([cell.dimension, cell.field, cell.source_id, cell.passed, cell.measured])
    for owner, rows in by_department.items():
        _keep(store, DayFigures(figures_id(day, owner), owner, start_time, operation, rows))


def _keep(store: Store, figures: DayFigures) -> None:
    for _ in range(ATTEMPTS):
        found = store.quality_figures.get(figures.id)
        try:
            if found is None and figures.cells:
                store.quality_figures.insert(figures)
            elif found is None:
                return
            elif found.start_time <= figures.start_time:
                store.quality_figures.replace(replace(figures, version=found.version, create_time=found.create_time))
        except (AlreadyExists, Conflict):
            continue
        return
    raise ProfilesBusy("others keep changing the figures; try again")


def figures_of(store: Store, day: str) -> list[DayFigures]:
    """Return the figures of a day, of every department."""
    found, after = [], figures_id(day, "")
    while page := store.quality_figures.page({}, after, PER_READ):
        found += [item for item in page if item.day == day]
        after = page[-1].id
        if page[-1].day != day or len(page) < PER_READ:
            break
    return found


def all_incidents(store: Store, equal: Mapping[str, str]) -> Iterator[Incident]:
    """Yield every incident with these values."""
    after = ""
    while page := store.incidents.page(equal, after, PER_READ):
        yield from page
        after = page[-1].id


def _departments_with_incidents(store: Store) -> set[str]:
    return {item.department for item in all_incidents(store, {}) if item.state in OPEN}


def _count(store: Store, metadata: pb.QualityMeasurement, departments: set[str], operation: str) -> None:
    """Count what the measurement did to incidents, by what they say: the same after a repeat."""
    judged_now = [item for item in all_incidents(store, {}) if item.department in departments]
    metadata.incidents_open = sum(item.state in OPEN for item in judged_now)
    metadata.incidents_found = sum(item.current.found_by == operation for item in judged_now)
    metadata.incidents_verified = sum(item.current.verified_by == operation for item in judged_now)
