"""The caller's rows: which tickets the row filter of the decision lets through."""

from __future__ import annotations

from services.chassis.server import current_call
from services.tickets.domain.ticket import Ticket

ROW_FIELDS = {
    "department": "department",
    "owner_department": "department",
    "assignee": "assignee",
    "profile_id": "profile_id",
}
Rows = tuple[tuple[str, frozenset[str]], ...]


def of_call() -> Rows:
    """Return the rows of the call being served; a rule on a field that tickets have not lets nothing through."""
    conditions = current_call().decision.obligations.row_filter
    return tuple(
        (ROW_FIELDS[each.field], frozenset(each.values))
        if each.field in ROW_FIELDS
        else ("department", frozenset[str]())
        for each in conditions
    )


def visible(ticket: Ticket, rows: Rows) -> bool:
    """Tell whether a ticket is within the rows."""
    return all(getattr(ticket, field) in values for field, values in rows)
