"""What marketing listens to: two profiles became one, or one became two again."""

from __future__ import annotations

from collections.abc import Sequence
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
        identities, out = self._store.identities, told.unmerged_profile_id
        is_late = identities.knows(out, told.version + 1)  # merged again since, and that was heard first
        if identities.knows(out, told.version) and not is_late:
            return
        for name in told.former_names:
            identities.lead(name.profile_id, name.merged_into, name.version)
        sides = [out, told.profile_id]
        everybody = {*sides, *(name.profile_id for name in told.former_names)}
        if not is_late:
            everybody |= {*(one_living(identities, each) for each in sides), *identities.family(sides)}
        self._suppress_both(sides, sorted(everybody))
        identities.lead(out, "", told.version)

    @on_event("profiles", ProfileErased)
    def on_profile_erased(self, event: Event[ProfileErased]) -> None:
        """Forget where erased people were written to; a suppressed address stays suppressed, by its token."""
        for name in event.message.names:
            self._store.forget_addresses(name)

    def _suppress_both(self, profile_ids: Sequence[str], everybody: Sequence[str]) -> None:
        for held in self._store.suppressions_of(everybody, []):
            for side in profile_ids:
                self._store.suppress(replace(held, profile_id=side))
