"""The ticket: its states, what each verb does to it, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.chassis.errors import FieldViolation, Invalid, NotAllowed, NotFound
from services.chassis.identities import Identities
from services.tickets.domain.calendar import Interval
from services.tickets.domain.sla import (
    AppliedSla,
    Clock,
    Kind,
    Priority,
    SlaChange,
    SlaPolicy,
    Targets,
    apply_policy,
    choose_policy,
)

MAX_PARENTS = 10  # deeper chains are mistakes, and reading them on each change costs a read per level


class TicketsNotFound(NotFound):
    """No such ticket, comment or policy, or the caller may not know of it."""

    reason = "TICKETS_NOT_FOUND"


class TicketState(NotAllowed):
    """The status of the ticket forbids the verb."""

    reason = "TICKET_STATE"


class TicketParent(Invalid):
    """The parent cannot be one."""

    reason = "TICKET_PARENT"


class Status(StrEnum):
    """Where a ticket stands."""

    NEW = "new"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    RESOLVED = "resolved"


class Category(StrEnum):
    """What a status means for the clocks."""

    OPEN = "open"
    PAUSED = "paused"
    RESOLVED = "resolved"


CATEGORIES: Mapping[Status, Category] = {
    Status.NEW: Category.OPEN,
    Status.IN_PROGRESS: Category.OPEN,
    Status.PAUSED: Category.PAUSED,
    Status.RESOLVED: Category.RESOLVED,
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request, a work order or a complaint; times are UTC, ids without their collection, empty when unset.

    `profile_id` is the customer by now, `opened_for` the id that was named, `source_record` the customer's record.
    """

    id: str
    number: str
    kind: Kind
    status: Status
    priority: Priority
    channel: str
    subject: str
    description: str
    profile_id: str
    department: str
    assignee: str
    parent_id: str
    create_time: datetime
    update_time: datetime
    sla: AppliedSla | None = None
    holds: tuple[Interval, ...] = ()
    hold_since: datetime | None = None
    first_response_time: datetime | None = None
    resolve_time: datetime | None = None
    version: int = 1
    deleted: bool = False
    opened_for: str = ""
    source_record: str = ""

    @property
    def category(self) -> Category:
        """Return what the status means for the clocks."""
        return CATEGORIES[self.status]

    @property
    def clock(self) -> Clock:
        """Return what the clocks have seen."""
        return Clock(self.create_time, self.holds, self.hold_since)


@dataclass(frozen=True, slots=True)
class TicketEdit:
    """New values of a ticket; None leaves a field as it is."""

    subject: str | None = None
    description: str | None = None
    priority: Priority | None = None
    department: str | None = None
    parent_id: str | None = None
    channel: str | None = None
    opened_for: str | None = None
    source_record: str | None = None


def open_ticket(draft: Ticket, policies: Iterable[SlaPolicy]) -> Ticket:
    """Return the new ticket with the promise of the policy that fits it.

    Raises:
        Invalid: when it has no subject.
    """
    _check_subject(draft.subject)
    return replace(draft, sla=apply_policy(choose_policy(policies, draft.kind, draft.department), draft.priority))


def _check_subject(subject: str) -> None:
    if not subject.strip():
        violation = FieldViolation("ticket.subject", "say in one line what it is about")
        raise Invalid("a ticket needs a subject", violations=[violation])


def _changed(ticket: Ticket, now: datetime, /, **values: object) -> Ticket:
    changed: Ticket = replace(ticket, update_time=now, version=ticket.version + 1, **values)  # type: ignore[arg-type]
    return changed


def _refuse(ticket: Ticket, verb: str) -> TicketState:
    text = f"a ticket in status {ticket.status.value} cannot be changed by {verb}"
    return TicketState(text, metadata={"status": ticket.status.value, "verb": verb})


def assign(ticket: Ticket, assignee: str, now: datetime) -> Ticket:
    """Give the ticket to somebody, or take it back with an empty assignee; a new one is then in progress.

    Raises:
        TicketState: when it is resolved.
    """
    if ticket.category is Category.RESOLVED:
        raise _refuse(ticket, "assign")
    started = ticket.status is Status.NEW and assignee
    status = Status.IN_PROGRESS if started else ticket.status
    return _changed(ticket, now, assignee=assignee, status=status)


def respond(ticket: Ticket, now: datetime) -> Ticket:
    """Record an answer to the customer; only the first one counts for the target, which is never overruled.

    Raises:
        TicketState: when it is resolved.
    """
    if ticket.category is Category.RESOLVED:
        raise _refuse(ticket, "respond")
    status = Status.IN_PROGRESS if ticket.status is Status.NEW else ticket.status
    return _changed(ticket, now, first_response_time=ticket.first_response_time or now, status=status)


def pause(ticket: Ticket, now: datetime) -> Ticket:
    """Stop the clocks.

    Raises:
        TicketState: unless it is open.
    """
    if ticket.category is not Category.OPEN:
        raise _refuse(ticket, "pause")
    return _changed(ticket, now, status=Status.PAUSED, hold_since=now)


