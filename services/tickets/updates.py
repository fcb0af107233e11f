"""What an update changes in tickets and SLA policies."""

from __future__ import annotations

from collections.abc import Collection

from kehu.tickets.v1 import tickets_pb2 as pb

from services.tickets.domain.ticket import TicketEdit
from services.tickets.wire import CHANNELS, PRIORITIES, id_of, record_key_of

TICKET_FIELDS = ("subject", "description", "priority", "department", "profile", "parent", "channel",
                 "source_record")  # fmt: skip
POLICY_FIELDS = ("display_name", "rank", "disabled", "kinds", "departments", "targets", "calendar")


def ticket_edit(message: pb.Ticket, fields: Collection[str]) -> TicketEdit:
    """Return the edit that a message and its fields describe; an unset priority is normal."""
    priority = PRIORITIES[message.priority or pb.PRIORITY_NORMAL]
    return TicketEdit(
        subject=message.subject if "subject" in fields else None,
        description=message.description if "description" in fields else None,
        priority=priority if "priority" in fields else None,
        department=message.department if "department" in fields and message.department else None,
        opened_for=id_of(message.profile) if "profile" in fields else None,
        source_record=_record_of(message, fields),
        parent_id=id_of(message.parent) if "parent" in fields else None,
        channel=CHANNELS[message.channel] if "channel" in fields else None,
    )


def _record_of(message: pb.Ticket, fields: Collection[str]) -> str | None:
    """Return the customer's record; of another customer it is another, or none."""
    if "source_record" in fields:
        return record_key_of(message)
    return "" if "profile" in fields else None
