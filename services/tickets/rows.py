"""The caller's rows: which tickets the row filter of the decision lets through."""

from __future__ import annotations

from services.chassis.access import Clause, Condition, Either, Except, in_reach
from services.chassis.server import current_call
from services.tickets.domain.ticket import Ticket

ROW_FIELDS = {
    "department": "department",
    "owner_department": "department",
    "assignee": "assignee",
    "profile_id": "profile_id",
    "ticket_id": "id",
}
OWN_FIELDS = frozenset(ROW_FIELDS.values())
NOTHING = Condition("department", ())
Rows = tuple[Clause, ...]


def of_call() -> Rows:
    """Return the rows of the call being served, on the fields of tickets."""
    return tuple(_own(clause) for clause in current_call().decision.obligations.row_filter)


def visible(ticket: Ticket, rows: Rows) -> bool:
    """Tell whether a ticket is within the rows."""
    return in_reach(rows, lambda field: getattr(ticket, field) if field in OWN_FIELDS else None)


def _own(clause: Clause) -> Clause:
    """Return a clause on the fields of tickets; one on a field that tickets have not lets nothing through."""
    if isinstance(clause, Either):
        return Either(tuple(tuple(_condition(each) for each in every) for every in clause.alternatives))
    if isinstance(clause, Except):
        return Except(ROW_FIELDS[clause.without], clause.excluded) if clause.without in ROW_FIELDS else NOTHING
    return _condition(clause)


def _condition(condition: Condition) -> Condition:
    return Condition(ROW_FIELDS[condition.field], condition.values) if condition.field in ROW_FIELDS else NOTHING
