"""The job that suggests households: people of one surname who gave the same address to the room; nothing is stated.

First every record with such an address is listed under the keyed token of address and surname, then the list is read
in order, group by group, and each group looked at anew: an address of yesterday suggests nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations, groupby

from google.protobuf.message import Message
from kehu.profiles.v1 import relations_pb2 as pb

from services.chassis.errors import Conflict
from services.chassis.jobs import Handler, Job
from services.profiles.domain.relations import (
    BY_RULE,
    CROWD,
    OF_ONE_HOUSEHOLD,
    SAME_ROOM,
    SAME_ROOM_CONFIDENCE,
    SUGGESTED,
    Relation,
    household_key,
)
from services.profiles.folding import Working
from services.profiles.relations.relating import Relations
from services.profiles.relations.values import HouseholdKey, StoredRelation
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.vault import ErasedError, Vault

SUGGEST = "suggest-relationships"
PROFILES_PER_BATCH, KEYS_PER_BATCH = 200, 500
PLACE, SUGGESTION = "relation-household", "relation-suggestion"
LISTING, PAIRING = "listing", "pairing"
GROUP_READ = CROWD * 8  # records of one group looked at: one person may have several


class Suggester:
    """Suggests relationships."""

    def __init__(self, store: Store, vault: Vault, profiles_per_batch: int = PROFILES_PER_BATCH) -> None:
        """Work with these tools, `profiles_per_batch` at a time."""
        self._store = store
        self._vault = vault
        self._relations = Relations(store, vault)
        self._profiles_per_batch = profiles_per_batch

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {SUGGEST: self.run}

    def run(self, job: Job) -> Message:
        """List, then pair, from the checkpoint on."""
        progress = pb.RelationSuggestions()
        job.metadata.Unpack(progress)
        after = str(job.checkpoint.get("after", ""))
        if job.checkpoint.get("stage", LISTING) == LISTING:
            while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
                keys = [key for item in load(self._store, self._vault, batch)[0] for key in self._keys_of(item)]
                self._store.household_keys.add_missing(keys)
                progress.profiles_read += len(batch)
                after = batch[-1].profile_id
                job.save({"stage": LISTING, "after": after}, progress)
            after = ""
            job.save({"stage": PAIRING, "after": after}, progress)
        for groups in self._pages(after):
            self._pair(groups, progress)
            job.save({"stage": PAIRING, "after": groups[-1][-1].id}, progress)
        return progress

    def _keys_of(self, item: Working) -> Iterator[HouseholdKey]:
        for key, record in item.records.items():
            if text := household_key(record):
                place = self._vault.relation_token(PLACE, text)
                yield HouseholdKey(f"{place}/{key}", place, key)

    def _pages(self, after: str) -> Iterator[list[list[HouseholdKey]]]:
        """Yield the records of each address, some addresses at a time, in order; one address is never cut in two."""
        waiting: list[HouseholdKey] = []
        while page := self._store.household_keys.page({}, after, KEYS_PER_BATCH):
            after = page[-1].id
            groups = [list(found) for _, found in groupby([*waiting, *page], lambda item: item.place)]
            waiting = groups.pop()
            if groups:
                yield groups
        if waiting:
            yield [waiting]

    def _pair(self, groups: Sequence[list[HouseholdKey]], progress: pb.RelationSuggestions) -> None:
        shared = [keys for keys in groups if len(keys) > 1]
        homes = self._homes([listed for keys in shared for listed in keys[:GROUP_READ]])
        households = []
        for keys in shared:
            people = self._people(keys[:GROUP_READ], homes)
            if len(people) > CROWD or len(keys) > GROUP_READ:
                progress.crowded += 1
            elif len(people) > 1:
                households.append(people)
        progress.households_found += len(households)
        known, _ = self._relations.of([item.profile for people in households for item, _ in people.values()])
        held = {frozenset(item.ends) for item in known if item.relation.type in OF_ONE_HOUSEHOLD}
        made = [
            self._suggestion(people[one][1], people[two][1])
            for people in households
            for one, two in combinations(sorted(people), 2)
            if frozenset((one, two)) not in held
        ]
        progress.suggested += self._store.relations.add_missing([item for item in made if item])

    def _homes(self, listed: Sequence[HouseholdKey]) -> dict[str, Working]:
        """Return who holds each record by now."""
        opened, _ = load(self._store, self._vault, self._store.by_record_keys([item.record for item in listed]))
        return {key: item for item in opened for key in item.records}

    def _people(self, keys: Sequence[HouseholdKey], homes: Mapping[str, Working]) -> dict[str, tuple[Working, str]]:
        """Return who has that address by now, each with the record that says so; strike the others off the list."""
        people: dict[str, tuple[Working, str]] = {}
        for listed in keys:
            home = homes.get(listed.record)
            text = household_key(home.records[listed.record]) if home else ""
            if home is None or self._vault.relation_token(PLACE, text) != listed.place:
                self._strike(listed)
            else:
                people.setdefault(home.profile_id, (home, listed.record))
        return people

    def _strike(self, listed: HouseholdKey) -> None:
        try:
            self._store.household_keys.delete(listed)
        except Conflict:
            return  # another run struck it off

    def _suggestion(self, one: str, two: str) -> StoredRelation | None:
        first, second = sorted((one, two))
        said = datetime.now(UTC).isoformat(timespec="seconds")
        relation = Relation(
            "household", first, second, BY_RULE, SAME_ROOM, said, SAME_ROOM_CONFIDENCE, inferred_by=SAME_ROOM
        )
        relation_id = self._vault.relation_token(SUGGESTION, f"{SAME_ROOM}\0{first}\0{second}")
        try:
            return self._relations.state(relation, relation_id, SUGGESTED)
        except ErasedError:
            return None
