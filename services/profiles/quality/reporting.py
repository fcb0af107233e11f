"""A report of a day: its figures, how incidents are answered, which causes come back; for some departments or all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from services.chassis.errors import FieldViolation, Invalid
from services.profiles.domain.incidents import Incident
from services.profiles.domain.quality_report import (
    Cell,
    RecurringCause,
    Response,
    recurring,
    responses,
    rolled_up,
)
from services.profiles.quality.concluding import all_incidents, figures_of
from services.profiles.quality.values import DayFigures, day_of, figures_id
from services.profiles.store import Store

LATEST, LATEST_DAYS = "latest", 62
DOCUMENTS_PER_READ = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which figures are wanted; empty means any. `departments` is the caller's reach, None for none at all."""

    departments: tuple[str, ...] | None
    department: str = ""
    dimension: str = ""
    field: str = ""
    source_id: str = ""

    def reaches(self, department: str) -> bool:
        """Tell whether a department's figures are wanted, and in reach."""
        if self.departments is None or self.department not in ("", department):
            return False
        return not self.departments or department in self.departments

    def fits(self, cell: Cell) -> bool:
        """Tell whether a figure of a department in reach is wanted."""
        asked = (self.dimension, self.field, self.source_id)
        return all(one in ("", other) for one, other in zip(asked, cell[:3], strict=True))


@dataclass(frozen=True, slots=True)
class Report:
    """A day's report."""

    day: str
    start_time: datetime
    departments: Sequence[str]
    cells: Sequence[Cell]
    incidents: Sequence[Incident] = ()
    responses: Sequence[Response] = ()
    causes: Sequence[RecurringCause] = ()

    @property
    def totals(self) -> list[Cell]:
        """Return the figures of each dimension, all together."""
        return rolled_up(self.cells, ())


def find_report(store: Store, day: str, wanted: Wanted) -> Report | None:
    """Return the report of a day, or of the latest there is in the last 62; None without figures in reach."""
    today = day_of(datetime.now(UTC))
    days = [str(today - timedelta(days=back)) for back in range(LATEST_DAYS)] if day == LATEST else [day]
    if not store.quality_figures.page({}, figures_id(days[-1], ""), 1):
        return None  # as on a new installation: no need to ask for each day
    for one in days:
        held = [item for item in figures_of(store, one) if wanted.reaches(item.department)]
        if held:
            return _with_incidents(store, report_of(one, held, wanted), wanted)
    return None


def report_of(day: str, held: Iterable[DayFigures], wanted: Wanted) -> Report:
    """Return the report of a day by the figures held of it."""
    of_day = list(held)
    cells = [
        cell
        for item in of_day
        for dimension, name, source_id, passed, measured in item.cells
        if wanted.fits(cell := Cell(str(dimension), str(name), str(source_id), item.department, passed, measured))  # type: ignore[arg-type]
    ]
    departments = sorted(item.department for item in of_day)
    return Report(day, min(item.start_time for item in of_day), departments, sorted(cells))


def _with_incidents(store: Store, report: Report, wanted: Wanted) -> Report:
    held = [
        item
        for item in all_incidents(store, {"department": wanted.department} if wanted.department else {})
        if wanted.reaches(item.department) and wanted.dimension in ("", item.dimension)
    ]
    now = datetime.now(UTC)
    return Report(
        report.day, report.start_time, report.departments, report.cells, held, responses(held, now), recurring(held)
    )


def list_reports(store: Store, after_day: str, limit: int, wanted: Wanted) -> list[Report]:
    """Return the reports of the days after a day, oldest first, without incidents."""
    found: dict[str, list[DayFigures]] = {}
    after = f"{after_day}~" if after_day else ""  # "~" comes after the "/" of a day's figures
    while page := store.quality_figures.page({}, after, DOCUMENTS_PER_READ):
        for item in page:
            if wanted.reaches(item.department):
                found.setdefault(item.day, []).append(item)
        after = page[-1].id
        if len(found) > limit:
            break
    return [report_of(day, found[day], wanted) for day in sorted(found)[:limit]]


def day_before(day: str) -> str:
    """Return the day before a day, which is YYYY-MM-DD; an empty one stays empty.

    Raises:
        Invalid: no calendar has this day.
    """
    try:
        return str(date.fromisoformat(day) - timedelta(days=1)) if day else ""
    except (ValueError, OverflowError):
        violation = FieldViolation("from_day", "give a day of the calendar as YYYY-MM-DD")
        raise Invalid("there is no such day", violations=[violation]) from None
