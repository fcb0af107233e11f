"""Tickets and SLA policies as protobuf messages, and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from kehu.tickets.v1 import tickets_pb2 as pb

from services.chassis.errors import FieldViolation
from services.chassis.records import etag_of
from services.tickets.domain.calendar import BusinessCalendar, SlaPolicyInvalid, WorkBlock
from services.tickets.domain.sla import (
    Kind,
    Priority,
    SlaChange,
    SlaPolicy,
    Targets,
    TargetStand,
    TargetState,
    hold_minutes,
    target_stand,
)
from services.tickets.domain.ticket import Category, Status, Ticket
from services.tickets.store import Comment

CHANNELS = ("", "phone", "email", "web", "wechat", "store", "api")
KINDS = {pb.TICKET_KIND_REQUEST: Kind.REQUEST, pb.TICKET_KIND_WORK_ORDER: Kind.WORK_ORDER,
         pb.TICKET_KIND_COMPLAINT: Kind.COMPLAINT}  # fmt: skip
PRIORITIES = {pb.PRIORITY_LOW: Priority.LOW, pb.PRIORITY_NORMAL: Priority.NORMAL,
              pb.PRIORITY_HIGH: Priority.HIGH, pb.PRIORITY_URGENT: Priority.URGENT}  # fmt: skip
CATEGORIES = {pb.STATUS_CATEGORY_OPEN: Category.OPEN, pb.STATUS_CATEGORY_PAUSED: Category.PAUSED,
              pb.STATUS_CATEGORY_RESOLVED: Category.RESOLVED}  # fmt: skip
STATUSES = {pb.TICKET_STATUS_NEW: Status.NEW, pb.TICKET_STATUS_IN_PROGRESS: Status.IN_PROGRESS,
            pb.TICKET_STATUS_PAUSED: Status.PAUSED, pb.TICKET_STATUS_RESOLVED: Status.RESOLVED}  # fmt: skip
STATES = {TargetState.RUNNING: pb.TARGET_STATE_RUNNING, TargetState.PAUSED: pb.TARGET_STATE_PAUSED,
          TargetState.HIT: pb.TARGET_STATE_HIT, TargetState.MISSED: pb.TARGET_STATE_MISSED}  # fmt: skip
KIND_VALUES = {kind: value for value, kind in KINDS.items()}
PRIORITY_VALUES = {priority: value for value, priority in PRIORITIES.items()}
CATEGORY_VALUES = {category: value for value, category in CATEGORIES.items()}
STATUS_VALUES = {status: value for value, status in STATUSES.items()}


def id_of(name: str) -> str:
    """Return the last part of a resource name, empty for an empty name."""
    return name.rpartition("/")[2]


def record_key_of(message: pb.Ticket) -> str:
    """Return "source/record id" of the customer's record, empty when none is named."""
    record = message.source_record
    return f"{id_of(record.source)}/{record.source_record_id}" if record.source_record_id else ""


def _name(collection: str, resource_id: str) -> str:
    return f"{collection}/{resource_id}" if resource_id else ""


def ticket_message(ticket: Ticket, now: datetime) -> pb.Ticket:
    """Return a ticket with its clocks as they stand at `now`."""
    message = pb.Ticket(
        name=_name("tickets", ticket.id),
        number=ticket.number,
        kind=KIND_VALUES[ticket.kind],
        status=STATUS_VALUES[ticket.status],
        status_category=CATEGORY_VALUES[ticket.category],
        priority=PRIORITY_VALUES[ticket.priority],
        channel=CHANNELS.index(ticket.channel),  # type: ignore[arg-type]
        subject=ticket.subject,
        description=ticket.description,
        profile=_name("profiles", ticket.profile_id),
        department=ticket.department,
        assignee=ticket.assignee,
        parent=_name("tickets", ticket.parent_id),
        create_time=ticket.create_time,
        update_time=ticket.update_time,
        etag=etag_of(ticket.version),
    )
    if ticket.source_record:
        source, _, record_id = ticket.source_record.partition("/")
        message.source_record.source, message.source_record.source_record_id = f"sources/{source}", record_id
    if ticket.resolve_time is not None:
        message.resolve_time.FromDatetime(ticket.resolve_time)
    if ticket.sla is not None:
        _fill_sla(message.sla, ticket, now)
    return message


def _fill_sla(message: pb.AppliedSla, ticket: Ticket, now: datetime) -> None:
    sla = ticket.sla
    if sla is None:
        return
    message.sla_policy = _name("slaPolicies", sla.policy_id)
    calendar, clock = sla.calendar, ticket.clock
    promises = (
        (message.first_response, sla.targets.first_response_minutes, ticket.first_response_time),
        (message.resolution, sla.targets.resolution_minutes, ticket.resolve_time),
    )
    for target, minutes, met in promises:
        stand = target_stand(minutes, calendar, clock, met, now)
        if stand is not None:
            target.CopyFrom(_target(stand))
    message.hold_minutes = hold_minutes(calendar, clock, now)
    message.changes.extend(_change(change) for change in sla.changes)


