"""What access listens to: which ids of profiles mean the same person, so that people can be told who saw their data,
and so that shares follow.
"""

from __future__ import annotations

from datetime import UTC

from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.access.domain import shares as lending
from services.access.domain.names import Link, living
from services.access.store.names import Names
from services.access.store.shares import ShareStore
from services.chassis.consuming import Event, on_event

BORN_APART = -1  # the version of what an id was part of before it was an id


class AccessConsumer:
    """Notes links; late, twice or in any order they end the same. Erasure keeps them: they name nobody.

    Shares are moved to the id of now, worked out from all links, and end with a person who is erased.
    """

    name = "access"

    def __init__(self, names: Names, shares: ShareStore) -> None:
        self._names, self._shares = names, shares

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Note that an id means another profile."""
        told = event.message
        at = told.event_time.ToDatetime(UTC)
        self._names.add(Link(told.merged_profile_id, told.profile_id, told.merged_profile_version, at))
        self._follow(told.merged_profile_id, told.profile_id)

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Note that an id means itself, and what it was part of until then."""
        told = event.message
        together = told.together_since if told.HasField("together_since") else told.event_time
        part = Link(told.unmerged_profile_id, told.profile_id, BORN_APART, together.ToDatetime(UTC))
        self._names.add(part)
        self._names.add(Link(told.unmerged_profile_id, "", told.version, told.event_time.ToDatetime(UTC)))
        self._follow(told.unmerged_profile_id, told.profile_id)

    @on_event("profiles", ProfileErased)
    def on_profile_erased(self, event: Event[ProfileErased]) -> None:
        """End what is lent of a person who is no more."""
        names, at = {event.message.profile_id, *event.message.names}, event.message.event_time.ToDatetime(UTC)
        for share in self._shares.of_records(names):
            ended = lending.erased(share, names, at)
            if ended != share:
                self._shares.save(ended)

    def _follow(self, *profile_ids: str) -> None:
        """Move the shares of these profiles to the ids of now."""
        for share in self._shares.of_records(profile_ids):
            moved = lending.followed(share, lambda lent_id: living(lent_id, self._names.of))
            if moved != share:
                self._shares.save(moved)
