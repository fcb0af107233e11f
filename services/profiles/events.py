"""What profiles listens to: scores that were computed, and its own merges and splits, for the lifecycle stages."""

from __future__ import annotations

from collections.abc import Sequence

from kehu.analytics.v1.events_pb2 import ScoresComputed
from kehu.profiles.v1 import lifecycle_pb2
from kehu.profiles.v1.events_pb2 import ProfilesMerged, ProfilesUnmerged

from services.chassis.consuming import Event, on_event
from services.chassis.errors import Conflict
from services.chassis.jobs import Jobs
from services.profiles.ageing.staging import NOBODY, STAGE
from services.profiles.store import Store
from services.profiles.values import Unstaged

TRIES = 8


class ProfilesConsumer:
    """Leaves work for the jobs that give stages; the same fact again leaves no more of it."""

    name = "profiles"

    def __init__(self, store: Store, jobs: Jobs) -> None:
        self._store = store
        self._jobs = jobs

    @on_event("analytics", ScoresComputed)
    def on_scores_computed(self, event: Event[ScoresComputed]) -> None:
        """Evaluate all profiles, once for each computation."""
        told = event.message
        self._jobs.start(STAGE, {}, lifecycle_pb2.LifecycleEffect(), NOBODY, f"{told.name}/{told.version}")

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Evaluate the profile that lives on."""
        self._leave([event.message.profile_id])

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Evaluate both."""
        self._leave([event.message.profile_id, event.message.unmerged_profile_id])

    def _leave(self, profile_ids: Sequence[str]) -> None:
        """Note that profiles are to be looked at, again if they are being looked at."""
        for profile_id in profile_ids:
            for _ in range(TRIES):
                found = self._store.unstaged.get(profile_id)
                if found is None:
                    if self._store.unstaged.add_missing([Unstaged(profile_id)]):
                        break
                    continue
                try:
                    self._store.unstaged.replace(found)
                except Conflict:
                    continue
                break
