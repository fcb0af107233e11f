"""The documents of the tickets database, private to the store, and their way from and to values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import ClassVar

import mongoengine
from kehu.tickets.v1 import events_pb2

from services.chassis import records
from services.chassis.crypto import Sealer
from services.tickets.domain.calendar import BusinessCalendar, Interval, WorkBlock
from services.tickets.domain.sla import AppliedSla, Kind, Priority, SlaChange, SlaPolicy, Targets
from services.tickets.domain.ticket import Status, Ticket
from services.tickets.store.port import Comment

Document = dict[str, object]


class TicketRecord(records.Record):
    """A ticket."""

    number = mongoengine.StringField()
    kind = mongoengine.StringField()
    status = mongoengine.StringField()
    category = mongoengine.StringField()
    priority = mongoengine.StringField()
    channel = mongoengine.StringField()
    sealed_text = mongoengine.BinaryField()
    profile_id = mongoengine.StringField()
    opened_for = mongoengine.StringField()
    source_record = mongoengine.StringField()
    department = mongoengine.StringField()
    assignee = mongoengine.StringField()
    parent_id = mongoengine.StringField()
    open_time = mongoengine.DateTimeField()
    change_time = mongoengine.DateTimeField()
    sla = mongoengine.DictField()
    holds = mongoengine.ListField(mongoengine.ListField(mongoengine.DateTimeField()))
    hold_since = mongoengine.DateTimeField()
    first_response_time = mongoengine.DateTimeField()
    resolve_time = mongoengine.DateTimeField()
    deleted = mongoengine.BooleanField(default=False)

    meta: ClassVar[dict[str, object]] = {
        "db_alias": "tickets",
        "collection": "tickets",
        "auto_create_index": False,
        "strict": False,
        "indexes": [
            *records.RECORD_INDEXES,
            {"fields": ["number"], "unique": True},
            ["profile_id", "-number"],
            ["opened_for"],
            {"fields": ["source_record"], "sparse": True},
            ["category", "-number"],
            ["department", "-number"],
            ["assignee", "-number"],
        ],
    }


class CommentRecord(records.Record):
    """A comment."""

    ticket_id = mongoengine.StringField()
    author = mongoengine.StringField()
    sealed_text = mongoengine.BinaryField()
    said_time = mongoengine.DateTimeField()

    meta: ClassVar[dict[str, object]] = {
        "db_alias": "tickets",
        "collection": "comments",
        "auto_create_index": False,
        "strict": False,
        "indexes": [*records.RECORD_INDEXES, ["ticket_id", "said_time", "id"]],
    }


class SlaPolicyRecord(records.Record):
    """An SLA policy; there are few, so the whole is one value."""

    rank = mongoengine.IntField()
    policy = mongoengine.DictField()

    meta: ClassVar[dict[str, object]] = {
        "db_alias": "tickets",
        "collection": "sla_policies",
        "auto_create_index": False,
        "strict": False,
        "indexes": [*records.RECORD_INDEXES, ["rank"]],
    }


RECORDS: tuple[type[records.Record], ...] = (TicketRecord, CommentRecord, SlaPolicyRecord)


def ticket_record(ticket: Ticket, sealer: Sealer) -> TicketRecord:
    """Return the document of a ticket, its words sealed."""
    text = events_pb2.TicketText(subject=ticket.subject, description=ticket.description)
    return TicketRecord(
        id=ticket.id,
        version=ticket.version,
        number=ticket.number,
        kind=ticket.kind.value,
        status=ticket.status.value,
        category=ticket.category.value,
        priority=ticket.priority.value,
        channel=ticket.channel,
        sealed_text=sealer.seal(text.SerializeToString(), ticket.id.encode()),
        profile_id=ticket.profile_id,
        opened_for=ticket.opened_for or None,
        source_record=ticket.source_record or None,
        department=ticket.department,
        assignee=ticket.assignee,
        parent_id=ticket.parent_id,
        open_time=ticket.create_time,
        change_time=ticket.update_time,
        sla=_sla_document(ticket.sla) if ticket.sla else None,
        holds=[[hold.start, hold.end] for hold in ticket.holds],
        hold_since=ticket.hold_since,
        first_response_time=ticket.first_response_time,
        resolve_time=ticket.resolve_time,
        deleted=ticket.deleted,
    )


def ticket_of(found: Document, sealer: Sealer) -> Ticket:
    """Return the ticket of a document."""
    opened = sealer.open(_bytes(found["sealed_text"]), str(found["_id"]).encode())
    text = events_pb2.TicketText.FromString(opened)
    sla = found.get("sla")
    holds = found.get("holds") or []
    assert isinstance(holds, list)
    return Ticket(
        id=str(found["_id"]),
        number=_text(found, "number"),
        kind=Kind(_text(found, "kind")),
        status=Status(_text(found, "status")),
        priority=Priority(_text(found, "priority")),
        channel=_text(found, "channel"),
        subject=text.subject,
        description=text.description,
        profile_id=_text(found, "profile_id"),
        opened_for=_text(found, "opened_for") or _text(found, "profile_id"),
        source_record=_text(found, "source_record"),
        department=_text(found, "department"),
        assignee=_text(found, "assignee"),
        parent_id=_text(found, "parent_id"),
        create_time=_moment(found["open_time"]),
        update_time=_moment(found["change_time"]),
        sla=_sla(sla) if isinstance(sla, Mapping) and sla else None,
        holds=tuple(Interval(_moment(start), _moment(end)) for start, end in holds),
        hold_since=_moment_or_none(found.get("hold_since")),
        first_response_time=_moment_or_none(found.get("first_response_time")),
        resolve_time=_moment_or_none(found.get("resolve_time")),
        version=int(str(found["version"])),
        deleted=bool(found.get("deleted")),
    )


def comment_of(found: Document, sealer: Sealer) -> Comment:
    """Return the comment of a document."""
    comment_id = str(found["_id"])
    text = sealer.open(_bytes(found["sealed_text"]), comment_id.encode()).decode()
    said = _moment(found["said_time"])
    return Comment(comment_id, _text(found, "ticket_id"), _text(found, "author"), text, said)


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return bytes(value)


def _text(found: Document, field: str) -> str:
    return str(found.get(field) or "")


def _moment(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _moment_or_none(value: object) -> datetime | None:
    return None if value is None else _moment(value)


def _sla_document(sla: AppliedSla) -> Document:
    return {
        "policy_id": sla.policy_id,
        "calendar": _calendar_document(sla.calendar),
        "targets": _targets_document(sla.targets),
        "changes": [
            {
                "time": change.change_time,
                "cause": change.cause,
                "policy_id": change.previous_policy_id,
                "priority": change.previous_priority.value,
                "targets": _targets_document(change.previous_targets),
            }
            for change in sla.changes
        ],
    }


def _sla(found: Mapping[str, object]) -> AppliedSla:
    changes = found["changes"]
    assert isinstance(changes, list)
    return AppliedSla(
        str(found["policy_id"]),
        _calendar(found["calendar"]),
        _targets(found["targets"]),
        tuple(
            SlaChange(
                _moment(change["time"]),
                str(change["cause"]),
                str(change["policy_id"]),
                Priority(change["priority"]),
                _targets(change["targets"]),
            )
            for change in changes
        ),
    )


def _targets_document(targets: Targets) -> list[int]:
    return [targets.first_response_minutes, targets.resolution_minutes]


def _targets(found: object) -> Targets:
    assert isinstance(found, list)
    return Targets(int(found[0]), int(found[1]))


def _calendar_document(calendar: BusinessCalendar) -> Document:
    def blocks(given: tuple[WorkBlock, ...]) -> list[list[int]]:
        return [[block.start_minute, block.end_minute] for block in given]

    return {
        "days": [blocks(day) for day in calendar.days],
        "time_zone": calendar.time_zone,
        "chinese_holidays": calendar.chinese_holidays,
        "make_up_blocks": blocks(calendar.make_up_blocks),
        "closed_dates": sorted(day.isoformat() for day in calendar.closed_dates),
    }


def _calendar(found: object) -> BusinessCalendar:
    assert isinstance(found, Mapping)

    def blocks(given: list[list[int]]) -> tuple[WorkBlock, ...]:
        return tuple(WorkBlock(int(start), int(end)) for start, end in given)

    return BusinessCalendar(
        days=tuple(blocks(day) for day in found["days"]),
        time_zone=str(found["time_zone"]),
        chinese_holidays=bool(found["chinese_holidays"]),
        make_up_blocks=blocks(found["make_up_blocks"]),
        closed_dates=frozenset(date.fromisoformat(day) for day in found["closed_dates"]),
    )


def policy_record(policy: SlaPolicy) -> SlaPolicyRecord:
    """Return the document of a policy."""
    document = {
        "display_name": policy.display_name,
        "calendar": _calendar_document(policy.calendar),
        "targets": {priority.value: _targets_document(each) for priority, each in policy.targets.items()},
        "kinds": sorted(kind.value for kind in policy.kinds),
        "departments": sorted(policy.departments),
        "disabled": policy.disabled,
        "create_time": policy.create_time,
        "update_time": policy.update_time,
    }
    return SlaPolicyRecord(id=policy.id, version=policy.version, rank=policy.rank, policy=document)


def policy_of(found: Document) -> SlaPolicy:
    """Return the policy of a document."""
    document = found["policy"]
    assert isinstance(document, Mapping)
    made = SlaPolicy(
        id=str(found["_id"]),
        display_name=str(document["display_name"]),
        rank=int(str(found["rank"])),
        calendar=_calendar(document["calendar"]),
        targets={Priority(priority): _targets(each) for priority, each in document["targets"].items()},
        kinds=frozenset(Kind(kind) for kind in document["kinds"]),
        departments=frozenset(document["departments"]),
        disabled=bool(document["disabled"]),
        create_time=_moment(document["create_time"]),
        update_time=_moment(document["update_time"]),
    )
    return replace(made, version=int(str(found["version"])))
