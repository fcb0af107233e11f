"""Relationships: stated, found by person, confirmed, ended, removed; they hang on source records, never on profiles.

So a merge or a split of profiles changes none of them: a relationship belongs to whoever has its record by now. One
between two records of the same profile is not shown, and is there again when the profile is split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from services.chassis.errors import AlreadyExists, Conflict
from services.profiles.domain.relations import (
    BUILT_IN_TYPES,
    BY_RECORD,
    DISMISSED,
    SUGGESTED,
    Relation,
    RelationType,
    organization_key,
)
from services.profiles.errors import ProfilesBusy, RelationshipNotFound
from services.profiles.relations.values import StoredRelation
from services.profiles.store import Store
from services.profiles.values import Profile
from services.profiles.vault import ErasedError, Vault

NOBODY = "\0"  # the record of a code that nobody holds yet
SCANNED = 200  # relationships looked at of one record, in each direction
ATTEMPTS = 8
END, CODE, ORGANIZATION = "relation-end", "relation-code", "relation-organization"


@dataclass(frozen=True, slots=True)
class Related:
    """A relationship with its people as they are now; `other` is missing where it is an organization."""

    stored: StoredRelation
    relation: Relation
    one: Profile
    other: Profile | None

    @property
    def is_suggested(self) -> bool:
        """Tell whether a rule infers it and nobody confirmed it."""
        return self.stored.state == SUGGESTED

    @property
    def ends(self) -> tuple[str, str]:
        """Return the first's and the second's profile id; the second may be an organization's id."""
        one, other = self.one.profile_id, self.other.profile_id if self.other else self.stored.other
        return (other, one) if self.relation.is_inverse else (one, other)