def _target(stand: TargetStand) -> pb.SlaTarget:
    message = pb.SlaTarget(
        minutes=stand.minutes,
        state=STATES[stand.state],
        holidays_unknown=stand.holidays_unknown,
    )
    if stand.due_time is not None:
        message.due_time.FromDatetime(stand.due_time)
    if stand.met_time is not None:
        message.met_time.FromDatetime(stand.met_time)
    return message


def _change(change: SlaChange) -> pb.SlaChange:
    return pb.SlaChange(
        change_time=change.change_time,
        cause=change.cause,
        previous_sla_policy=_name("slaPolicies", change.previous_policy_id),
        previous_priority=PRIORITY_VALUES[change.previous_priority],
        previous_first_response_minutes=change.previous_targets.first_response_minutes,
        previous_resolution_minutes=change.previous_targets.resolution_minutes,
    )


def comment_message(comment: Comment) -> pb.Comment:
    """Return a comment."""
    return pb.Comment(
        name=f"tickets/{comment.ticket_id}/comments/{comment.id}",
        text=comment.text,
        author=comment.author,
        create_time=comment.create_time,
    )


def policy_message(policy: SlaPolicy) -> pb.SlaPolicy:
    """Return a policy."""
    return pb.SlaPolicy(
        name=_name("slaPolicies", policy.id),
        display_name=policy.display_name,
        rank=policy.rank,
        disabled=policy.disabled,
        kinds=sorted(KIND_VALUES[kind] for kind in policy.kinds),
        departments=sorted(policy.departments),
        targets=[_targets_message(priority, policy.targets[priority]) for priority in sorted(policy.targets)],
        calendar=_calendar_message(policy.calendar),
        create_time=policy.create_time,
        update_time=policy.update_time,
        etag=etag_of(policy.version),
    )


def _targets_message(priority: Priority, targets: Targets) -> pb.PriorityTargets:
    return pb.PriorityTargets(
        priority=PRIORITY_VALUES[priority],
        first_response_minutes=targets.first_response_minutes,
        resolution_minutes=targets.resolution_minutes,
    )


def _calendar_message(calendar: BusinessCalendar) -> pb.BusinessCalendar:
    days = [
        pb.WorkDay(weekday=number, blocks=_block_messages(blocks))
        for number, blocks in enumerate(calendar.days, start=1)
        if blocks
    ]
    return pb.BusinessCalendar(
        time_zone=calendar.time_zone,
        days=days,
        chinese_holidays=calendar.chinese_holidays,
        make_up_blocks=_block_messages(calendar.make_up_blocks),
        closed_dates=sorted(day.isoformat() for day in calendar.closed_dates),
    )


def _block_messages(blocks: Iterable[WorkBlock]) -> list[pb.WorkBlock]:
    return [pb.WorkBlock(start_minute=block.start_minute, end_minute=block.end_minute) for block in blocks]


def _blocks(messages: Iterable[pb.WorkBlock]) -> tuple[WorkBlock, ...]:
    return tuple(WorkBlock(each.start_minute, each.end_minute) for each in messages)


def policy_of(message: pb.SlaPolicy, policy_id: str, created: datetime, now: datetime, version: int) -> SlaPolicy:
    """Return the policy a message describes.

    Raises:
        SlaPolicyInvalid: when a weekday or a priority is named twice, or a date does not exist.
    """
    priorities = [each.priority for each in message.targets]
    if len(set(priorities)) < len(priorities):
        raise SlaPolicyInvalid("name each priority once", violations=[FieldViolation("targets", "repeated")])
    return SlaPolicy(
        id=policy_id,
        display_name=message.display_name,
        rank=message.rank,
        calendar=_calendar(message.calendar),
        targets={
            PRIORITIES[each.priority]: Targets(each.first_response_minutes, each.resolution_minutes)
            for each in message.targets
        },
        kinds=frozenset(KINDS[kind] for kind in message.kinds),
        departments=frozenset(message.departments),
        disabled=message.disabled,
        create_time=created,
        update_time=now,
        version=version,
    )


def _calendar(message: pb.BusinessCalendar) -> BusinessCalendar:
    weekdays = [day.weekday for day in message.days]
    if len(set(weekdays)) < len(weekdays):
        violation = FieldViolation("calendar.days", "a weekday is repeated: give its blocks together")
        raise SlaPolicyInvalid("name each weekday once", violations=[violation])
    blocks = {day.weekday: _blocks(day.blocks) for day in message.days}
    try:
        closed = frozenset(date.fromisoformat(day) for day in message.closed_dates)
    except ValueError:
        violation = FieldViolation("calendar.closed_dates", "use dates that exist, YYYY-MM-DD")
        raise SlaPolicyInvalid("a closed date does not exist", violations=[violation]) from None
    return BusinessCalendar(
        days=tuple(blocks.get(number, ()) for number in range(1, 8)),
        time_zone=message.time_zone or "Asia/Shanghai",
        chinese_holidays=message.chinese_holidays,
        make_up_blocks=_blocks(message.make_up_blocks),
        closed_dates=closed,
    )
