"""What marketing listens to: two profiles became one, or one became two again."""

from __future__ import annotations

from dataclasses import replace

from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.chassis.consuming import Event, on_event
from services.chassis.identities import one_living
from services.marketing.store import MarketingStore


class MarketingConsumer:
    """Deliveries and suppressions keep the id they were made under, and count for whom that id means by now."""

    name = "marketing"

    def __init__(self, store: MarketingStore) -> None:
        self._store = store

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Let the survivor answer for the merged id."""
        told = event.message
        self._store.identities.lead(told.merged_profile_id, told.profile_id, told.merged_profile_version)

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Let the id answer for itself; who must not be written to stays so on both sides.

        What was suppressed before the split counts for both: copied first, so that nobody is written to in between.
        """
        told = event.message
        if self._store.identities.knows(told.unmerged_profile_id, told.version):
            return
        self._suppress_both(told.unmerged_profile_id, told.profile_id)
        self._store.identities.lead(told.unmerged_profile_id, "", told.version)

    @on_event("profiles", ProfileErased)
    def on_profile_erased(self, event: Event[ProfileErased]) -> None:
        """Forget where erased people were written to; a suppressed address stays suppressed, by its token."""
        for name in event.message.names:
            self._store.forget_addresses(name)

    def _suppress_both(self, *profile_ids: str) -> None:
        persons = [one_living(self._store.identities, each) for each in profile_ids]
        sides = list(dict.fromkeys([*profile_ids, *persons]))
        everybody = [*sides, *self._store.identities.family(sides)]
        for held in self._store.suppressions_of(everybody, []):
            for side in profile_ids:
                self._store.suppress(replace(held, profile_id=side))
