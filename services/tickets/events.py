"""What tickets learns from others: profiles that became one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from kehu.profiles.v1 import events_pb2 as profiles

from services.chassis.consuming import Event, on_event
from services.chassis.errors import Conflict
from services.tickets.domain.ticket import follow_merge
from services.tickets.store import TicketsStore

PAGE = 200


class TicketsConsumer:
    """Keeps tickets linked to golden records that live."""

    name = "tickets"

    def __init__(self, store: TicketsStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._now = clock

    @on_event("profiles", profiles.ProfilesMerged)
    def on_profiles_merged(self, event: Event[profiles.ProfilesMerged]) -> None:
        """Move the tickets of the merged profile to the one that lives on, at the end of its chain of merges.

        The merge is remembered first: a ticket that is opened meanwhile with the old id follows it too. Done
        again it finds nothing to move. A ticket that changes at this moment is tried again with the event.
        """
        merged = event.message.merged_profile_id
        self._store.remember_merge(merged, event.message.profile_id)
        survivor = self._store.survivor_of(merged)
        if survivor == merged:
            return
        while page := self._store.linked_to(merged, PAGE):
            moved = 0
            for ticket in page:
                try:
                    self._store.replace(follow_merge(ticket, survivor, self._now()))
                    moved += 1
                except Conflict:
                    continue
            if not moved:
                raise Conflict("the tickets of a merged profile are being changed; tried again later")
