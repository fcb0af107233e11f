"""What access listens to: which ids of profiles mean the same person, so that people can be told who saw their data."""

from __future__ import annotations

from datetime import UTC

from kehu.profiles.v1.events_pb2 import ProfilesMerged, ProfilesUnmerged

from services.access.domain.names import Link
from services.access.store.names import Names
from services.chassis.consuming import Event, on_event

BORN_APART = -1  # the version of what an id was part of before it was an id


class AccessConsumer:
    """Notes links; late, twice or in any order they end the same. Erasure keeps them: they name nobody."""

    name = "access"

    def __init__(self, names: Names) -> None:
        self._names = names

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Note that an id means another profile."""
        told = event.message
        at = told.event_time.ToDatetime(UTC)
        self._names.add(Link(told.merged_profile_id, told.profile_id, told.merged_profile_version, at))

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Note that an id means itself, and what it was part of until then."""
        told = event.message
        together = told.together_since if told.HasField("together_since") else told.event_time
        part = Link(told.unmerged_profile_id, told.profile_id, BORN_APART, together.ToDatetime(UTC))
        self._names.add(part)
        self._names.add(Link(told.unmerged_profile_id, "", told.version, told.event_time.ToDatetime(UTC)))
