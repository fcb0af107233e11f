"""What analytics listens to: profiles, merges, splits, consents, deliveries. Facts wait in the inbox for the lake."""

from __future__ import annotations

from google.protobuf.message import Message
from kehu.consent.v1.events_pb2 import ConsentChanged
from kehu.marketing.v1.events_pb2 import DeliveryRecorded
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.analytics.domain.rows import Keyed, record_token, rows_of
from services.analytics.store import Entry, Inbox
from services.chassis.consuming import Event, on_event


class AnalyticsConsumer:
    """One method per fact; repeats and reordering are dropped on the way into the lake."""

    name = "analytics"

    def __init__(self, inbox: Inbox, keyed: Keyed) -> None:
        """Keep facts in the inbox, source records as their keyed tokens."""
        self._inbox = inbox
        self._keyed = keyed

    @on_event("profiles", ProfileChanged)
    def on_profile_changed(self, event: Event[ProfileChanged]) -> None:
        """Keep the traits; names, contacts and source links stay outside the lake."""
        traits = ProfileChanged()
        traits.CopyFrom(event.message)
        traits.ClearField("sealed_identity")
        traits.ClearField("links")
        self._keep(event.id, traits)

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Let the survivor answer for the merged profile."""
        self._keep(event.id, event.message)

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Let the profile answer for itself and for its source records."""
        told = ProfilesUnmerged()
        told.CopyFrom(event.message)
        for link in (*told.links, *told.remaining_links):
            link.source_record_id = record_token(self._keyed, link.source_id, link.source_record_id)
            link.source_id = ""
        self._keep(event.id, told)

    @on_event("profiles", ProfileErased)
    def on_profile_erased(self, event: Event[ProfileErased]) -> None:
        """Remove all rows of an erased person from the lake."""
        self._keep(event.id, event.message)

    @on_event("consent", ConsentChanged)
    def on_consent_changed(self, event: Event[ConsentChanged]) -> None:
        """Keep what stands for purpose and channel."""
        self._keep(event.id, event.message)

    @on_event("marketing", DeliveryRecorded)
    def on_delivery_recorded(self, event: Event[DeliveryRecorded]) -> None:
        """Keep the outcome for a recipient."""
        self._keep(event.id, event.message)

    def _keep(self, event_id: str, message: Message) -> None:
        rows_of(message)  # what cannot become rows is refused here, and parked, instead of stopping the feeder
        self._inbox.put(Entry(event_id, message.DESCRIPTOR.full_name, message.SerializeToString()))
