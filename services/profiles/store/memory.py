"""The store in memory: for tests, and for the bench of our own share of the work."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.records import Fact
from services.profiles.definitions.proposals import FieldChange, FieldRevision
from services.profiles.documents import past_id
from services.profiles.domain.relations import RelationType
from services.profiles.domain.retention import RecordType
from services.profiles.exported_values import StoredExport, StoredExportPart
from services.profiles.quality.values import DayFigures, StoredQualityRule
from services.profiles.relations.values import HouseholdKey, RelationCode, StoredRelation
from services.profiles.store.incidents import MemoryIncidents
from services.profiles.store.protocol import MAX_PER_TOKEN, NONE_COUNTED, Changes, Done, Found, Writing
from services.profiles.store.shelf import MemoryShelf
from services.profiles.training.values import ModelUse, StoredModel
from services.profiles.values import (
    Ageing,
    Erasure,
    Field,
    LeafPage,
    Pair,
    Profile,
    Reject,
    RevealCount,
    Source,
    StoredHold,
    StoredReceipt,
    StoredRecord,
    StoredRule,
    Unstaged,
    record_key,
)


def _copy(profile: Profile) -> Profile:
    return replace(
        profile,
        records=list(profile.records),
        aliases=list(profile.aliases),
        apart=list(profile.apart),
        overrides=list(profile.overrides),
        revisions=list(profile.revisions),
        relinked=[],
    )


class MemoryStore:
    """Profiles in dictionaries; `facts` holds what would have gone to the outbox, in order."""

    def __init__(self) -> None:
        self.sources: MemoryShelf[Source] = MemoryShelf()
        self.fields: MemoryShelf[Field] = MemoryShelf()
        self.field_changes: MemoryShelf[FieldChange] = MemoryShelf()
        self.field_revisions: MemoryShelf[FieldRevision] = MemoryShelf()
        self.relation_types: MemoryShelf[RelationType] = MemoryShelf()
        self.relations: MemoryShelf[StoredRelation] = MemoryShelf()
        self.relation_codes: MemoryShelf[RelationCode] = MemoryShelf()
        self.household_keys: MemoryShelf[HouseholdKey] = MemoryShelf()
        self.rejects: MemoryShelf[Reject] = MemoryShelf()
        self.pairs: MemoryShelf[Pair] = MemoryShelf()
        self.rules: MemoryShelf[StoredRule] = MemoryShelf()
        self.retention_rules: MemoryShelf[StoredRule] = MemoryShelf()
        self.lifecycles: MemoryShelf[StoredRule] = MemoryShelf()
        self.unstaged: MemoryShelf[Unstaged] = MemoryShelf()
        self.holds: MemoryShelf[StoredHold] = MemoryShelf()
        self.receipts: MemoryShelf[StoredReceipt] = MemoryShelf()
        self.leaves: MemoryShelf[LeafPage] = MemoryShelf()
        self.reveals: MemoryShelf[RevealCount] = MemoryShelf()
        self.exports: MemoryShelf[StoredExport] = MemoryShelf()
        self.export_parts: MemoryShelf[StoredExportPart] = MemoryShelf()
        self.quality_rules: MemoryShelf[StoredQualityRule] = MemoryShelf()
        self.quality_figures: MemoryShelf[DayFigures] = MemoryShelf()
        self.match_models: MemoryShelf[StoredModel] = MemoryShelf()
        self.model_use: MemoryShelf[ModelUse] = MemoryShelf()
        self.erasures: MemoryShelf[Erasure] = MemoryShelf()
        self._former: dict[str, list[str]] = {}
        self.facts: list[Fact] = []
        self.incidents = MemoryIncidents(self.facts)
        self._profiles: dict[str, Profile] = {}
        self._owners: dict[str, str] = {}
        self._tokens: defaultdict[str, set[str]] = defaultdict(set)
        self._keys: dict[str, bytes] = {}
        self._archive: dict[tuple[str, int], tuple[StoredRecord, str]] = {}
        self._past: defaultdict[str, dict[int, Profile]] = defaultdict(dict)
        self._chunks: dict[tuple[str, int], tuple[bytes, datetime]] = {}
        self._round = 0
        self._lock = threading.RLock()

    def profiles(self, profile_ids: Sequence[str]) -> dict[str, Profile]:
        """Return profiles by id."""
        with self._lock:
            return {item: _copy(self._profiles[item]) for item in profile_ids if item in self._profiles}

    def by_record_keys(self, keys: Sequence[str]) -> list[Profile]:
        """Return the profiles that hold these records."""
        with self._lock:
            found = {self._owners[key] for key in keys if key in self._owners}
        return list(self.profiles(sorted(found)).values())

    def by_tokens(self, tokens: Sequence[str]) -> list[Profile]:
        """Return the profiles that carry any of these tokens."""
        return self.near(tokens)[0]

    def near(self, tokens: Sequence[str]) -> tuple[list[Profile], frozenset[str]]:
        """Return the same, and the tokens that lead to too many."""
        with self._lock:
            crowded = frozenset(token for token in tokens if len(self._tokens.get(token, ())) > MAX_PER_TOKEN)
            found = {item for token in {*tokens} - crowded for item in self._tokens.get(token, ())}
        return list(self.profiles(sorted(found)).values()), crowded

    def holders(self, counted: Mapping[str, int]) -> dict[str, set[str]]:
        """Return the keys of the records that carry these tokens."""
        with self._lock:
            return {token: set(self._carrying(token)[:enough]) for token, enough in counted.items()}

    def _carrying(self, token: str) -> list[str]:
        owners = (self._profiles[profile_id] for profile_id in self._tokens.get(token, ()))
        return sorted(record.key for owner in owners for record in owner.records if token in record.tokens)

    def look(
        self,
        keys: Sequence[str],
        tokens: Sequence[str],
        counted: Mapping[str, int] = NONE_COUNTED,
        reject_tokens: Sequence[str] = (),
    ) -> Found:
        """Return all that a few records need."""
        with self._lock:
            found, crowded = self.near(tokens)
            profiles = list({item.profile_id: item for item in (*self.by_record_keys(keys), *found)}.values())
            keys_of = self.data_keys([item.key_id for item in profiles])
            rejects = self.rejects.among("record", reject_tokens)
            set_apart = frozenset(item.record for item in rejects if item.state == "open")
            return Found(profiles, keys_of, self._round, self.holders(counted), set_apart, crowded)

    def write_at_once(self, writing: Writing) -> Done | None:
        """Write a small batch."""
        with self._lock:
            if self.add_data_keys(writing.data_keys):
                return None
            self.archive(writing.superseded)
            self.keep_past(writing.was)
            asked = self.pairs.add_missing(writing.pairs)
            self.pairs.add_missing(writing.checks)
            is_alone = self._round == writing.rounds
            lost = self.write_profiles(writing.changes)
            return Done(lost, asked, is_alone)

    def shared_tokens(self, held: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those whose token another living profile carries too."""
        with self._lock:
            return {(token, owner) for token, owner in held if self._tokens.get(token, set()) - {owner}}

    def write_profiles(self, changes: Changes) -> list[str]:
        """Insert or replace profiles with their facts."""
        lost = self.write_part(changes)
        if len(lost) < len(changes):
            self.close_round()
        return lost

    def close_round(self) -> None:
        """Count a batch."""
        with self._lock:
            self._round += 1

    def write_part(self, changes: Changes) -> list[str]:
        """Insert or replace profiles of a batch with their facts."""
        now = datetime.now(UTC)
        lost = []
        with self._lock:
            for profile, facts in changes:
                if not self._may_write(profile):
                    lost.append(profile.profile_id)
                    continue
                self._put(replace(_copy(profile), version=profile.version + 1, update_time=now))
                self.facts.extend(facts)
        return lost

    def _may_write(self, profile: Profile) -> bool:
        found = self._profiles.get(profile.profile_id)
        if (found.version if found else 0) != profile.version:
            return False
        return all(self._owners.get(key, profile.profile_id) == profile.profile_id for key in profile.record_keys)

    def _put(self, profile: Profile) -> None:
        old = self._profiles.get(profile.profile_id)
        if old is not None:
            for key in old.record_keys:
                self._owners.pop(key, None)
            for token in old.tokens:
                self._tokens[token].discard(old.profile_id)
        self._profiles[profile.profile_id] = profile
        for key in profile.record_keys:
            self._owners[key] = profile.profile_id
        for token in profile.tokens:
            self._tokens[token].add(profile.profile_id)

    def estimate_profiles(self) -> int:
        """Return how many there are."""
        with self._lock:
            return sum(1 for item in self._profiles.values() if not (item.merged_into or item.is_erased))

    def page_profiles(self, after: str, limit: int, departments: Sequence[str]) -> list[Profile]:
        """Return living profiles by id."""
        with self._lock:
            living = {key: item for key, item in self._profiles.items() if not (item.merged_into or item.is_erased)}
            found = sorted(key for key in living if key > after)
            if departments:
                found = [key for key in found if self._profiles[key].owner_department in departments]
            return list(self.profiles(found[:limit]).values())

    def handing_over(self) -> list[Profile]:
        """Return merged profiles that still hold records."""
        with self._lock:
            return [_copy(profile) for profile in self._profiles.values() if profile.is_handing_over]

    def data_keys(self, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Return wrapped data keys."""
        return {key: self._keys[key] for key in key_ids if key in self._keys}

    def add_data_keys(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Add wrapped data keys."""
        with self._lock:
            known = {key: self._keys[key] for key in wrapped if key in self._keys}
            self._keys.update({key: value for key, value in wrapped.items() if key not in known})
        return known

    def destroy_data_key(self, key_id: str) -> None:
        """Remove a data key."""
        self._keys.pop(key_id, None)
        self._former.pop(key_id, None)

    def page_data_keys(self, after: str, limit: int) -> dict[str, bytes]:
        """Return wrapped data keys by id."""
        with self._lock:
            return {key: self._keys[key] for key in sorted(item for item in self._keys if item > after)[:limit]}

    def rewrap_data_keys(self, changes: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Replace wrapped data keys."""
        with self._lock:
            self._keys.update({key: after for key, (before, after) in changes.items() if self._keys.get(key) == before})

    def succeed(self, key_id: str, former: Sequence[str]) -> None:
        """Note which data keys a key takes the place of."""
        self._former.pop(key_id, None)
        if former:
            self._former[key_id] = list(former)

    def former_keys(self, key_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the data keys that keys are taking the place of."""
        return {key: list(self._former[key]) for key in key_ids if key in self._former}

    def reseal_archived(self, changes: Sequence[tuple[StoredRecord, StoredRecord]]) -> None:
        """Replace superseded versions."""
        with self._lock:
            for before, after in changes:
                stored, profile_id = self._archive[(before.key, before.number)]
                if stored.key_id == before.key_id:
                    self._archive[(before.key, before.number)] = (after, profile_id)

    def reseal_past(self, changes: Sequence[tuple[Profile, Profile]]) -> None:
        """Replace what is sealed of past versions."""
        with self._lock:
            for before, after in changes:
                if self._past[before.profile_id][before.version].key_id == before.key_id:
                    self._past[before.profile_id][before.version] = _copy(after)

    def drop_traces(self, profile_ids: Sequence[str], record_keys: Sequence[str]) -> None:
        """Remove history, superseded versions and links."""
        with self._lock:
            for profile_id in profile_ids:
                self._past.pop(profile_id, None)
            for found in [item for item in self._archive if item[0] in set(record_keys)]:
                del self._archive[found]

    def archive(self, superseded: Sequence[tuple[StoredRecord, str]]) -> None:
        """Keep superseded record versions."""
        for record, profile_id in superseded:
            self._archive.setdefault((record.key, record.number), (record, profile_id))

    def archived(self, source_id: str, source_record_id: str) -> list[StoredRecord]:
        """Return superseded versions."""
        key = f"{source_id}/{source_record_id}"
        return [self._archive[found][0] for found in sorted(self._archive) if found[0] == key]

    def keep_past(self, profiles: Sequence[Profile]) -> None:
        """Keep what profiles were."""
        with self._lock:
            for profile in profiles:
                self._past[profile.profile_id].setdefault(profile.version, _copy(profile))

    def past_versions(self, profile_id: str, before: int, limit: int) -> list[Profile]:
        """Return what a profile was, newest first."""
        kept = sorted(self._past[profile_id].items(), reverse=True)
        return [_copy(profile) for version, profile in kept if version < before][:limit]

    def past_at(self, profile_id: str, time: datetime) -> Profile | None:
        """Return the last past version by a time."""
        kept = sorted(self._past[profile_id].items(), reverse=True)
        return next((_copy(profile) for _, profile in kept if profile.since <= time), None)

    def drop_versions(self, keys: Sequence[str], profile_ids: Sequence[str]) -> None:
        """Remove superseded versions and what profiles were."""
        with self._lock:
            for found in [item for item in self._archive if item[0] in set(keys)]:
                del self._archive[found]
            for profile_id in profile_ids:
                self.drop_aged(RecordType.PAST_PROFILES, [past_id(profile_id, n) for n in self._past[profile_id]])

    def ageing(self, kind: RecordType, after: str, limit: int) -> list[Ageing]:
        """Return things of a kind, by id."""
        with self._lock:
            found = [item for item in self._ageing(kind) if item.id > after]
        return sorted(found, key=lambda item: item.id)[:limit]

    def aged(self, kind: RecordType, ids: Sequence[str]) -> list[Ageing]:
        """Return those that are there."""
        with self._lock:
            return [item for item in self._ageing(kind) if item.id in ids]

    def _ageing(self, kind: RecordType) -> list[Ageing]:
        if kind is RecordType.SUPERSEDED_VERSIONS:
            kept = self._archive.items()
            return [Ageing(f"{key}/{n}", r.received_time, r.source_id, owner) for (key, n), (r, owner) in kept]
        if kind is RecordType.PAST_PROFILES:
            past = [item for versions in self._past.values() for item in versions.values() if item.golden]
            return [Ageing(past_id(p.profile_id, p.version), p.since, profile_id=p.profile_id) for p in past]
        if kind is RecordType.REJECTS:
            rejects = self.rejects.page({}, "", len(self.rejects._items))
            return [Ageing(item.id, item.create_time, item.source_id) for item in rejects if item.create_time]
        return [Ageing(f"{upload}/{n}", time) for (upload, n), (_, time) in self._chunks.items()]

    def drop_aged(self, kind: RecordType, ids: Sequence[str]) -> None:
        """Remove things of a kind."""
        with self._lock:
            for item_id in ids:
                head, _, number = item_id.rpartition("/")
                if kind is RecordType.SUPERSEDED_VERSIONS:
                    self._archive.pop((head, int(number)), None)
                elif kind is RecordType.PAST_PROFILES:
                    found = self._past[head].get(int(number))
                    self._past[head].update({found.version: replace(found, golden=b"")} if found else {})
                elif kind is RecordType.REJECTS:
                    self.rejects._items.pop(item_id, None)
                else:
                    self._chunks.pop((head, int(number)), None)

    def record_keys(self, source_id: str, after: str, limit: int) -> list[str]:
        """Return a page of a source's record keys."""
        start = record_key(source_id, "")
        with self._lock:
            return sorted(key for key in self._owners if key.startswith(start) and key > after)[:limit]

    def add_chunk(self, upload_id: str, number: int, sealed: bytes) -> None:
        """Keep a part."""
        self._chunks[(upload_id, number)] = (sealed, datetime.now(UTC))

    def chunk(self, upload_id: str, number: int) -> bytes | None:
        """Return a part."""
        found = self._chunks.get((upload_id, number))
        return found[0] if found else None

    def drop_upload(self, upload_id: str, chunks: int) -> None:
        """Remove the parts."""
        for number in range(chunks):
            self._chunks.pop((upload_id, number), None)

    def rounds(self) -> int:
        """Return the number of batches written."""
        return self._round