class Relations:
    """The relationships of one store."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def type_of(self, type_id: str) -> RelationType | None:
        """Return a type, built-in or registered."""
        return BUILT_IN_TYPES.get(type_id) or self._store.relation_types.get(type_id)

    def end_of(self, record_key: str) -> str:
        """Return the token of a record as an end."""
        return self._vault.relation_token(END, record_key)

    def state(
        self, relation: Relation, relation_id: str, state: str, end: str = "", digest: str = ""
    ) -> StoredRelation:
        """Return a relationship sealed under the data keys of the people whose records are there.

        `end` is the token of the second where that is a code that a record holds.

        Raises:
            ErasedError: one of them was erased meanwhile.
        """
        keys = self._keys_of(relation)
        ciphers = self._vault.ciphers_of(self._store, keys)
        sealed = self._vault.seal_relation(relation, relation_id, keys, ciphers)
        other = end or (self.end_of(relation.other) if relation.other else self.organization_id(relation))
        return StoredRelation(relation_id, self.end_of(relation.one), other, state, keys, sealed, digest)

    def organization_id(self, relation: Relation) -> str:
        """Return the id of a relationship's organization."""
        key = organization_key(relation.organization, relation.organization_code)
        return self._vault.relation_token(ORGANIZATION, key)

    def _keys_of(self, relation: Relation) -> list[str]:
        """Return the data keys of the people whose records are there, the first's first.

        Raises:
            ErasedError: the first's record is not there.
        """
        wanted = [key for key in (relation.one, relation.other) if key]
        found = self._store.by_record_keys(wanted)
        held = {record.key: record.key_id for item in found for record in item.records if record.key in wanted}
        if relation.one not in held:
            raise ErasedError("the record is gone")
        return [held[key] for key in wanted if key in held]

    def of(self, profiles: Sequence[Profile]) -> tuple[list[Related], bool]:
        """Return the relationships of people, and whether some were not looked at.

        Those of erased people are removed on the way; those within one profile are left out.
        """
        known = {item.profile_id: item for item in profiles}
        keys = [key for item in profiles for key in item.record_keys]
        codes = [item.id for item in self._store.relation_codes.among("record", keys)]
        found = chain(self._at(map(self.end_of, keys), "one", "other"), self._at(codes, "other"))
        return self._related(found, known)

    def at_organization(self, organization_ids: Sequence[str]) -> tuple[list[Related], bool]:
        """Return the relationships to organizations."""
        return self._related(self._at(organization_ids, "other"), {})

    def _at(self, ends: Iterable[str], *names: str) -> Iterator[tuple[StoredRelation, bool]]:
        """Yield relationships at some ends, each with whether it is one too many."""
        for end in ends:
            for name in names:
                found = self._store.relations.page({name: end}, "", SCANNED + 1)
                yield from ((item, at >= SCANNED) for at, item in enumerate(found))

    def _related(
        self, found: Iterable[tuple[StoredRelation, bool]], known: dict[str, Profile]
    ) -> tuple[list[Related], bool]:
        by_id, is_cut = dict[str, StoredRelation](), False
        for item, is_too_many in found:
            is_cut |= is_too_many
            if not is_too_many and item.state != DISMISSED:
                by_id[item.id] = item
        opened = self._opened(by_id.values())
        homes, alive = self._homes(opened, known)
        related = []
        for stored, relation in opened.values():
            one, other = homes.get(relation.one), homes.get(relation.other)
            if not {key for key in (relation.one, relation.other) if key in homes} <= alive:
                self._drop(stored)  # one of the two was erased
            elif one is not None and (not relation.other or (other is not None and other is not one)):
                related.append(Related(stored, relation, one, other))
        return sorted(related, key=lambda item: item.stored.id), is_cut

    def _opened(self, found: Iterable[StoredRelation]) -> dict[str, tuple[StoredRelation, Relation]]:
        """Return what can be read, codes replaced by the records that hold them; what cannot any more is removed."""
        items = list(found)
        ciphers = self._vault.ciphers_of(self._store, (key for item in items for key in item.keys))
        opened = {}
        for item in items:
            try:
                opened[item.id] = item, self._vault.open_relation(item, ciphers)
            except ErasedError:
                self._drop(item)
        wanted = {item.other for item, relation in opened.values() if relation.is_by_code}
        codes = {item.id: item.record for item in self._store.relation_codes.among("id", sorted(wanted))}
        for item_id, (item, relation) in opened.items():
            if relation.is_by_code:
                opened[item_id] = item, replace(relation, other=codes.get(item.other, NOBODY))
        return opened

    def _homes(
        self, opened: Mapping[str, tuple[StoredRelation, Relation]], known: Mapping[str, Profile]
    ) -> tuple[dict[str, Profile], set[str]]:
        """Return the living profile of each record, and the records whose person was not erased."""
        homes = {key: item for item in known.values() for key in item.record_keys}
        by_id = dict(known)
        wanted = {key for _, relation in opened.values() for key in (relation.one, relation.other) if key}
        for item in self._store.by_record_keys(sorted(wanted - homes.keys())):
            same = by_id.setdefault(item.profile_id, item)
            homes.update({key: same for key in item.record_keys})
        keys = {record.key: record.key_id for item in homes.values() for record in item.records if record.key in wanted}
        there = self._vault.ciphers_of(self._store, keys.values()).by_id
        return homes, {key for key, key_id in keys.items() if key_id in there}

    def get(self, relation_id: str) -> Related:
        """Return a relationship.

        Raises:
            RelationshipNotFound: there is none, its people were erased, or they are one by now.
        """
        stored = self._store.relations.get(relation_id)
        related = self._related([(stored, False)], {})[0] if stored else []
        if not related:
            raise missing(relation_id)
        return related[0]

    def change(self, relation_id: str, change: Callable[[Relation], Relation], state: str) -> Related:
        """Change what is said of two.

        Raises:
            RelationshipNotFound, ProfilesBusy
        """
        for _ in range(ATTEMPTS):
            now = self.get(relation_id)
            ciphers = self._vault.ciphers_of(self._store, now.stored.keys)
            plain = self._vault.open_relation(now.stored, ciphers)
            sealed = self._vault.seal_relation(change(plain), relation_id, now.stored.keys, ciphers)
            try:
                self._store.relations.replace(replace(now.stored, state=state, sealed=sealed))
            except Conflict:
                continue
            return self.get(relation_id)
        raise ProfilesBusy("the relationship keeps changing; try again")

    def remove(self, related: Related) -> None:
        """Remove a relationship; what a rule inferred or a source says does not come back by itself."""
        stored = related.stored
        try:
            if stored.state == SUGGESTED or related.relation.evidence == BY_RECORD or related.relation.inferred_by:
                self._store.relations.replace(replace(stored, state=DISMISSED, sealed=b"", keys=[]))
            else:
                self._store.relations.delete(stored)
        except Conflict:
            raise ProfilesBusy("the relationship keeps changing; try again") from None

    def put(self, item: StoredRelation) -> bool:
        """Write what a source says now over what it said; say whether that is another."""
        for _ in range(ATTEMPTS):
            was = self._store.relations.get(item.id)
            is_known = was is not None and was.digest == item.digest
            if was is not None and is_known and (was.state == DISMISSED or list(was.keys) == list(item.keys)):
                return False
            try:
                if was is None:
                    self._store.relations.insert(item)
                else:
                    self._store.relations.replace(replace(item, version=was.version, create_time=was.create_time))
            except (Conflict, AlreadyExists):
                continue
            return True
        raise ProfilesBusy("the relationship keeps changing; try again")

    def drop(self, relation_ids: Sequence[str]) -> None:
        """Remove relationships by id, if they are there."""
        for item in self._store.relations.among("id", relation_ids):
            self._drop(item)

    def drop_suggested(self, record_keys: Sequence[str]) -> None:
        """Remove what a rule suggests by these records and nobody confirmed."""
        for item in self._all_at(record_keys):
            if item.state == SUGGESTED:
                self._drop(item)

    def reseal(self, record_keys: Sequence[str]) -> None:
        """Seal the relationships of records under the data keys that the records have by now.

        Raises:
            ProfilesBusy: others kept changing one.
        """
        for item in self._all_at(record_keys):
            self._reseal(item)

    def _reseal(self, stored: StoredRelation) -> None:
        now: StoredRelation | None = stored
        for _ in range(ATTEMPTS):
            if now is None or now.state == DISMISSED:
                return
            try:
                relation = self._vault.open_relation(now, self._vault.ciphers_of(self._store, now.keys))
                keys = self._keys_of(relation)
                if keys == list(now.keys) or len(keys) < len(now.keys):
                    return
                ciphers = self._vault.ciphers_of(self._store, keys)
                sealed = self._vault.seal_relation(relation, now.id, keys, ciphers)
                self._store.relations.replace(replace(now, keys=keys, sealed=sealed))
            except ErasedError:
                return
            except Conflict:
                now = self._store.relations.get(stored.id)
                continue
            return
        raise ProfilesBusy("the relationship keeps changing; try again")

    def forget(self, record_keys: Sequence[str]) -> None:
        """Remove all that is known of the relationships of records: their people were erased."""
        for item in self._all_at(record_keys):
            self._drop(item)
        for code in self._store.relation_codes.among("record", record_keys):
            with suppress(Conflict):
                self._store.relation_codes.delete(code)
        for listed in self._store.household_keys.among("record", record_keys):
            with suppress(Conflict):
                self._store.household_keys.delete(listed)

    def _all_at(self, record_keys: Sequence[str]) -> Iterator[StoredRelation]:
        for end in map(self.end_of, record_keys):
            for name in ("one", "other"):
                after = ""
                while page := self._store.relations.page({name: end}, after, SCANNED):
                    yield from page
                    after = page[-1].id

    def _drop(self, stored: StoredRelation) -> None:
        with suppress(Conflict):  # somebody changed it meanwhile; the next reader looks again
            self._store.relations.delete(stored)


def anchor_of(profile: Profile) -> str:
    """Return the record that what is said of a person hangs on: the first it has."""
    return profile.records[0].key


def missing(relation_id: str) -> RelationshipNotFound:
    """Return the error of a relationship that is not there."""
    return RelationshipNotFound("there is no such relationship", metadata={"name": f"relationships/{relation_id}"})
