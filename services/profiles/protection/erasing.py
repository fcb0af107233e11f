"""Erase a person: the data keys are destroyed, so that nothing anywhere opens again; then what is left is removed.

The steps, each of which may be repeated: enter the ledger, by which every process refuses the person's records from
then on · wait until all know it · give those split from the person keys of their own · replace the profile and its
former names by tombstones that publish their end, in one compare-and-set each · destroy the keys · remove history,
set-apart rows and match candidates · close the entry, which is the receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from google.longrunning import operations_pb2
from google.protobuf.message import Message
from kehu.profiles.v1 import protection_pb2

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.jobs import Handler, Job, Jobs, Owner, Paused
from services.chassis.records import Fact
from services.profiles.ageing.holding import holds_on
from services.profiles.aliases import resolve
from services.profiles.errors import ProfileHeld, ProfilesBusy
from services.profiles.exported import withdraw
from services.profiles.facts import profile_ended, profile_erased
from services.profiles.merging import ATTEMPTS
from services.profiles.protection.ledger import KNOWN_SECONDS, PAGE, place_now
from services.profiles.protection.resealing import Resealer, key_ids_of, next_key_id
from services.profiles.relations.relating import Relations
from services.profiles.store import Store
from services.profiles.values import Erasure, Profile
from services.profiles.vault import Vault

ERASE = "erase"
REFUSED_FOR = timedelta(days=3 * 365)  # a source that sends an erased record for so long is refused
NOBODY = Owner("service:profiles", "")


class Eraser:
    """Erases people."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        others_know_after: float = KNOWN_SECONDS,
    ) -> None:
        """Work with these tools."""
        self._store = store
        self._vault = vault
        self._others_know_after = others_know_after
        self._resealer = Resealer(store, vault)

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {ERASE: self.run}

    def check(self, profile: Profile) -> None:
        """Refuse what may not be erased now.

        Raises:
            ProfileHeld: naming the holds.
        """
        if holds := holds_on(self._store, profile, datetime.now(UTC)):
            name = f"profiles/{profile.profile_id}"
            raise ProfileHeld(
                "the profile is held for a legal reason; lift the hold first",
                metadata={"name": name, "holds": ",".join(holds)},
            )

    def run(self, job: Job) -> Message:
        """Erase the person of a job, from wherever the last try came to."""
        profile_id, reason = str(job.args["profile_id"]), str(job.args["reason"])
        if job.args.get("again"):
            return message_of(self.tell_again(profile_id))
        if not job.checkpoint.get("entered"):
            living = resolve(self._store, [profile_id]).get(profile_id)
            if living is not None:
                self.check(living)
            entry = self._enter(profile_id, reason, job.owner.subject)
            job.save({"entered": True}, message_of(entry))
            if self._others_know_after:
                raise Paused("every process must know it first", self._others_know_after)
        return message_of(self.erase(profile_id))

    def _enter(self, profile_id: str, reason: str, by: str) -> Erasure:
        """Return the ledger's entry, made when there is none."""
        made = Erasure(
            profile_id, [profile_id], [], [], reason, by, datetime.now(UTC) + REFUSED_FOR, place=place_now()
        )  # fmt: skip
        with suppress(AlreadyExists):
            self._store.erasures.insert(made)
        return self._extended(profile_id, self._group(profile_id))

    def erase(self, profile_id: str) -> Erasure:
        """Erase a person whose entry is in the ledger, and return the entry, closed.

        Raises:
            ProfilesBusy: others kept changing the profile; a repeat goes on.
        """
        for _ in range(ATTEMPTS):
            group = self._group(profile_id)
            entry = self._extended(profile_id, group)
            records = [record.key for item in group for record in item.records]
            for relative in self._relatives(group):
                self._resealer.forget_together(relative, records)
            if not self._free_relatives(group):
                continue
            self._drop(entry, records)
            now = datetime.now(UTC)
            standing = [item for item in group if not item.is_erased]
            tombstones = [_tombstone(item, entry.names, now) for item in standing]
            lost = self._store.write_profiles(tombstones) if tombstones else []
            self._destroy(entry)
            self._drop(entry, records)
            if not lost and all(item.is_erased for item in self._group(profile_id)):
                return self._closed(entry)
        raise ProfilesBusy("the profile keeps changing; try again")

    def tell_again(self, profile_id: str) -> Erasure:
        """Tell the end of an erased person once more, to services whose backup was restored, and return the entry.

        Raises:
            ProfilesBusy: others kept changing the tombstones; a repeat goes on.
        """
        entry = self._store.erasures.get(profile_id)
        assert entry is not None
        for _ in range(ATTEMPTS):
            now = datetime.now(UTC)
            group = self._group(profile_id)
            if not all(item.is_erased for item in group):
                return self.erase(profile_id)
            if not self._store.write_profiles([_tombstone(item, entry.names, now) for item in group]):
                return entry
        raise ProfilesBusy("the profile keeps changing; try again")

    def _group(self, profile_id: str) -> list[Profile]:
        """Return the profiles that are this person: the living one and all that ended in it."""
        living = resolve(self._store, [profile_id]).get(profile_id)
        entry = self._store.erasures.get(profile_id)
        names = {profile_id, *(entry.names if entry else ())}
        if living is not None:
            names |= {living.profile_id, *living.aliases}
        return list(self._store.profiles(sorted(names)).values())

    def _extended(self, profile_id: str, group: Sequence[Profile]) -> Erasure:
        """Return the entry with all names, keys and records that are known by now."""
        for _ in range(ATTEMPTS):
            entry = self._store.erasures.get(profile_id)
            assert entry is not None
            used = {key_id for item in group for key_id in (*key_ids_of(item), item.key_id) if key_id}
            used |= {key_id for found in self._store.former_keys(sorted(used)).values() for key_id in found}
            used |= {next_key_id(item.key_id) for item in group if item.key_id}  # of a rotation that died here
            records = {record.key for item in group for record in item.records}
            grown = replace(
                entry,
                names=sorted({*entry.names, *(item.profile_id for item in group)}),
                key_ids=sorted({*entry.key_ids, *used}),
                tokens=sorted({*entry.tokens, *map(self._vault.erased_token, records)}),
            )
            if grown == entry:
                return entry
            grown = replace(grown, place=place_now(), state="begun", records=len(grown.tokens))
            try:
                return self._store.erasures.replace(grown)
            except Conflict:
                continue
        raise ProfilesBusy("the erasure is under way elsewhere; try again")

    def _free_relatives(self, group: Sequence[Profile]) -> bool:
        """Give living people who share a key with this one, by an earlier split, keys of their own."""
        used = {key_id for item in group for key_id in key_ids_of(item)}
        sharing = [
            item for item in self._relatives(group)
            if not used.isdisjoint(key_ids_of(item) | self._resealer.past_keys(item))
        ]  # fmt: skip
        return all([self._resealer.reseal(item) for item in sharing])

    def _relatives(self, group: Sequence[Profile]) -> list[Profile]:
        """Return living people whom records were split to from this one, or the other way round."""
        found = {other.profile_id: other for item in group for other in self._resealer.relatives(item)}
        return [item for name, item in found.items() if name not in {item.profile_id for item in group}]

    def _destroy(self, entry: Erasure) -> None:
        for key_id in entry.key_ids:
            self._store.destroy_data_key(key_id)
            self._vault.forget(key_id)

    def _drop(self, entry: Erasure, records: Sequence[str]) -> None:
        withdraw(self._store, entry.names)
        self._store.drop_traces(entry.names, records)
        Relations(self._store, self._vault).forget(records)
        tokens = [self._vault.record_reject_token(key) for key in records]
        for reject in self._store.rejects.among("record", tokens):
            self._store.rejects.delete(reject)
        pairs = {item.id: item for side in ("one", "other") for item in self._store.pairs.among(side, entry.names)}
        for pair in pairs.values():
            self._store.pairs.delete(pair)

    def _closed(self, entry: Erasure) -> Erasure:
        found = self._store.erasures.get(entry.id)
        if found is not None and found.state != "done":
            self._store.erasures.replace(replace(found, state="done"))
            found = self._store.erasures.get(entry.id)
        assert found is not None
        return found


