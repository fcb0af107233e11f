"""Which living profile an id means: its own, or the one that took it over, at the end of its chain of merges."""

from __future__ import annotations

from collections.abc import Sequence

from services.profiles.errors import ProfileNotFound
from services.profiles.store import Store
from services.profiles.values import Profile

ALIAS_STEPS = 32


def resolve(store: Store, profile_ids: Sequence[str]) -> dict[str, Profile]:
    """Return the living profile for each id, current or former; unknown ids and erased people are left out."""
    found: dict[str, Profile] = {}
    waiting = {item: item for item in profile_ids}
    for _ in range(ALIAS_STEPS):
        loaded = store.profiles(sorted(set(waiting.values())))
        reached = {asked: loaded[at] for asked, at in waiting.items() if at in loaded and not loaded[at].is_erased}
        found.update({asked: item for asked, item in reached.items() if not item.merged_into})
        waiting = {asked: item.merged_into for asked, item in reached.items() if item.merged_into}
        if not waiting:
            break
    return found


def resolve_one(store: Store, profile_id: str) -> Profile:
    """Return the living profile of a current or former id.

    Raises:
        ProfileNotFound: there never was one.
    """
    found = resolve(store, [profile_id]).get(profile_id)
    if found is None:
        raise ProfileNotFound("there is no such profile", metadata={"name": f"profiles/{profile_id}"})
    return found