def resume(ticket: Ticket, now: datetime) -> Ticket:
    """Start the clocks of a paused ticket again.

    Raises:
        TicketState: unless it is paused.
    """
    if ticket.category is not Category.PAUSED:
        raise _refuse(ticket, "resume")
    return _changed(ticket, now, status=Status.IN_PROGRESS, holds=_closed_holds(ticket, now), hold_since=None)


def _closed_holds(ticket: Ticket, now: datetime) -> tuple[Interval, ...]:
    if ticket.hold_since is None:
        return ticket.holds
    return (*ticket.holds, Interval(ticket.hold_since, now))


def resolve(ticket: Ticket, now: datetime) -> Ticket:
    """End the work and stop the clocks; a resolution is the first response where there was none.

    Raises:
        TicketState: when it is resolved already.
    """
    if ticket.category is Category.RESOLVED:
        raise _refuse(ticket, "resolve")
    return _changed(
        ticket,
        now,
        status=Status.RESOLVED,
        holds=_closed_holds(ticket, now),
        hold_since=None,
        resolve_time=now,
        first_response_time=ticket.first_response_time or now,
    )


def reopen(ticket: Ticket, now: datetime) -> Ticket:
    """Open a resolved ticket again; the time it lay resolved is a hold.

    Raises:
        TicketState: unless it is resolved.
    """
    if ticket.resolve_time is None:
        raise _refuse(ticket, "reopen")
    holds = (*ticket.holds, Interval(ticket.resolve_time, now))
    return _changed(ticket, now, status=Status.IN_PROGRESS, holds=holds, resolve_time=None)


def edit(ticket: Ticket, change: TicketEdit, policies: Iterable[SlaPolicy], now: datetime) -> Ticket:
    """Return the ticket with new values, its targets set anew when priority or department changed.

    Raises:
        Invalid: when the subject would be empty.
    """
    values = {name: value for name in TicketEdit.__slots__ if (value := getattr(change, name)) is not None}
    edited = _changed(ticket, now, **values)
    if edited.subject != ticket.subject:  # that of an erased customer's ticket is empty
        _check_subject(edited.subject)
    if ticket.category is Category.RESOLVED:
        return edited
    causes = [name for name in ("priority", "department") if getattr(edited, name) != getattr(ticket, name)]
    return _retarget(ticket, edited, policies, " and ".join(causes), now) if causes else edited


def _retarget(before: Ticket, after: Ticket, policies: Iterable[SlaPolicy], cause: str, now: datetime) -> Ticket:
    """Choose the policy again; a first response that was given keeps the target it was measured by."""
    applied = apply_policy(choose_policy(policies, after.kind, after.department), after.priority)
    old = before.sla
    if applied is None and old is None:
        return after
    old_targets = old.targets if old else Targets(0, 0)
    if applied is None:
        applied = AppliedSla("", old.calendar, Targets(0, 0)) if old else None
    if applied is None:
        return after
    if before.first_response_time is not None:
        kept = Targets(old_targets.first_response_minutes, applied.targets.resolution_minutes)
        applied = replace(applied, targets=kept)
    change = SlaChange(now, cause, old.policy_id if old else "", before.priority, old_targets)
    return replace(after, sla=replace(applied, changes=(*(old.changes if old else ()), change)))


def follow(ticket: Ticket, profile_id: str, now: datetime) -> Ticket:
    """Link the ticket to the profile that its customer is by now."""
    return _changed(ticket, now, profile_id=profile_id)


def customer_of(ticket: Ticket, identities: Identities) -> str:
    """Return the customer by now: who has the record after a split moved it, else whom the named id means."""
    owners = identities.owners([ticket.source_record]) if ticket.source_record else {}
    return owners.get(ticket.source_record) or identities.living([ticket.opened_for]).get(
        ticket.opened_for, ticket.opened_for
    )


def erase(ticket: Ticket, now: datetime) -> Ticket:
    """Return what remains of a deleted ticket: its id, number and version, without words or customer."""
    return _changed(ticket, now, subject="", description="", profile_id="", assignee="", deleted=True, opened_for="",
                    source_record="")  # fmt: skip


def forget_customer(ticket: Ticket, now: datetime) -> Ticket:
    """Return a ticket whose customer was erased: without words and customer; its times and department stay."""
    return _changed(ticket, now, subject="", description="", profile_id="", opened_for="", source_record="")


def check_parent(ticket_id: str, ancestors: tuple[str, ...]) -> None:
    """Refuse a parent chain, nearest first, that comes back to the ticket or is longer than 10.

    Raises:
        TicketParent: naming what is wrong.
    """
    if ticket_id in ancestors:
        violation = FieldViolation("ticket.parent", "choose a ticket that is not a part of this one")
        raise TicketParent("a ticket cannot be a part of itself", violations=[violation])
    if len(ancestors) > MAX_PARENTS:
        violation = FieldViolation("ticket.parent", f"at most {MAX_PARENTS} levels")
        raise TicketParent("the chain of parents is too long", violations=[violation])
