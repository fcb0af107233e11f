"""What marketing listens to: two profiles became one."""

from __future__ import annotations

from kehu.profiles.v1.events_pb2 import ProfilesMerged

from services.chassis.consuming import Event, on_event
from services.marketing.store import MarketingStore


class MarketingConsumer:
    """Deliveries and suppressions of a merged profile count as the survivor's from then on."""

    name = "marketing"

    def __init__(self, store: MarketingStore) -> None:
        self._store = store

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Let the survivor answer for the merged id; deliveries keep the id they were sent under."""
        self._store.merge(event.message.profile_id, event.message.merged_profile_id)
