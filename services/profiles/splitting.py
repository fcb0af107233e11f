"""Split a profile in two, at any depth. Once its first write is durable a split ends, whoever finishes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.records import Fact
from services.profiles.aliases import resolve, resolve_one
from services.profiles.dictionary import Dictionary
from services.profiles.domain.partings import Parting, divided, part
from services.profiles.errors import ProfilesBusy, UnmergeImpossible
from services.profiles.facts import profiles_merged, profiles_unmerged
from services.profiles.shaping import Shaped, ended, load, reshape, write
from services.profiles.store import Store
from services.profiles.values import FormerName, Profile, Revision, StoredRecord
from services.profiles.vault import Vault

ATTEMPTS = 16
LAST_VERSION = 10**9
VERSIONS_LOOKED_AT = 8  # the last before the end of an id, but for times that its alias was led elsewhere


class Splitter:
    """Splits profiles of one store.

    The profile that will live is first stored as an alias that holds the records and what is to be done (`parting`).
    Then the other gives them up, in the versions it has by then; former ids are led to whom they belong; and last the
    alias comes to life. Each step is a compare-and-set that may be repeated, so `complete` goes on from anywhere.
    """

    def __init__(self, store: Store, vault: Vault, dictionary: Dictionary) -> None:
        self._store = store
        self._vault = vault
        self._dictionary = dictionary

    def split(
        self, profile_id: str, keys: Sequence[str], new_id: str, by: str = "", reason: str = ""
    ) -> tuple[str, str]:
        """Split records out of a profile, as `by` says; return the ids of what is left and of what was split out.

        Raises:
            UnmergeImpossible: the records are not the profile's, or all it has.
            ProfilesBusy: others kept changing it.
        """
        profile = resolve_one(self._store, profile_id)
        asked = set(keys)
        if (begun := self._begun(profile.profile_id, asked)) is not None:
            self.complete(begun)
            return profile.profile_id, begun
        if not asked < set(profile.record_keys):
            raise UnmergeImpossible(
                "name records that belong to the profile, and leave it at least one",
                metadata={"name": f"profiles/{profile.profile_id}"},
            )
        homes = self._homes(profile)
        parting = part(profile.record_keys, asked, homes)
        out_id = parting.ids[0] if parting.ids else new_id
        former = self._store.profiles([out_id]).get(out_id)
        now = datetime.now(UTC)
        said = Revision(0, now, "unmerged", (), sorted(parting.leaving), profile.profile_id, by, reason)
        intent = _intent(profile, former or Profile(out_id, now, now, key_id=out_id), parting, said)
        if self._store.write_profiles([(self._noted(profile, homes, intent), [])]):
            raise ProfilesBusy("the profile is being split by another; look again")
        self.complete(out_id)
        return (out_id, profile.profile_id) if parting.is_reversed else (profile.profile_id, out_id)

    def _begun(self, profile_id: str, asked: set[str]) -> str | None:
        """Return the profile that a split of the same records would bring to life, had its process not died."""
        for item in self._store.handing_over():
            if item.parting and item.parting.other_profile == profile_id and set(item.parting.source_records) == asked:
                return item.profile_id
        return None

    def _homes(self, profile: Profile) -> dict[str, list[str]]:
        """Return the former ids of a profile, the oldest first, with the records they had when they were merged."""
        former = sorted(
            self._store.profiles(profile.aliases).values(), key=lambda item: (item.create_time, item.profile_id)
        )
        past = {item.profile_id: self._store.past_versions(item.profile_id, LAST_VERSION, VERSIONS_LOOKED_AT)
                for item in former}  # fmt: skip
        found = {name: next((item.record_keys for item in versions if item.record_keys), [])
                 for name, versions in past.items()}  # fmt: skip
        return {name: keys for name, keys in found.items() if keys}

    def _noted(self, profile: Profile, homes: Mapping[str, Sequence[str]], intent: Profile) -> Profile:
        """Return what is to be done with since when both had been one, and what other ids they had."""
        assert intent.parting is not None
        homes = {profile.profile_id: profile.record_keys, **homes}
        former = {name: item for name, item in self._store.profiles(profile.aliases).items() if item.merged_into}
        came = {item.key: self._came(item) for item in profile.records}
        leaving = frozenset(intent.parting.source_records)

        def sides(name: str) -> tuple[datetime | None, bool]:
            """Return how an id is divided; its records came, or another id brought them."""
            joined = {key: came[key] for key in homes.get(name, ()) if key in came}
            for other, item in former.items():
                if item.merged_into == name:
                    joined |= {key: item.since for key in homes.get(other, ()) if key in joined}
            return divided(joined, leaving)

        names = [FormerName(name, item.merged_into, item.ended_version, *sides(name)) for name, item in former.items()]
        return replace(intent, former=[*names, FormerName(profile.profile_id, "", 0, *sides(profile.profile_id))])

    def _came(self, record: StoredRecord) -> datetime:
        first = self._store.archived(record.source_id, record.source_record_id)[:1] if record.number > 1 else []
        return (first[0] if first else record).received_time

    def complete(self, out_id: str) -> None:
        """Carry out the split that a stored alias asks for, from wherever it stands; again changes nothing.

        Raises:
            ProfilesBusy: others kept changing the profiles.
        """
        for _ in range(ATTEMPTS):
            leaving = self._store.profiles([out_id])[out_id]
            if leaving.parting is None:
                return
            self._vault.new_ciphers(self._store, [leaving.key_id])  # a rotation may have destroyed that of before
            was = resolve_one(self._store, leaving.parting.other_profile)
            if self._released(was, leaving) and self._led(was.profile_id, leaving) and self._alive(was, leaving):
                return
        raise ProfilesBusy("the profiles keep changing; try again")

    def _released(self, was: Profile, leaving: Profile) -> bool:
        """Let the profile give the records up; what it has of them by now goes with them."""
        assert leaving.parting is not None
        keys = set(leaving.parting.source_records)
        given = [item for item in was.records if item.key in keys]
        if not given:
            return True
        overrides = [item for item in was.overrides if item.anchor in keys]
        if (given, overrides) != (leaving.records, leaving.overrides):
            self._store.write_profiles([(replace(leaving, records=given, overrides=overrides), [])])
            return False
        kept = replace(
            was,
            records=[item for item in was.records if item.key not in keys],
            overrides=[item for item in was.overrides if item.anchor not in keys],
            aliases=[item for item in was.aliases if item not in (leaving.profile_id, *leaving.aliases)],
            apart=list(dict.fromkeys([*was.apart, leaving.profile_id])),
        )
        shaped = self._anew(was, kept, replace(leaving.parting, other_profile=leaving.profile_id))
        return not write(self._store, [shaped])

    def _led(self, was_id: str, leaving: Profile) -> bool:
        """Lead the former ids of both to whom they belong."""
        assert leaving.parting is not None
        out_id = leaving.profile_id
        docs = self._store.profiles([*resolve(self._store, [was_id])[was_id].aliases, *leaving.aliases])
        for name, item in docs.items():
            target = out_id if name in leaving.aliases else was_id
            if not item.merged_into or item.is_handing_over or _end(item, docs, out_id) == target:
                continue
            now = max(datetime.now(UTC), item.since)
            led = ended(item, target, now, leaving.parting.by)
            fact = profiles_merged(target, name, led.profile.version + 1, led.profile.version + 1, now)
            led = replace(led, profile=replace(led.profile, is_handing_over=False), facts=(*led.facts, fact))
            if write(self._store, [led]):
                return False
        return True

    def _alive(self, was: Profile, leaving: Profile) -> bool:
        """Bring the alias to life and tell of the split; without records it stays an alias."""
        assert leaving.parting is not None
        holders = self._store.by_record_keys([item.key for item in leaving.records])
        elsewhere = {key for item in holders for key in item.record_keys}
        records = [item for item in leaving.records if item.key not in elsewhere]
        alive = replace(
            leaving, records=records, relinked=[item.key for item in records], parting=None,
            former=(), merged_into="" if records else leaving.merged_into, is_handing_over=False,
        )  # fmt: skip
        if not records:
            return not self._store.write_profiles([(alive, [])])
        revision = replace(leaving.parting, source_records=[item.key for item in records])
        stayed = replace(was, records=[item for item in was.records if item.key not in leaving.parting.source_records])
        told = profiles_unmerged(stayed, alive, leaving, max(datetime.now(UTC), was.since, leaving.since))
        return not write(self._store, [self._anew(leaving, alive, revision, [told])])

    def _anew(self, was: Profile, profile: Profile, revision: Revision, facts: Sequence[Fact] = ()) -> Shaped:
        now = datetime.now(UTC)
        opened, ciphers = load(self._store, self._vault, [profile])
        shaped = reshape(
            was, profile, opened[0].records, ciphers, self._vault, self._dictionary.rules(), now,
            replace(revision, time=now), facts,
        )  # fmt: skip
        return replace(shaped, was=was.past()) if was.revisions else shaped


def _intent(profile: Profile, base: Profile, parting: Parting, said: Revision) -> Profile:
    """Return the profile that will live as the alias that it is until then."""
    return replace(
        base, records=[item for item in profile.records if item.key in parting.leaving], overrides=[],
        merged_into=profile.profile_id, is_handing_over=True, aliases=list(parting.ids[1:]),
        apart=[item for item in dict.fromkeys([profile.profile_id, *profile.apart, *base.apart])
               if item not in (base.profile_id, *parting.ids)],
        parting=said,
    )  # fmt: skip


def _end(item: Profile, docs: dict[str, Profile], out_id: str) -> str:
    """Return whom a former id leads to, once `out_id` lives."""
    at = item.merged_into
    for _ in range(len(docs)):
        if at == out_id or at not in docs:
            break
        at = docs[at].merged_into
    return at
