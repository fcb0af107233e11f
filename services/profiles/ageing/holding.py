"""Legal holds in force, and whom they hold: a hold on a person follows merges and splits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from services.profiles.aliases import resolve
from services.profiles.domain.retention import Held
from services.profiles.store import Store
from services.profiles.values import Profile, StoredHold

PAGE = 500
PROFILE, SOURCE, RULE, EVERYTHING = "profile", "source", "rule", "everything"


def holds_in_force(store: Store, now: datetime) -> Iterator[StoredHold]:
    """Yield the holds that are neither released nor over."""
    after = ""
    while page := store.holds.page({}, after, PAGE):
        after = page[-1].id
        yield from (item for item in page if not item.release_time and (not item.expire_time or item.expire_time > now))


def held_now(store: Store, now: datetime) -> Held:
    """Return what is held; asked for every part of a run, so that a new hold stops a run under way."""
    found: dict[str, set[str]] = {PROFILE: set(), SOURCE: set(), RULE: set(), EVERYTHING: set()}
    for item in holds_in_force(store, now):
        found[item.scope].add(item.target)
    profiles = found[PROFILE]
    for living in resolve(store, sorted(profiles)).values() if profiles else ():
        profiles = profiles | _names_of(living)
    return Held(
        bool(found[EVERYTHING]), frozenset(found[RULE]), frozenset(found[SOURCE]), frozenset(profiles)
    )  # fmt: skip


def holds_on(store: Store, profile: Profile, now: datetime) -> list[str]:
    """Return the names of the holds in force that forbid to erase a person."""
    names, sources = _names_of(profile), {item.source_id for item in profile.records}
    found = []
    for item in holds_in_force(store, now):
        living = resolve(store, [item.target]) if item.scope == PROFILE else {}
        held = {item.target}.union(*(_names_of(other) for other in living.values()))
        if item.scope == EVERYTHING or (item.scope == SOURCE and item.target in sources) or (
            item.scope == PROFILE and not names.isdisjoint(held)
        ):  # fmt: skip
            found.append(f"legalHolds/{item.id}")
    return found


def _names_of(profile: Profile) -> set[str]:
    """Return the ids that a person had, has, or was split into: too much rather than too little is held."""
    split = {item.other_profile for item in profile.revisions if item.kind == "unmerged" and item.other_profile}
    return {profile.profile_id, *profile.aliases, *split}
