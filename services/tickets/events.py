"""What tickets learns from others: profiles that became one, or two again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from kehu.profiles.v1 import events_pb2 as profiles

from services.chassis.consuming import Event, on_event
from services.chassis.errors import Conflict
from services.tickets.domain.ticket import Ticket, customer_of, follow, forget_customer
from services.tickets.store import TicketFilter, TicketsStore

PAGE = 200


class TicketsConsumer:
    """Keeps tickets linked to golden records that live.

    A fact is remembered first: a ticket that is opened meanwhile with the old id follows it too. Then each ticket that
    it may concern is linked to whom it belongs by all that is known: done again, late or early it ends the same.
    """

    name = "tickets"

    def __init__(self, store: TicketsStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._now = clock

    @on_event("profiles", profiles.ProfilesMerged)
    def on_profiles_merged(self, event: Event[profiles.ProfilesMerged]) -> None:
        """Move the tickets of the merged profile to the one that lives on, at the end of its chain of merges."""
        told = event.message
        self._store.identities.lead(told.merged_profile_id, told.profile_id, told.merged_profile_version)
        self._relink([told.merged_profile_id])

    @on_event("profiles", profiles.ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[profiles.ProfilesUnmerged]) -> None:
        """Give back the tickets that were opened for the profile, and those about its records."""
        told = event.message
        at = told.event_time.ToDatetime(UTC)
        went, stayed = (
            [f"{link.source_id}/{link.source_record_id}" for link in links]
            for links in (told.links, told.remaining_links)
        )
        self._store.identities.move(went, told.unmerged_profile_id, at)
        self._store.identities.move(stayed, told.profile_id, at)
        self._store.identities.lead(told.unmerged_profile_id, "", told.version)
        self._relink([told.unmerged_profile_id, *told.aliases], [*went, *stayed])

    @on_event("profiles", profiles.ProfileErased)
    def on_profile_erased(self, event: Event[profiles.ProfileErased]) -> None:
        """Take words, comments and customer out of the tickets of an erased person."""
        busy = 0
        for name in event.message.names:
            after = ""
            while page := self._store.page(TicketFilter(profile_id=name), after, PAGE):
                after = page[-1].number
                busy += sum(not self._forgotten(ticket) for ticket in page)
        if busy:
            raise Conflict("tickets of the erased profile are being changed; tried again later")

    def _forgotten(self, ticket: Ticket) -> bool:
        self._store.erase_comments(ticket.id)
        try:
            self._store.replace(forget_customer(ticket, self._now()))
        except Conflict:
            return False
        self._store.erase_comments(ticket.id)  # one may have come meanwhile
        return True

    def _relink(self, profile_ids: Sequence[str], record_keys: Sequence[str] = ()) -> None:
        """Link the tickets opened under these ids, those that led to them, or about these records.

        Raises:
            Conflict: one is being changed at this moment; the event is tried again.
        """
        ids = [*profile_ids, *self._store.identities.family(profile_ids)]
        busy = 0
        linked = [ticket for name in ids for ticket in self._linked_to(name)]
        for ticket in (*self._opened_for(ids), *self._store.about_records(record_keys), *linked):
            ticket = self._store.get(ticket.id) or ticket
            customer = customer_of(ticket, self._store.identities)
            if customer == ticket.profile_id:
                continue
            try:
                self._store.replace(follow(ticket, customer, self._now()))
            except Conflict:
                busy += 1
        if busy:
            raise Conflict("tickets of the profile are being changed; tried again later")

    def _linked_to(self, profile_id: str) -> list[Ticket]:
        """Return the tickets of a profile: those about its records were opened under other ids."""
        found: list[Ticket] = []
        after = ""
        while page := self._store.page(TicketFilter(profile_id=profile_id), after, PAGE):
            after = page[-1].number
            found += page
        return found

    def _opened_for(self, profile_ids: Iterable[str]) -> Iterator[Ticket]:
        for profile_id in dict.fromkeys(profile_ids):
            after = ""
            while page := self._store.opened_for(profile_id, after, PAGE):
                after = page[-1].id
                yield from page
