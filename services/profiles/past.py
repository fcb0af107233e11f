"""What a profile was at a time: the version it had then, from the kept history or as it is."""

from __future__ import annotations

from datetime import datetime

from services.profiles.aliases import ALIAS_STEPS
from services.profiles.errors import HistoryNotKept, ProfileNotFound
from services.profiles.store import Store
from services.profiles.values import Profile


def profile_at(store: Store, profile_id: str, time: datetime) -> Profile:
    """Return what the name meant at a time: before a merge the profile itself, from then on the one that took it over.

    Raises:
        ProfileNotFound: there was no such profile then.
        HistoryNotKept: it was there, but history was not kept yet, or retention took it.
    """
    for _ in range(ALIAS_STEPS):
        found = store.profiles([profile_id]).get(profile_id)
        if found is None:
            break
        if found.since > time:
            found = _version_at(store, found, time)
        if not found.merged_into:
            return found
        profile_id = found.merged_into
    raise ProfileNotFound("there is no such profile", metadata={"name": f"profiles/{profile_id}"})


def _version_at(store: Store, profile: Profile, time: datetime) -> Profile:
    past = store.past_at(profile.profile_id, time)
    if past is not None and past.golden:
        return past
    metadata = {"name": f"profiles/{profile.profile_id}"}
    if time < profile.create_time:
        raise ProfileNotFound("there was no such profile then", metadata=metadata)
    raise HistoryNotKept("what the profile was then is not kept", metadata=metadata)
