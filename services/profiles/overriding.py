"""A steward's values over those of the sources: set, withdrawn, and ended by a job at the moment they expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf.message import Message
from kehu.profiles.v1 import resources_pb2

from services.chassis.jobs import Handler, Job, Jobs, Owner, Paused
from services.profiles.aliases import resolve, resolve_one
from services.profiles.dictionary import Dictionary
from services.profiles.domain.values import ManualOverride
from services.profiles.errors import OverrideNotFound, ProfileNotFound, ProfilesBusy
from services.profiles.merging import ATTEMPTS
from services.profiles.shaping import load, reshape, write
from services.profiles.store import Store
from services.profiles.values import Profile, Revision, StoredOverride, record_key
from services.profiles.vault import Ciphers, ErasedError, Vault

EXPIRE = "expire_override"
NOBODY = Owner("service:profiles", "")  # no department sees or cancels these operations
Change = Callable[[Profile, Ciphers], "list[StoredOverride]"]


class Overrider:
    """Changes the overrides of profiles; each change is a revision, and others are told of the new values."""

    def __init__(self, store: Store, vault: Vault, dictionary: Dictionary) -> None:
        self._store = store
        self._vault = vault
        self._dictionary = dictionary

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of the job that ends an override."""
        return {EXPIRE: self.run}

    def anchor_of(self, profile: Profile, field: str) -> str:
        """Return the key of the record whose value of a field is believed, the profile's first when none is.

        Raises:
            ProfileNotFound: its data key was destroyed.
        """
        try:
            golden = self._vault.open_golden(profile, self._vault.ciphers(self._store, [profile]))
        except ErasedError:
            raise _gone(profile.profile_id) from None
        found = golden.lineage(field)
        key = record_key(found.source_id, found.source_record_id) if found else ""
        return key if key in profile.record_keys else profile.records[0].key

    def set(self, profile_id: str, override: ManualOverride, override_id: str, anchor_key: str) -> Profile:
        """Set a value over those of the sources, and over an earlier override of the field; a repeat changes nothing.

        Raises:
            ProfilesBusy: others kept changing the profile.
        """

        def with_it(profile: Profile, ciphers: Ciphers) -> list[StoredOverride]:
            if any(item.id == override_id for item in profile.overrides):
                return profile.overrides
            anchor = next((item for item in profile.records if item.key == anchor_key), profile.records[0])
            sealed = self._vault.seal_override(override, override_id, ciphers.get(anchor.key_id))
            assert override.expire_time is not None
            made = StoredOverride(
                override_id, override.field, anchor.key, anchor.key_id, override.record.updated_time,
                override.expire_time, sealed,
            )  # fmt: skip
            return [*(item for item in profile.overrides if item.name != override.field), made]

        return self._change(profile_id, with_it, "overridden", override.record.source_record_id)

    def withdraw(self, profile_id: str, override_id: str, by: str) -> Profile:
        """Take an override away: the sources are believed again.

        Raises:
            OverrideNotFound: the profile has none of this id.
        """

        def without_it(profile: Profile, _: Ciphers) -> list[StoredOverride]:
            kept = [item for item in profile.overrides if item.id != override_id]
            if len(kept) == len(profile.overrides):
                name = f"profiles/{profile.profile_id}/overrides/{override_id}"
                raise OverrideNotFound("there is no such override", metadata={"name": name})
            return kept

        return self._change(profile_id, without_it, "override_ended", by)

    def end_later(self, jobs: Jobs, profile_id: str, override_id: str, anchor_key: str, expire_time: datetime) -> None:
        """Let a job end the override when it expires."""
        args = {"profile_id": profile_id, "override_id": override_id, "record": anchor_key,
                "expire_time": expire_time.isoformat()}  # fmt: skip
        jobs.start(EXPIRE, args, resources_pb2.Override(), NOBODY, override_id)

    def run(self, job: Job) -> Message:
        """End an override once it has expired, in whichever profile it is by then."""
        expire_time = datetime.fromisoformat(str(job.args["expire_time"]))
        left = (expire_time - datetime.now(UTC)).total_seconds()
        if left > 0:
            raise Paused("it has not expired yet", left)
        override_id = str(job.args["override_id"])
        profile_id = self._holder(str(job.args["profile_id"]), str(job.args["record"]), override_id)
        if profile_id:
            self._change(
                profile_id, lambda item, _: [o for o in item.overrides if o.id != override_id], "override_ended"
            )
        return resources_pb2.Override()

    def _holder(self, profile_id: str, anchor_key: str, override_id: str) -> str:
        """Return the profile that has the override by now: the one with its record, or the one it was set on."""
        near = [*self._store.by_record_keys([anchor_key]), *resolve(self._store, [profile_id]).values()]
        return next((item.profile_id for item in near if any(o.id == override_id for o in item.overrides)), "")

    def _change(self, profile_id: str, change: Change, kind: str, by: str = "") -> Profile:
        for _ in range(ATTEMPTS):
            profile = resolve_one(self._store, profile_id)
            opened, ciphers = load(self._store, self._vault, [profile])
            if not opened:
                break
            overrides = change(profile, ciphers)
            if overrides is profile.overrides:
                return profile
            now = datetime.now(UTC)
            shaped = reshape(
                profile, replace(profile, overrides=overrides), opened[0].records, ciphers, self._vault,
                self._dictionary.rules(), now, Revision(0, now, kind, by=by),
            )  # fmt: skip
            if not write(self._store, [shaped]):
                return shaped.profile
        else:
            raise ProfilesBusy("the profile keeps changing; try again")
        raise _gone(profile_id)


def _gone(profile_id: str) -> ProfileNotFound:
    return ProfileNotFound("there is no such profile", metadata={"name": f"profiles/{profile_id}"})
