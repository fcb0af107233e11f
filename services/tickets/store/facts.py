"""The fact of a ticket: what a write of it publishes, and what search reads when it rebuilds."""

from __future__ import annotations

from collections.abc import Sequence

from kehu.tickets.v1 import events_pb2

from services.chassis.crypto import Sealer
from services.chassis.records import Fact
from services.tickets.domain.ticket import Ticket


class Facts:
    """Makes the fact of a ticket: its whole state, its words sealed for the broker."""

    def __init__(self, sealer: Sealer) -> None:
        """Seal with the key of purpose `events`."""
        self._sealer = sealer

    def message(self, ticket: Ticket) -> events_pb2.TicketChanged:
        """Return the state of a ticket as TicketChanged."""
        message = events_pb2.TicketChanged(
            ticket_id=ticket.id,
            version=ticket.version,
            event_time=ticket.update_time,
            deleted=ticket.deleted,
            profile_id=ticket.profile_id,
            kind=ticket.kind.value,
            status=ticket.status.value,
            status_category=ticket.category.value,
            priority=ticket.priority.value,
            department=ticket.department,
            number=ticket.number,
        )
        if not ticket.deleted:
            text = events_pb2.TicketText(subject=ticket.subject, description=ticket.description)
            message.sealed_text = self._sealer.seal(text.SerializeToString(), ticket.id.encode())
        return message

    def of(self, ticket: Ticket) -> Sequence[Fact]:
        """Return what a write of the ticket publishes."""
        return [Fact(self.message(ticket), f"tickets/{ticket.id}", ticket.version)]
