"""What the tickets store promises: tickets, comments, SLA policies and merged profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kehu.tickets.v1 import events_pb2

from services.chassis.access import Clause
from services.chassis.identities import Identities
from services.tickets.domain.sla import Kind, SlaPolicy
from services.tickets.domain.ticket import Category, Ticket


@dataclass(frozen=True, slots=True)
class Comment:
    """Something said on a ticket."""

    id: str
    ticket_id: str
    author: str
    text: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class TicketFilter:
    """What a list is narrowed to; empty fields are any. `rows` are the caller's own limits, all of them hold."""

    profile_id: str = ""
    category: Category | None = None
    kind: Kind | None = None
    department: str = ""
    assignee: str = ""
    rows: tuple[Clause, ...] = ()


class TicketsStore(Protocol):
    """Where the service keeps its state; every write of a ticket carries its fact."""

    def next_number(self, day: str) -> str:
        """Return an unused number such as T20261121-000001 for a day of eight digits."""

    def insert(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep a new ticket.

        Raises:
            AlreadyExists: its id is taken.
        """

    def get(self, ticket_id: str) -> Ticket | None:
        """Return a ticket, deleted ones included."""

    def seen(self, ticket_id: str, request_id: str) -> bool:
        """Tell whether this request changed the ticket already."""

    def replace(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep the next version of a ticket.

        Raises:
            Conflict: the stored version is not the one before.
        """

    def page(self, narrowed: TicketFilter, before_number: str, limit: int) -> list[Ticket]:
        """Return tickets that are not deleted, by number from the newest, below `before_number` if set."""

    @property
    def identities(self) -> Identities:
        """Return what the service knows of the ids of profiles."""

    def opened_for(self, profile_id: str, after_id: str, limit: int) -> list[Ticket]:
        """Return tickets that were opened under an id and are not deleted, by id."""

    def about_records(self, record_keys: Sequence[str]) -> list[Ticket]:
        """Return tickets about these source records that are not deleted."""

    def states(self, after_id: str, limit: int) -> list[events_pb2.TicketChanged]:
        """Return the facts of all tickets by id, deleted ones included."""

    def add_comment(self, comment: Comment) -> None:
        """Keep a comment.

        Raises:
            AlreadyExists: its id is taken.
        """

    def comment(self, comment_id: str) -> Comment | None:
        """Return a comment."""

    def comments(self, ticket_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Comment]:
        """Return a ticket's comments, oldest first, after a place in that order."""

    def erase_comments(self, ticket_id: str) -> None:
        """Delete all comments of a ticket."""

    def insert_policy(self, policy: SlaPolicy) -> None:
        """Keep a new policy.

        Raises:
            AlreadyExists: its id is taken.
        """

    def policy(self, policy_id: str) -> SlaPolicy | None:
        """Return a policy."""

    def policies(self) -> list[SlaPolicy]:
        """Return all policies in the order in which they are tried."""

    def replace_policy(self, policy: SlaPolicy) -> None:
        """Keep the next version of a policy.

        Raises:
            Conflict: the stored version is not the one before.
        """

    def delete_policy(self, policy: SlaPolicy) -> None:
        """Delete a policy of this version.

        Raises:
            Conflict: the stored version is another one.
        """


def number_of(day: str, counter: int) -> str:
    """Return the number of the n-th ticket of a day; it sorts as text for a million tickets a day."""
    return f"T{day}-{counter:06d}"
