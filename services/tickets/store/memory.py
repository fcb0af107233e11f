"""The tickets store in memory, for tests: the same promises, checked by the same suite."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from kehu.tickets.v1 import events_pb2

from services.chassis.access import in_reach
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.identities import MemoryIdentities
from services.chassis.records import Fact
from services.tickets.domain.sla import SlaPolicy
from services.tickets.domain.ticket import Ticket
from services.tickets.store.facts import Facts
from services.tickets.store.port import Comment, TicketFilter, number_of


class MemoryTicketsStore:
    """Keeps everything in dictionaries; `published` holds the facts in order."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._lock = threading.RLock()
        self._tickets: dict[str, Ticket] = {}
        self._requests: set[tuple[str, str]] = set()
        self._comments: dict[str, Comment] = {}
        self._policies: dict[str, SlaPolicy] = {}
        self.identities = MemoryIdentities()
        self._counters: dict[str, int] = {}
        self.published: list[Fact] = []

    def next_number(self, day: str) -> str:
        """Count up."""
        with self._lock:
            self._counters[day] = self._counters.get(day, 0) + 1
            return number_of(day, self._counters[day])

    def insert(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep a new ticket."""
        with self._lock:
            if ticket.id in self._tickets or ticket.number in {each.number for each in self._tickets.values()}:
                raise AlreadyExists("a record with this name or key exists already")
            self._keep(ticket, request_id)

    def _keep(self, ticket: Ticket, request_id: str) -> None:
        self._tickets[ticket.id] = ticket
        self.published += self._facts.of(ticket)
        if request_id:
            self._requests.add((ticket.id, request_id))

    def get(self, ticket_id: str) -> Ticket | None:
        """Return a ticket."""
        return self._tickets.get(ticket_id)

    def seen(self, ticket_id: str, request_id: str) -> bool:
        """Tell whether this request was here."""
        return bool(request_id) and (ticket_id, request_id) in self._requests

    def replace(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep the next version."""
        with self._lock:
            known = self._tickets.get(ticket.id)
            if known is None or known.version != ticket.version - 1:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._keep(ticket, request_id)

    def page(self, narrowed: TicketFilter, before_number: str, limit: int) -> list[Ticket]:
        """Return the newest numbers."""
        found = [each for each in self._tickets.values() if not each.deleted and _fits(each, narrowed)]
        found = [each for each in found if not before_number or each.number < before_number]
        return sorted(found, key=lambda each: each.number, reverse=True)[:limit]

    def opened_for(self, profile_id: str, after_id: str, limit: int) -> list[Ticket]:
        """Return tickets opened under an id."""
        found = [each for each in self._tickets.values() if each.opened_for == profile_id and not each.deleted]
        return sorted((each for each in found if each.id > after_id), key=lambda each: each.id)[:limit]

    def about_records(self, record_keys: Sequence[str]) -> list[Ticket]:
        """Return tickets about records."""
        wanted = set(record_keys) - {""}
        return [each for each in self._tickets.values() if each.source_record in wanted and not each.deleted]

    def states(self, after_id: str, limit: int) -> list[events_pb2.TicketChanged]:
        """Return facts by id."""
        ids = sorted(each for each in self._tickets if each > after_id)[:limit]
        return [self._facts.message(self._tickets[each]) for each in ids]

    def add_comment(self, comment: Comment) -> None:
        """Keep a comment."""
        with self._lock:
            if comment.id in self._comments:
                raise AlreadyExists("a record with this name or key exists already")
            self._comments[comment.id] = comment

    def comment(self, comment_id: str) -> Comment | None:
        """Return a comment."""
        return self._comments.get(comment_id)

    def comments(self, ticket_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Comment]:
        """Return comments in order."""
        found = [each for each in self._comments.values() if each.ticket_id == ticket_id]
        found = [each for each in found if after is None or (each.create_time, each.id) > after]
        return sorted(found, key=lambda each: (each.create_time, each.id))[:limit]

    def erase_comments(self, ticket_id: str) -> None:
        """Delete a ticket's comments."""
        with self._lock:
            kept = {key: each for key, each in self._comments.items() if each.ticket_id != ticket_id}
            self._comments = kept

    def insert_policy(self, policy: SlaPolicy) -> None:
        """Keep a new policy."""
        with self._lock:
            if policy.id in self._policies:
                raise AlreadyExists("a record with this name or key exists already")
            self._policies[policy.id] = replace(policy, version=1)

    def policy(self, policy_id: str) -> SlaPolicy | None:
        """Return a policy."""
        return self._policies.get(policy_id)

    def policies(self) -> list[SlaPolicy]:
        """Return all policies."""
        return sorted(self._policies.values(), key=lambda each: (each.rank, each.id))

    def replace_policy(self, policy: SlaPolicy) -> None:
        """Keep the next version."""
        with self._lock:
            known = self._policies.get(policy.id)
            if known is None or known.version != policy.version - 1:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._policies[policy.id] = policy

    def delete_policy(self, policy: SlaPolicy) -> None:
        """Delete this version."""
        with self._lock:
            known = self._policies.get(policy.id)
            if known is None or known.version != policy.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            del self._policies[policy.id]


def _fits(ticket: Ticket, narrowed: TicketFilter) -> bool:
    wanted = (
        (narrowed.profile_id, ticket.profile_id),
        (narrowed.category, ticket.category),
        (narrowed.kind, ticket.kind),
        (narrowed.department, ticket.department),
        (narrowed.assignee, ticket.assignee),
    )
    return all(not want or want == have for want, have in wanted) and in_reach(
        narrowed.rows, lambda field: getattr(ticket, field)
    )