def _tombstone(profile: Profile, names: Sequence[str], now: datetime) -> tuple[Profile, list[Fact]]:
    """Return what is left of a profile, its id and version, and the facts of its end; facts that waited are dropped."""
    version = profile.version + 1
    left = Profile(profile.profile_id, now, now, version=profile.version)
    facts = (profile_ended(profile.profile_id, "", version, now),
             profile_erased(profile.profile_id, names, version, now))  # fmt: skip
    return left, list(facts)


def message_of(entry: Erasure) -> protection_pb2.Erasure:
    """Return the receipt."""
    message = protection_pb2.Erasure(
        profile=f"profiles/{entry.id}", reason=entry.reason, names=len(entry.names), records=len(entry.tokens),
        keys=len(entry.key_ids),
    )  # fmt: skip
    message.refuse_until_time.FromDatetime(entry.expire_time)
    if entry.state == "done" and entry.update_time is not None:
        message.erase_time.FromDatetime(entry.update_time)
    return message


def start_erasing(jobs: Jobs, profile_id: str, reason: str, owner: Owner, request_id: str) -> operations_pb2.Operation:
    """Queue the erasure of a person and return its operation."""
    args = {"profile_id": profile_id, "reason": reason}
    return jobs.start(ERASE, args, protection_pb2.Erasure(profile=f"profiles/{profile_id}"), owner, request_id)


def retell(store: Store, jobs: Jobs, since: datetime) -> int:
    """Queue that the erasures since then are told to all services again; return how many."""
    found, after = 0, f"{int(since.timestamp()) * 10**9:020d}"
    while page := store.erasures.page({}, after, PAGE, "place"):
        for entry in page:
            args = {"profile_id": entry.id, "reason": entry.reason, "again": True}
            jobs.start(ERASE, args, message_of(entry), NOBODY, "")
        found, after = found + len(page), page[-1].place
    return found


def replay(store: Store, jobs: Jobs) -> int:
    """Before a process serves or works: undo what a restored backup brought back of erased people; return how many.

    Their data keys are destroyed at once; what else is back is removed by the job that erases them again.
    """
    found, after = 0, ""
    while page := store.erasures.page({}, after, PAGE):
        for key_id in store.data_keys([key_id for entry in page for key_id in entry.key_ids]):
            store.destroy_data_key(key_id)
        back = store.profiles([name for entry in page for name in entry.names])
        for entry in page:
            if entry.state == "done" and any(name in back and not back[name].is_erased for name in entry.names):
                again = max(back[name].version for name in entry.names if name in back)
                start_erasing(jobs, entry.id, entry.reason, NOBODY, f"restored/{entry.id}/{entry.version}/{again}")
                found += 1
        after = page[-1].id
    return found
