"""Give stored records the tokens that a rule counts by, and find what they were before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.profiles.domain.cross_record import Index
from services.profiles.domain.values import StandardRecord
from services.profiles.errors import ProfilesBusy
from services.profiles.folding import Working
from services.profiles.intake.neighbours import value_tokens
from services.profiles.merging import ATTEMPTS
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Profile, StoredRecord
from services.profiles.vault import ErasedError, Vault


class Indexer:
    """Adds tokens to stored records; what they say and what is believed stays as it is."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def add(self, profiles: Sequence[Profile], index: Index) -> None:
        """Give the records of these profiles what the index lacks of them; a repeat changes nothing.

        Raises:
            ProfilesBusy: others kept changing the same profiles; a repeat goes on.
        """
        waiting = list(profiles)
        for _ in range(ATTEMPTS):
            changed = [item for working in load(self._store, self._vault, waiting)[0]
                       if (item := self._indexed(working, index)) is not None]  # fmt: skip
            lost = set(self._store.write_profiles([(item, ()) for item in changed])) if changed else set()
            if not lost:
                return
            keys = [key for item in changed if item.profile_id in lost for key in item.relinked]
            waiting = self._store.by_record_keys(keys)
        raise ProfilesBusy("others keep changing the same profiles; try again")

    def _indexed(self, working: Working, index: Index) -> Profile | None:
        """Return a profile with the tokens added; None when it has them."""
        records, relinked = [], []
        for stored in working.profile.records:
            known = set(stored.tokens)
            missing = [item for item in value_tokens(working.records[stored.key], [index], self._vault)
                       if item not in known]  # fmt: skip
            records.append(replace(stored, tokens=[*stored.tokens, *missing]) if missing else stored)
            relinked += [stored.key] if missing else []
        return replace(working.profile, records=records, relinked=relinked) if relinked else None


def former_versions(store: Store, vault: Vault, opened: Iterable[Working]) -> dict[str, StandardRecord]:
    """Return the version before the present one of each record that has one which can be read, by its key."""
    found: dict[str, StoredRecord] = {}
    for stored in (item for working in opened for item in working.profile.records if item.number > 1):
        versions = store.archived(stored.source_id, stored.source_record_id)
        found.update({item.key: item for item in versions if item.number == stored.number - 1})
    ciphers = vault.ciphers_of(store, [item.key_id for item in found.values()])
    opened_versions = {}
    for key, item in found.items():
        try:
            opened_versions[key] = vault.open_record(item, ciphers)
        except ErasedError:
            continue
    return opened_versions
