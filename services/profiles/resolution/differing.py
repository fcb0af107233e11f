"""A fresh look at what a full pass found to differ: what is to be merged, and what is to be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from services.profiles.domain.model import ModelSource
from services.profiles.domain.uniting import United, best_score, unite
from services.profiles.domain.values import MatchScore
from services.profiles.folding import Working, are_apart
from services.profiles.merging import resolve
from services.profiles.resolution.planning import mark_of
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Profile, pair_id
from services.profiles.vault import Vault

MERGE, MIXED = "merge", "mixed"
Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a fresh look finds: the profiles opened, what of them joins, and records that do not belong, by profile."""

    living: dict[str, Working]
    united: United
    doubts: list[tuple[str, list[str], MatchScore]]


class Looker:
    """Reads profiles again before anything is done about them."""

    def __init__(self, store: Store, vault: Vault, model: ModelSource) -> None:
        self._store = store
        self._vault = vault
        self._model = model

    def look(self, item: Item) -> Findings:
        """Return what is to be done about an item of the plan; nothing when its profiles are gone or one."""
        profiles = {found.profile_id: found for found in resolve(self._store, item["profiles"]).values()}
        opened, _ = load(self._store, self._vault, list(profiles.values()))
        living = {found.profile_id: found for found in opened}
        united = self._planned(item, living) or self._checked(item, living)
        return Findings(living, united, self._doubts(item, living, united))

    def _planned(self, item: Item, living: dict[str, Working]) -> United | None:
        """Return the profiles as one, if the pass found so, they are as it read them, and nobody says otherwise."""
        marks = sum(mark_of(record) for found in living.values() for record in found.profile.records)
        profiles = [found.profile for found in living.values()]
        if item.get("mark") != marks or len(living) < 2 or any(are_apart(a, b) for a, b in combinations(profiles, 2)):
            return None
        names, links, shared = list(living), {}, self._shared(item, living.values())
        for at, name in enumerate(names[1:], 1):
            rest = [record for other in names[:at] for record in living[other].records.values()]
            links[name] = best_score(list(living[name].records.values()), rest, self._model(), shared)
        return United((tuple(names),), links, {})

    def _checked(self, item: Item, living: dict[str, Working]) -> United:
        """Return what of the profiles joins, of those that have records in one cluster."""
        clusters = _clusters(item, living)
        return unite(
            {name: list(found.records.values()) for name, found in living.items()},
            lambda one, other: not clusters[one].isdisjoint(clusters[other]),
            lambda one, other: are_apart(living[one].profile, living[other].profile),
            self._model(),
            self._shared(item, living.values()),
        )

    def _shared(self, item: Item, living: Iterable[Working]) -> frozenset[str]:
        """Return the phones and e-mails of the profiles that the pass left out, since too many have them."""
        records = (record for found in living for record in found.records.values())
        return self._vault.identifiers_of(records, frozenset(item.get("shared", ())))

    def _doubts(
        self, item: Item, living: dict[str, Working], united: United
    ) -> list[tuple[str, list[str], MatchScore]]:
        """Return the groups of records that single writes joined with others and the pass would not."""
        if item["kind"] != MIXED:
            return []
        found = []
        homes = {name: group for group in united.joined for name in group}
        for group in {homes.get(name, (name,)) for name in living}:
            members = [living[name] for name in group]
            oldest = min(members, key=lambda member: member.age)
            shared = self._shared(item, members)
            for keys, score in self._leaving(item["clusters"], members, shared):
                found.append((oldest.profile_id, keys, score))
        return found

    def _leaving(
        self, clusters: Iterable[Sequence[str]], members: Sequence[Working], shared: frozenset[str]
    ) -> Iterator[tuple[list[str], MatchScore]]:
        """Yield the records of each cluster but the largest within one profile, unless a person joined them."""
        records = {key: record for member in members for key, record in member.records.items()}
        present = [[key for key in keys if key in records] for keys in clusters]
        within = sorted(present, key=lambda keys: (-len(keys), keys))
        settled = [_settled_by_person(member.profile) for member in members]
        for keys in [keys for keys in within[1:] if keys]:
            rest = [record for key, record in records.items() if key not in keys]
            is_settled = any(set(keys) <= found and found.difference(keys) for found in settled)
            if not rest or is_settled or any(self._is_confirmed(key) for key in keys):
                continue
            yield keys, best_score([records[key] for key in keys], rest, self._model(), shared)

    def _is_confirmed(self, key: str) -> bool:
        found = self._store.pairs.get(pair_id(key, "check"))
        return found is not None and found.state == "confirmed"


def _clusters(item: Item, living: dict[str, Working]) -> dict[str, set[int]]:
    """Return the clusters in which each profile has records; of a plain merge all have one, of a question none."""
    if item["kind"] != MIXED:
        return {name: {0} if item["kind"] == MERGE else set() for name in living}
    cluster_of = {key: at for at, keys in enumerate(item["clusters"]) for key in keys}
    return {name: {cluster_of[key] for key in found.records if key in cluster_of} for name, found in living.items()}


def _settled_by_person(profile: Profile) -> set[str]:
    """Return the records that were in the profile when a person last merged it: that person has seen them together."""
    merges = [at for at, item in enumerate(profile.revisions) if item.kind == "merged" and item.by]
    if not merges:
        return set()
    last = merges[-1]
    before = {key for item in profile.revisions[: last + 1] for key in item.source_records}
    after = {key for item in profile.revisions[last + 1 :] for key in item.source_records} - before
    return set(profile.record_keys) - after
