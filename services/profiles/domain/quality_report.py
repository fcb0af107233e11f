"""Sums of a quality report: figures rolled up, response times of incidents, and the causes that come back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import NamedTuple

from services.profiles.domain.incidents import OPEN, Incident

CAUSES_SHOWN = 20


class Cell(NamedTuple):
    """One figure of a day: how many of the measured rows passed."""

    dimension: str
    field: str
    source_id: str
    department: str
    passed: int
    measured: int

    @property
    def score(self) -> float:
        """Return the share that passed, 1 where nothing was measured."""
        return self.passed / self.measured if self.measured else 1.0


@dataclass(frozen=True, slots=True)
class Response:
    """How a department answers incidents of a dimension; times are medians in seconds, None without any."""

    dimension: str
    department: str
    occurrences: int
    open: int
    overdue: int
    acknowledge_seconds: float | None
    verify_seconds: float | None


@dataclass(frozen=True, slots=True)
class RecurringCause:
    """A circumstance that several occurrences suspect, with the failed rows it accounts for above expectation."""

    factor: str
    value: str
    occurrences: int
    excess: float


def rolled_up(cells: Iterable[Cell], by: Sequence[str]) -> list[Cell]:
    """Return the cells summed over all that `by` does not name (field, source_id, department); the dimension stays."""
    sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for cell in cells:
        key = (cell.dimension, *(getattr(cell, name) if name in by else "" for name in _AXES))
        sums[key][0] += cell.passed
        sums[key][1] += cell.measured
    return [Cell(*key, *sums[key]) for key in sorted(sums)]  # type: ignore[call-arg, arg-type]


_AXES = ("field", "source_id", "department")


def responses(incidents: Iterable[Incident], now: datetime) -> list[Response]:
    """Return the response times by dimension and department.

    Times run from found to acknowledged, and from found to verified. What was verified without anybody at work on it
    has no time to acknowledge.
    """
    groups: defaultdict[tuple[str, str], list[Incident]] = defaultdict(list)
    for incident in incidents:
        groups[incident.dimension, incident.department].append(incident)
    return [_response(*key, groups[key], now) for key in sorted(groups)]


def _response(dimension: str, department: str, incidents: Sequence[Incident], now: datetime) -> Response:
    held = [item for incident in incidents for item in incident.occurrences]
    to_acknowledge = [(i.acknowledged_time - i.found_time).total_seconds() for i in held if i.acknowledged_time]
    to_verify = [(i.verified_time - i.found_time).total_seconds() for i in held if i.verified_time]
    return Response(
        dimension, department, sum(item.occurrence_count for item in incidents),
        sum(item.state in OPEN for item in incidents), sum(item.is_overdue(now) for item in incidents),
        median(to_acknowledge) if to_acknowledge else None, median(to_verify) if to_verify else None,
    )  # fmt: skip


def recurring(incidents: Iterable[Incident]) -> list[RecurringCause]:
    """Return the suspected causes, those that the most occurrences name first, then the largest excess."""
    times: Counter[tuple[str, str]] = Counter()
    excess: Counter[tuple[str, str]] = Counter()
    for incident in incidents:
        for occurrence in incident.occurrences:
            for cause in occurrence.causes:
                times[cause.factor, cause.value] += 1
                excess[cause.factor, cause.value] += cause.excess  # type: ignore[assignment]
    ranked = sorted(times, key=lambda key: (-times[key], -excess[key], key))
    return [RecurringCause(*key, times[key], excess[key]) for key in ranked[:CAUSES_SHOWN]]
