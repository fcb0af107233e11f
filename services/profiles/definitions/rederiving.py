"""The job that derives all golden records anew after a survivorship rule changed: leased, resumable, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message
from kehu.profiles.v1 import resources_pb2

from services.chassis.jobs import Handler, Job, Paused
from services.profiles.dictionary import Dictionary
from services.profiles.remembered import FRESH_SECONDS
from services.profiles.shaping import load, rederive, write
from services.profiles.store import Store
from services.profiles.values import Profile
from services.profiles.vault import Vault

REDERIVE = "rederive"
PROFILES_PER_BATCH = 200


class Rederiver:
    """Derives golden records anew; a profile that somebody else writes meanwhile has the new rule by that write."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        dictionary: Dictionary,
        profiles_per_batch: int = PROFILES_PER_BATCH,
        others_know_after: float = FRESH_SECONDS,
    ) -> None:
        """Work with these tools, `profiles_per_batch` at a time, once every process must have read the new rule."""
        self._others_know_after = others_know_after
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self._profiles_per_batch = profiles_per_batch

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of this job."""
        return {REDERIVE: self.run}

    def run(self, job: Job) -> Message:
        """Derive profile after profile from the checkpoint on."""
        progress = resources_pb2.Rederivation()
        job.metadata.Unpack(progress)
        if not job.checkpoint and self._others_know_after:
            job.save({"after": ""}, progress)
            raise Paused("others may use the former rule for moments", self._others_know_after)
        self._dictionary.forget()
        after = str(job.checkpoint.get("after", ""))
        while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
            progress.profiles_changed += self._rederive(batch)
            progress.profiles_read += len(batch)
            after = batch[-1].profile_id
            job.save({"after": after}, progress)
        return progress

    def _rederive(self, batch: Sequence[Profile]) -> int:
        """Write those of a batch that change; return how many."""
        opened, ciphers = load(self._store, self._vault, batch)
        now, rules = datetime.now(UTC), self._dictionary.rules()
        found = [rederive(item, ciphers, self._vault, rules, now) for item in opened]
        shaped = [item for item in found if item]
        return len(shaped) - len(write(self._store, shaped))
