"""What is stored of data quality beside incidents: rules, and the figures of a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from services.chassis.times import CHINA

UNASSIGNED = "unassigned"  # the department of profiles that no source gave one


@dataclass(frozen=True, slots=True)
class StoredQualityRule:
    """A quality rule as JSON; `revisions` are number, time, subject and content of each, oldest first."""

    id: str
    latest: str
    revision: int
    revisions: Sequence[Sequence[object]] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class DayFigures:
    """The figures of a department on a day: [dimension, field, source, passed, measured] each.

    `start_time` is when their measurement began; a later one of the day takes their place.
    """

    id: str
    department: str
    start_time: datetime
    operation: str
    cells: Sequence[Sequence[object]] = field(default_factory=list)
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def day(self) -> str:
        """Return the day, YYYY-MM-DD."""
        return self.id.partition("/")[0]


def day_of(time: datetime) -> date:
    """Return the day of a time in China, where a day of figures begins at midnight."""
    return time.astimezone(CHINA).date()


def figures_id(day: str, department: str) -> str:
    """Return the id of a department's figures of a day: those of one day sort together, days in order."""
    return f"{day}/{department}"
