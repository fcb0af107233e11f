"""Legal holds in force, and whom they hold: a hold on a person follows merges and splits, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from services.profiles.domain.retention import Held
from services.profiles.store import Store
from services.profiles.values import UNMERGED, Profile, StoredHold

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
    return Held(
        bool(found[EVERYTHING]), frozenset(found[RULE]), frozenset(found[SOURCE]), _kin(store, found[PROFILE])
    )  # fmt: skip


def holds_on(store: Store, profile: Profile, now: datetime) -> list[str]:
    """Return the names of the holds in force that forbid to erase a person."""
    kin, sources = _kin(store, [profile.profile_id]), {item.source_id for item in profile.records}
    return [
        f"legalHolds/{item.id}"
        for item in holds_in_force(store, now)
        if item.scope == EVERYTHING
        or (item.scope == SOURCE and item.target in sources)
        or (item.scope == PROFILE and item.target in kin)
    ]


def _kin(store: Store, profile_ids: Iterable[str]) -> frozenset[str]:
    """Return these ids and all that merges and splits connect with them, each read once.

    A survivor does not inherit the splits of whom it took over, so every id is asked for its own. Too much rather than
    too little is held.
    """
    kin: set[str] = set()
    waiting = set(profile_ids)
    while waiting:
        kin |= waiting
        loaded = store.profiles(sorted(waiting)).values()
        waiting = {name for item in loaded for name in _beside(item)} - kin
    return frozenset(kin)


def _beside(profile: Profile) -> set[str]:
    """Return the ids that an id was merged into, took over, and was split from or into."""
    split = {item.other_profile for item in profile.revisions if item.kind == UNMERGED}
    return {profile.merged_into, *profile.aliases, *split} - {""}
