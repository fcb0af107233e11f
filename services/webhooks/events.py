"""What webhooks listens to: every event that apps may subscribe to.

tests/webhooks/test_events.py holds the list against the protos: an event that says `subscribable` has its handler here.
"""

from __future__ import annotations

from google.protobuf.message import Message
from kehu.consent.v1 import events_pb2 as consent
from kehu.marketing.v1 import events_pb2 as marketing
from kehu.profiles.v1 import events_pb2 as profiles
from kehu.tickets.v1 import events_pb2 as tickets

from services.chassis.consuming import Event, on_event
from services.webhooks.domain.catalogue import catalogue, event_type_name
from services.webhooks.queueing import Queue


class WebhooksConsumer:
    """Notes which record an event was about, for each subscription that wants it; a repeat changes nothing."""

    name = "webhooks"

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @on_event("profiles", profiles.ProfileChanged)
    def on_profile_changed(self, event: Event[profiles.ProfileChanged]) -> None:
        """Queue a profile's change."""
        self._take(event)

    @on_event("profiles", profiles.QualityIncidentChanged)
    def on_quality_incident_changed(self, event: Event[profiles.QualityIncidentChanged]) -> None:
        """Queue an incident's change."""
        self._take(event)

    @on_event("tickets", tickets.TicketChanged)
    def on_ticket_changed(self, event: Event[tickets.TicketChanged]) -> None:
        """Queue a ticket's change."""
        self._take(event)

    @on_event("marketing", marketing.CampaignChanged)
    def on_campaign_changed(self, event: Event[marketing.CampaignChanged]) -> None:
        """Queue a campaign's change."""
        self._take(event)

    @on_event("consent", consent.ConsentChanged)
    def on_consent_changed(self, event: Event[consent.ConsentChanged]) -> None:
        """Queue a change of a customer's consents."""
        self._take(event)

    @on_event("profiles", profiles.ProfileErased)
    def on_profile_erased(self, event: Event[profiles.ProfileErased]) -> None:
        """Forget what was queued and sent about the person, and queue that they were erased, once for each id."""
        names = event.message.names
        self._queue.forget([*names, *(f"profiles/{name}" for name in names)])
        self._take(event)

    def _take(self, event: Event[Message]) -> None:
        kind = catalogue()[event_type_name(event.message.DESCRIPTOR)]
        self._queue.add(kind.name, kind.resource(event.message), event.id, event.time)
