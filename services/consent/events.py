"""What consent listens to: two profiles became one."""

from __future__ import annotations

from dataclasses import replace

from kehu.profiles.v1.events_pb2 import ProfilesMerged

from services.chassis.consuming import Event, on_event
from services.chassis.errors import Unavailable
from services.consent.domain.merging import merge_consents
from services.consent.domain.records import ProfileConsents
from services.consent.store import ConsentStore, consents_for

TRIES = 8  # an answer may arrive for either profile between reading and writing


class ConsentConsumer:
    """Merges follow at most seconds after the profiles; doing one twice changes nothing."""

    name = "consent"

    def __init__(self, store: ConsentStore) -> None:
        self._store = store

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Let the survivor answer for the merged profile: the strictest answer stands, all evidence is kept."""
        survivor_id, merged_id = event.message.profile_id, event.message.merged_profile_id
        for _ in range(TRIES):
            merged = self._store.consents([merged_id]).get(merged_id, ProfileConsents(merged_id))
            survivor = consents_for(self._store, [survivor_id])[survivor_id]
            if merged.merged_into or survivor.profile_id == merged_id:
                return
            grown, facts = merge_consents(survivor, merged, event.time)
            if facts and self._store.save_consents([(grown, facts)]):
                continue
            alias = replace(merged, merged_into=survivor.profile_id)
            if not self._store.save_consents([(alias, [])]):
                return
        raise Unavailable("the profiles' consents are being changed by others; the merge is tried again")
