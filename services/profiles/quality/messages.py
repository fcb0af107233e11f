"""Reports and incidents to their messages."""

from __future__ import annotations

from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.records import etag_of
from services.chassis.times import set_times
from services.profiles.domain.incidents import Incident, Occurrence
from services.profiles.domain.quality_report import Cell
from services.profiles.quality.reporting import Report
from services.profiles.quality.rules import DIMENSION_NUMBERS, SEVERITY_NUMBERS

FIGURES_LIMIT = 10_000  # about 1 MiB of a reply
STATES = {
    "found": pb.QualityIncident.STATE_FOUND,
    "fixing": pb.QualityIncident.STATE_FIXING,
    "verified": pb.QualityIncident.STATE_VERIFIED,
}
FACTORS = {
    "source": pb.SuspectedCause.FACTOR_SOURCE,
    "batch": pb.SuspectedCause.FACTOR_BATCH,
    "settings": pb.SuspectedCause.FACTOR_SETTINGS,
    "reason": pb.SuspectedCause.FACTOR_REASON,
}


def source_name(source_id: str) -> str:
    """Return sources/{id}, empty for none."""
    return f"sources/{source_id}" if source_id else ""


def figure_message(cell: Cell) -> pb.QualityFigure:
    """Return the message of a figure."""
    return pb.QualityFigure(
        dimension=DIMENSION_NUMBERS[cell.dimension], field=cell.field, source=source_name(cell.source_id),
        department=cell.department, passed=cell.passed, measured=cell.measured, score=cell.score,
    )  # fmt: skip


def report_message(report: Report, is_listed: bool = False) -> pb.QualityReport:
    """Return the message of a report, its totals alone where it is listed."""
    message = pb.QualityReport(
        name=f"qualityReports/{report.day}", departments=report.departments, totals=map(figure_message, report.totals)
    )
    message.start_time.FromDatetime(report.start_time)
    if is_listed:
        return message
    message.figures.extend(map(figure_message, report.cells[:FIGURES_LIMIT]))
    message.figures_left_out = len(report.cells[FIGURES_LIMIT:])
    for item in report.responses:
        message.responses.add(
            dimension=DIMENSION_NUMBERS[item.dimension], department=item.department, occurrences=item.occurrences,
            open=item.open, overdue=item.overdue, acknowledge_seconds=item.acknowledge_seconds,
            verify_seconds=item.verify_seconds,
        )  # fmt: skip
    for cause in report.causes:
        message.recurring_causes.add(
            factor=FACTORS[cause.factor], value=cause.value, occurrences=cause.occurrences, excess=cause.excess
        )
    return message


def incident_message(incident: Incident, is_overdue: bool) -> pb.QualityIncident:
    """Return the message of an incident without samples."""
    message = pb.QualityIncident(
        name=f"qualityIncidents/{incident.id}", rule=f"qualityRules/{incident.rule_id}", state=STATES[incident.state],
        department=incident.department, dimension=DIMENSION_NUMBERS[incident.dimension], field=incident.field,
        source=source_name(incident.source_id), severity=SEVERITY_NUMBERS[incident.severity],  # type: ignore[arg-type]
        threshold=incident.threshold, passed=incident.passed, measured=incident.measured, overdue=is_overdue,
        occurrence_count=incident.occurrence_count, occurrences=map(_occurrence_message, incident.occurrences),
        etag=etag_of(incident.version),
    )  # fmt: skip
    if incident.measured_time:
        message.measure_time.FromDatetime(incident.measured_time)
    return message


def _occurrence_message(item: Occurrence) -> pb.QualityIncident.Occurrence:
    message = pb.QualityIncident.Occurrence(
        acknowledged_by=item.acknowledged_by, note=item.note, found_by=item.found_by, verified_by=item.verified_by,
        passed=item.passed, measured=item.measured,
    )  # fmt: skip
    set_times(
        message, found_time=item.found_time, due_time=item.due_time, acknowledge_time=item.acknowledged_time,
        verify_time=item.verified_time,
    )  # fmt: skip
    for cause in item.causes:
        message.causes.add(
            factor=FACTORS[cause.factor], value=cause.value, failed=cause.failed, measured=cause.measured,
            lift=cause.lift, excess=cause.excess,
        )  # fmt: skip
    return message
