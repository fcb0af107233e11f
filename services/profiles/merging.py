"""Make two profiles one, or split one in two: several documents, so each step can be finished by whoever comes next.

A merge first turns the younger profile into an alias that still holds its records (`is_handing_over`), then gives
them to the survivor, then drops them. A split first stores the profile that
will live as such an alias of the old one (`splitting.py`). Whatever is left half done is settled: a merge by giving the
records to the profile that the alias names, a split by going on; no step loses a record, and none is in two living
profiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.profiles.aliases import resolve, resolve_one
from services.profiles.dictionary import Dictionary
from services.profiles.domain.dictionary import Rule
from services.profiles.errors import ProfileNotFound, ProfilesBusy
from services.profiles.facts import profiles_merged
from services.profiles.folding import Working, are_apart
from services.profiles.shaping import Shaped, ended, load, reshape, write
from services.profiles.splitting import Splitter
from services.profiles.store import Store
from services.profiles.values import Profile, Revision, StoredRecord
from services.profiles.vault import Ciphers, Vault

ATTEMPTS = 8
PAIR = 2
ABANDONED = timedelta(seconds=10)  # a step takes milliseconds; what is older has lost its process


class Merger:
    """Merges, splits and settles the profiles of one store."""

    def __init__(self, store: Store, vault: Vault, dictionary: Dictionary) -> None:
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self._splitter = Splitter(store, vault, dictionary)

    def merge(self, profile_ids: Sequence[str], by: str = "") -> str:
        """Merge profiles into the oldest of them and return its id; those that are one already stay so.

        `by` is the person who says so; empty means the match model, which leaves those be that a steward ruled apart.

        Raises:
            ProfileNotFound: none of them lives; all were erased.
            ProfilesBusy: others kept changing them.
        """
        living = {item.profile_id: item for item in resolve(self._store, profile_ids).values()}
        if not living:
            raise ProfileNotFound("the profiles were erased", metadata={"name": f"profiles/{min(profile_ids)}"})
        survivor, *others = sorted(living.values(), key=_age)
        for other in others:
            self._hand_over(other.profile_id, survivor.profile_id, by)
            self._settle(other.profile_id)
        return survivor.profile_id

    def merge_all(self, groups: Sequence[Sequence[str]]) -> None:
        """Merge groups of profiles as `merge` does, one after the other, most pairs by a few writes for all of them.

        Raises:
            ProfilesBusy: others kept changing them.
        """
        seen: set[str] = set()
        pairs: list[Sequence[str]] = []
        others: list[Sequence[str]] = []
        for group in groups:
            (pairs if len(group) == PAIR and seen.isdisjoint(group) else others).append(group)
            seen.update(group)
        left = self._merge_pairs(pairs) if len(pairs) > 1 else pairs
        for group in (*left, *others):
            with suppress(ProfileNotFound):  # all of them were erased meanwhile
                self.merge(group)
            self.settle(group)

    def _merge_pairs(self, pairs: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Take each step of a merge for all these pairs at once; return those that are not through with it.

        No id is in two pairs. An id that has ended may stand for a profile of another pair, so its pair is left.
        """
        living = {key: item for key, item in self._store.profiles(_flat(pairs)).items() if _is_living(item)}
        ending: dict[str, str] = {}
        for pair in pairs:
            both = sorted((living[item] for item in pair if item in living), key=_age)
            if len(both) == PAIR and not are_apart(*both):
                ending[both[1].profile_id] = both[0].profile_id
        now = datetime.now(UTC)
        write(self._store, [ended(living[gone], survivor, now, "") for gone, survivor in ending.items()])
        stored = self._store.profiles(_flat(ending.items()))
        handing = [
            (stored[survivor], stored[gone])
            for gone, survivor in ending.items()
            if _is_living(stored[survivor]) and stored[gone].merged_into == survivor and not stored[gone].parting
        ]
        lost = self._take_over(handing)
        taken = [gone for survivor, gone in handing if survivor.profile_id not in lost and gone.is_handing_over]
        done = {item.profile_id for item in taken} - set(self._empty(taken))
        return [pair for pair in pairs if done.isdisjoint(pair)]

    def settle_abandoned(self, now: datetime) -> int:
        """Finish the merges and splits whose process died; return how many."""
        found = [item for item in self._store.handing_over() if now - item.update_time > ABANDONED]
        for item in found:
            (self._splitter.complete if item.parting else self._settle)(item.profile_id)
        return len(found)

    def settle(self, profile_ids: Sequence[str]) -> None:
        """Finish the merges of these profiles that somebody else has begun."""
        for item in self._store.profiles(profile_ids).values():
            if item.is_handing_over:
                self._settle(item.profile_id)

    def _hand_over(self, gone_id: str, survivor_id: str, by: str) -> None:
        """End a profile in another; its version is that of before the look at verdicts, so none comes between."""
        for _ in range(ATTEMPTS):
            gone = self._store.profiles([gone_id])[gone_id]
            survivor = resolve_one(self._store, survivor_id)
            if gone.merged_into or gone_id == survivor.profile_id or (not by and are_apart(gone, survivor)):
                return
            if not write(self._store, [ended(gone, survivor.profile_id, datetime.now(UTC), by)]):
                return
        raise ProfilesBusy("the profile keeps changing; try again")

    def _settle(self, gone_id: str) -> None:
        """Give the records of an alias to the living profile behind it."""
        for _ in range(ATTEMPTS):
            gone = self._store.profiles([gone_id])[gone_id]
            if not gone.is_handing_over or gone.parting:
                return
            survivor = resolve_one(self._store, gone_id)
            if survivor.profile_id != gone.merged_into:  # it ended meanwhile: its end is what this id leads to
                write(self._store, [ended(gone, survivor.profile_id, datetime.now(UTC), gone.revisions[-1].by)])
                continue
            if not self._take_over([(survivor, gone)]) and not self._empty([gone]):
                return
        raise ProfilesBusy("the profiles keep changing; try again")

    def _empty(self, gone: Sequence[Profile]) -> list[str]:
        """Drop what the survivors have by now; return the ids that lost a race."""
        return self._store.write_profiles(
            [(replace(item, is_handing_over=False, records=[], overrides=[], golden=b""), []) for item in gone]
        )

    def _take_over(self, pairs: Sequence[tuple[Profile, Profile]]) -> set[str]:
        """Write each survivor with the records of the other that live nowhere yet; return the survivors that lost."""
        keys = [record.key for _, gone in pairs for record in gone.records]
        elsewhere = {key for item in self._store.by_record_keys(keys) for key in item.record_keys}
        grown: dict[str, tuple[Profile, Profile, list[StoredRecord]]] = {}
        for survivor, gone in pairs:
            held = set(survivor.record_keys)
            moved = [item for item in gone.records if item.key not in held and item.key not in elsewhere]
            if moved or gone.profile_id not in survivor.aliases:
                grown[survivor.profile_id] = survivor, gone, moved
        joined = [replace(survivor, records=[*survivor.records, *moved]) for survivor, _, moved in grown.values()]
        opened, ciphers = load(self._store, self._vault, joined)
        rules = self._dictionary.rules()
        shaped = [self._joined(item, *grown[item.profile_id], ciphers, rules) for item in opened]
        return {*write(self._store, shaped), *(grown.keys() - {item.profile_id for item in opened})}

    def _joined(
        self,
        working: Working,
        survivor: Profile,
        gone: Profile,
        moved: Sequence[StoredRecord],
        ciphers: Ciphers,
        rules: Mapping[str, Rule],
    ) -> Shaped:
        """Return the next form of the survivor, whose records and those that move to it `working` has opened."""
        now = max(datetime.now(UTC), survivor.since, gone.since)
        one = {survivor.profile_id, *survivor.aliases, gone.profile_id, *gone.aliases}
        grown = replace(
            working.profile,
            relinked=[item.key for item in moved],
            aliases=list(dict.fromkeys([*survivor.aliases, gone.profile_id, *gone.aliases])),
            apart=[item for item in dict.fromkeys([*survivor.apart, *gone.apart]) if item not in one],
            overrides=list({item.id: item for item in (*gone.overrides, *survivor.overrides)}.values()),
        )
        by = gone.revisions[-1].by if gone.revisions else ""
        revision = Revision(0, now, "merged", (), [item.key for item in moved], gone.profile_id, by)
        merged = profiles_merged(survivor.profile_id, gone.profile_id, gone.ended_version, survivor.version + 1, now)
        return reshape(survivor, grown, working.records, ciphers, self._vault, rules, now, revision, [merged])

    def keep_apart(self, one_id: str, other_id: str) -> bool:
        """Remember on both profiles that they are two persons; tell whether they were two.

        The younger is told first, which a merge would end: of the two compare-and-sets one is the first.

        Raises:
            ProfilesBusy: others kept changing them.
        """
        for _ in range(2 * ATTEMPTS):
            living = {item.profile_id: item for item in resolve(self._store, [one_id, other_id]).values()}
            if len(living) < PAIR:
                return False
            older, younger = sorted(living.values(), key=_age)
            untold = [(a, b) for a, b in ((younger, older), (older, younger)) if b.profile_id not in a.apart]
            if not untold:
                return True
            profile, other = untold[0]
            self._store.write_profiles([(replace(profile, apart=[*profile.apart, other.profile_id]), [])])
        raise ProfilesBusy("the profiles keep changing; try again")

    def split(
        self, profile_id: str, keys: Sequence[str], new_id: str, by: str = "", reason: str = ""
    ) -> tuple[str, str]:
        """Split records out of a profile, as `by` says; return the ids of what is left and of what was split out.

        Raises:
            UnmergeImpossible: the records are not the profile's, or all it has.
            ProfilesBusy: others kept changing it.
        """
        return self._splitter.split(profile_id, keys, new_id, by, reason)


def _age(profile: Profile) -> tuple[datetime, str]:
    """Return what orders profiles from the oldest, which survives."""
    return profile.create_time, profile.profile_id


def _is_living(profile: Profile) -> bool:
    return not profile.merged_into and not profile.is_erased


def _flat(groups: Iterable[Sequence[str]]) -> list[str]:
    return [item for group in groups for item in group]
