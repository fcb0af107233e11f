"""What the tickets store promises: tickets, comments, SLA policies and merged profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kehu.tickets.v1 import events_pb2

from services.tickets.domain.sla import Kind, SlaPolicy
from services.tickets.domain.ticket import Category, Ticket

MERGE_CHAIN = 50  # merges of merges that are followed; longer chains are cycles


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
    rows: tuple[tuple[str, frozenset[str]], ...] = ()


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

    def linked_to(self, profile_id: str, limit: int) -> list[Ticket]:
        """Return tickets of a profile that are not deleted, in any order."""

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

    def remember_merge(self, merged_id: str, survivor_id: str) -> None:
        """Remember that a profile lives on as another; safe to repeat."""

    def survivor_of(self, profile_id: str) -> str:
        """Return the profile that a profile lives on as, itself when it was never merged."""


def follow(profile_id: str, survivor: Callable[[str], str | None]) -> str:
    """Return the end of a chain of merges; a chain that comes back to itself ends where it began to repeat."""
    seen = {profile_id}
    for _ in range(MERGE_CHAIN):
        following = survivor(profile_id)
        if following is None or following in seen:
            return profile_id
        seen.add(following)
        profile_id = following
    return profile_id


def number_of(day: str, counter: int) -> str:
    """Return the number of the n-th ticket of a day; it sorts as text for a million tickets a day."""
    return f"T{day}-{counter:06d}"
