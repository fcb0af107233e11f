"""A new data key for a customer: all that the old ones sealed is sealed anew, then the old ones are destroyed.

Two steps, so that nobody who reads meanwhile misses a key: `reseal` writes everything under the new key and notes which
keys it replaces; `settle`, some time later, seals what slower writers left, and destroys those. Each may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from services.profiles.relations.relating import Relations
from services.profiles.store import Store
from services.profiles.values import Profile, StoredRecord
from services.profiles.vault import Ciphers, Vault

PAST_AT_ONCE = 100
RELATIVES = 1000  # profiles that splits lead to from one; more are looked for no further


def key_ids_of(profile: Profile) -> set[str]:
    """Return the data keys that seal the present state of a profile."""
    used = {item.key_id for item in profile.records} | {item.key_id for item in profile.overrides}
    return {key_id for key_id in used | ({profile.key_id} if profile.golden else set()) if key_id}


def next_key_id(key_id: str) -> str:
    """Return the id of the key that follows: `p`, `p.1`, `p.2`, …"""
    base, _, number = key_id.partition(".")
    return f"{base}.{int(number or 0) + 1}"


class Resealer:
    """Gives customers new data keys."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._relations = Relations(store, vault)

    def reseal(self, profile: Profile) -> bool:
        """Seal a living profile with its history under a new key; say whether it is done.

        It is not when somebody else changed the profile meanwhile, or is handing records over to it.
        """
        if not profile.golden or self._takes_over(profile):
            return False
        old = self._vault.ciphers(self._store, [profile])
        if not key_ids_of(profile) <= old.by_id.keys():
            return False  # erased, or about to be
        key_id = next_key_id(profile.key_id)
        new = self._vault.new_ciphers(self._store, [key_id])
        known = self._store.former_keys([profile.key_id]).get(profile.key_id, [])
        former = {*key_ids_of(profile), profile.key_id, *known, *self.past_keys(profile)} - {key_id}
        self._store.succeed(key_id, sorted(former))
        if self._store.write_profiles([(self._resealed(profile, old, new, key_id), [])]):
            return False
        self._reseal_history(profile, Ciphers({**old.by_id, **new.by_id}), key_id)
        return True

    def settle(self, profile: Profile) -> int:
        """Destroy the keys that the profile's own took the place of; return how many.

        A key that another living profile still uses, since records of one were split off, waits for that one.
        """
        former = self._store.former_keys([profile.key_id]).get(profile.key_id, [])
        if not former or self._takes_over(profile):
            return 0
        relatives = self.relatives(profile)
        used = key_ids_of(profile).union(*(key_ids_of(item) | self.past_keys(item) for item in relatives))
        ciphers = self._vault.ciphers_of(self._store, [*former, profile.key_id])
        self._reseal_history(profile, ciphers, profile.key_id)
        gone = [key_id for key_id in former if key_id not in used]
        for key_id in gone:
            self._store.destroy_data_key(key_id)
            self._vault.forget(key_id)
        self._store.succeed(profile.key_id, [key_id for key_id in former if key_id in used])
        return len(gone)

    def relatives(self, profile: Profile) -> list[Profile]:
        """Return the living profiles that records of the same keys may have been split to, one after another."""
        seen, found, waiting = {profile.profile_id, *profile.aliases}, [], set(profile.apart)
        while waiting - seen and len(seen) < RELATIVES:
            loaded = self._store.profiles(sorted(waiting - seen))
            seen |= waiting
            waiting = {name for item in loaded.values() for name in (item.merged_into, *item.apart) if name}
            found += [item for item in loaded.values() if not item.merged_into]
        return found

    def _takes_over(self, profile: Profile) -> bool:
        return any(item.is_handing_over for item in self._store.profiles(profile.aliases).values())

    def _resealed(self, profile: Profile, old: Ciphers, new: Ciphers, key_id: str) -> Profile:
        cipher, vault = new.get(key_id), self._vault
        opened = vault.open_overrides(profile, old)
        return replace(
            profile,
            key_id=key_id,
            golden=vault.seal_golden(vault.open_golden(profile, old), profile.profile_id, cipher),
            records=[self._record(item, old, new, key_id) for item in profile.records],
            overrides=[
                replace(item, key_id=key_id, sealed=vault.seal_override(opened[item.id], item.id, cipher))
                for item in profile.overrides
                if item.id in opened
            ],
        )

    def _record(self, stored: StoredRecord, old: Ciphers, new: Ciphers, key_id: str) -> StoredRecord:
        sealed = self._vault.seal_record(
            self._vault.open_record(stored, old), stored.key, stored.number, new.get(key_id)
        )
        return replace(stored, key_id=key_id, sealed=sealed)

    def _reseal_history(self, profile: Profile, ciphers: Ciphers, key_id: str) -> None:
        """Seal superseded records, past versions and relationships anew; those of destroyed keys are erased already."""
        self._relations.reseal(profile.record_keys)
        for record in profile.records:
            stale = [item for item in self._store.archived(record.source_id, record.source_record_id)
                     if item.key_id != key_id and item.key_id in ciphers.by_id]  # fmt: skip
            self._store.reseal_archived([(item, self._record(item, ciphers, ciphers, key_id)) for item in stale])
        for past in self._past(profile):
            if past.key_id != key_id and past.key_id in ciphers.by_id and past.golden:
                believed = self._vault.open_golden(past, ciphers)
                sealed = self._vault.seal_golden(believed, past.profile_id, ciphers.get(key_id))
                self._store.reseal_past([(past, replace(past, key_id=key_id, golden=sealed))])

    def past_keys(self, profile: Profile) -> set[str]:
        """Return the data keys that seal the history of a profile."""
        keys = {item.key_id for item in self._past(profile) if item.key_id}
        for record in profile.records:
            keys |= {item.key_id for item in self._store.archived(record.source_id, record.source_record_id)}
        return keys

    def forget_together(self, profile: Profile, record_keys: Collection[str]) -> None:
        """Take out what was believed of a profile while it had any of these records, which are somebody else's."""
        for past in self._past(profile):
            if past.golden and not set(record_keys).isdisjoint(record.key for record in past.records):
                self._store.reseal_past([(past, replace(past, key_id="", golden=b""))])

    def _past(self, profile: Profile) -> Iterator[Profile]:
        """Yield the past versions of a profile and of those that ended in it, a few at a time."""
        for name in (profile.profile_id, *profile.aliases):
            before = 10**9
            while page := self._store.past_versions(name, before, PAST_AT_ONCE):
                yield from page
                before = page[-1].version
