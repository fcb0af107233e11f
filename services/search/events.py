"""What search learns from the owners of records: every fact becomes one versioned write to the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kehu.profiles.v1 import events_pb2 as profiles
from kehu.tickets.v1 import events_pb2 as tickets

from services.chassis.consuming import Event, on_event
from services.search.documents import DocumentMaker
from services.search.store import IndexDocument

Write = Callable[[Sequence[IndexDocument]], None]


class SearchConsumer:
    """Keeps the index equal to its sources; repeats and older facts change nothing.

    A merge needs no handler of its own: the merged profile's last ProfileChanged makes its tombstone, and
    tickets that follow it tell so themselves.
    """

    name = "search"

    def __init__(self, write: Write, maker: DocumentMaker) -> None:
        """`write` returns when the documents are committed, or raises."""
        self._write = write
        self._maker = maker

    @on_event("profiles", profiles.ProfileChanged)
    def on_profile_changed(self, event: Event[profiles.ProfileChanged]) -> None:
        """Index a profile's new state."""
        self._write([self._maker.of_profile(event.message)])

    @on_event("tickets", tickets.TicketChanged)
    def on_ticket_changed(self, event: Event[tickets.TicketChanged]) -> None:
        """Index a ticket's new state."""
        self._write([self._maker.of_ticket(event.message)])
