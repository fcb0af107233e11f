"""Promises about time: which policy fits a ticket, and how its targets stand at a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from services.chassis.errors import FieldViolation
from services.tickets.domain.calendar import (
    BusinessCalendar,
    Interval,
    SlaPolicyInvalid,
    business_deadline,
    business_time,
    check_calendar,
    merged,
)

NEVER = datetime.max.replace(tzinfo=UTC)


class Kind(StrEnum):
    """What kind of work a ticket is."""

    REQUEST = "request"
    WORK_ORDER = "work_order"
    COMPLAINT = "complaint"


class Priority(StrEnum):
    """How urgent a ticket is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class TargetState(StrEnum):
    """How a target stands."""

    RUNNING = "running"
    PAUSED = "paused"
    HIT = "hit"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Targets:
    """Business minutes promised for one priority; 0 means no promise."""

    first_response_minutes: int
    resolution_minutes: int


NO_TARGETS = Targets(0, 0)


@dataclass(frozen=True, slots=True)
class SlaPolicy:
    """What is promised, to which tickets, on which calendar; no kinds or departments means all of them."""

    id: str
    display_name: str
    rank: int
    calendar: BusinessCalendar
    targets: dict[Priority, Targets]
    kinds: frozenset[Kind]
    departments: frozenset[str]
    disabled: bool
    create_time: datetime
    update_time: datetime
    version: int = 1

    def fits(self, kind: Kind, department: str) -> bool:
        """Tell whether the policy times tickets of this kind and department."""
        kind_fits = not self.kinds or kind in self.kinds
        return not self.disabled and kind_fits and (not self.departments or department in self.departments)


@dataclass(frozen=True, slots=True)
class SlaChange:
    """Targets that a ticket had before."""

    change_time: datetime
    cause: str
    previous_policy_id: str
    previous_priority: Priority
    previous_targets: Targets


@dataclass(frozen=True, slots=True)
class AppliedSla:
    """The promise a ticket carries: a copy, so that an edited policy moves no running clock."""

    policy_id: str
    calendar: BusinessCalendar
    targets: Targets
    changes: tuple[SlaChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Clock:
    """What the clocks of a ticket have seen: start, holds in the past, and since when it is on hold, if it is."""

    start: datetime
    holds: tuple[Interval, ...] = ()
    hold_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class TargetStand:
    """How one promise stands at a moment; without a due time when its calendar never works that long."""

    minutes: int
    due_time: datetime | None
    met_time: datetime | None
    state: TargetState
    holidays_unknown: bool


def check_policy(policy: SlaPolicy) -> None:
    """Refuse a policy that promises nothing, what its calendar never reaches, or what contradicts itself.

    Raises:
        SlaPolicyInvalid: naming the fault.
    """
    check_calendar(policy.calendar)
    faults = []
    if not policy.display_name.strip():
        faults.append(FieldViolation("display_name", "say what people call it"))
    if all(targets == NO_TARGETS for targets in policy.targets.values()):
        faults.append(FieldViolation("targets", "promise at least one target"))
    for priority, targets in policy.targets.items():
        if 0 < targets.resolution_minutes < targets.first_response_minutes:
            text = f"{priority.value}: the resolution cannot be promised before the first response"
            faults.append(FieldViolation("targets", text))
    longest = max((max(t.first_response_minutes, t.resolution_minutes) for t in policy.targets.values()), default=0)
    if business_deadline(policy.update_time, longest, policy.calendar) is None:
        text = f"the calendar has not {longest} working minutes in 4,000 days: promise less, or work more hours"
        faults.append(FieldViolation("targets", text))
    if faults:
        raise SlaPolicyInvalid("the SLA policy contradicts itself", violations=faults)


def choose_policy(policies: Iterable[SlaPolicy], kind: Kind, department: str) -> SlaPolicy | None:
    """Return the enabled policy of lowest rank that fits, the smaller id first; None when no policy does."""
    fitting = [policy for policy in policies if policy.fits(kind, department)]
    return min(fitting, key=lambda policy: (policy.rank, policy.id), default=None)


def apply_policy(policy: SlaPolicy | None, priority: Priority) -> AppliedSla | None:
    """Return the promise of a policy for a priority; None when it makes none."""
    targets = policy.targets.get(priority, NO_TARGETS) if policy else NO_TARGETS
    if policy is None or targets == NO_TARGETS:
        return None
    return AppliedSla(policy.id, policy.calendar, targets)


def target_stand(
    minutes: int, calendar: BusinessCalendar, clock: Clock, met: datetime | None, now: datetime
) -> TargetStand | None:
    """Return how a target stands at `now`; None when nothing was promised.

    Holds after the target was met do not move it; a target that was overdue when the hold began stays missed.
    """
    if not minutes:
        return None
    until = met or now
    due = business_deadline(clock.start, minutes, calendar, _holds_until(clock, until))
    end = due.time if due else NEVER
    if met is not None:
        state = TargetState.HIT if met <= end else TargetState.MISSED
    elif clock.hold_since is not None:
        state = TargetState.MISSED if end < clock.hold_since else TargetState.PAUSED
    else:
        state = TargetState.RUNNING if now <= end else TargetState.MISSED
    return TargetStand(minutes, due.time if due else None, met, state, due is not None and due.holidays_unknown)


def _holds_until(clock: Clock, until: datetime) -> Sequence[Interval]:
    holds = [Interval(hold.start, min(hold.end, until)) for hold in clock.holds if hold.start < until]
    if clock.hold_since is not None and clock.hold_since < until:
        holds.append(Interval(clock.hold_since, until))
    return holds


def hold_minutes(calendar: BusinessCalendar, clock: Clock, now: datetime) -> int:
    """Return the business minutes on hold so far, rounded down."""
    holds = merged(_holds_until(clock, now))
    return sum((business_time(hold, calendar) for hold in holds), timedelta()) // timedelta(minutes=1)
