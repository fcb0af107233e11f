"""What an update changes in tickets and SLA policies."""

from __future__ import annotations

from collections.abc import Collection

from kehu.tickets.v1 import tickets_pb2 as pb

from services.tickets.domain.ticket import TicketEdit
from services.tickets.wire import CHANNELS, PRIORITIES, id_of

TICKET_FIELDS = ("subject", "description", "priority", "department", "profile", "parent", "channel")
POLICY_FIELDS = ("display_name", "rank", "disabled", "kinds", "departments", "targets", "calendar")


def ticket_edit(message: pb.Ticket, fields: Collection[str]) -> TicketEdit:
    """Return the edit that a message and its fields describe; an unset priority is normal."""
    priority = PRIORITIES[message.priority or pb.PRIORITY_NORMAL]
    return TicketEdit(
        subject=message.subject if "subject" in fields else None,
        description=message.description if "description" in fields else None,
        priority=priority if "priority" in fields else None,
        department=message.department if "department" in fields and message.department else None,
        profile_id=id_of(message.profile) if "profile" in fields else None,
        parent_id=id_of(message.parent) if "parent" in fields else None,
        channel=CHANNELS[message.channel] if "channel" in fields else None,
    )
