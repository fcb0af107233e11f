"""The jobs that change keys while everything runs: master keys, and the data keys of all customers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message
from kehu.profiles.v1 import protection_pb2

from services.chassis.crypto import SealBroken
from services.chassis.jobs import Handler, Job, Paused
from services.profiles.errors import MasterKeyInUse, MasterKeyRefused
from services.profiles.protection.resealing import Resealer
from services.profiles.store import Store
from services.profiles.values import Profile
from services.profiles.vault import Vault

ROTATE_MASTER, RETIRE_MASTER, ROTATE_DATA = "rotate_master_key", "retire_master_key", "rotate_data_keys"
KNOWN_SECONDS = 10.0  # after which every process has looked for newer master keys
READ_SECONDS = 60.0  # after which nobody reads or writes by a data key that was replaced
KEYS_AT_ONCE, PROFILES_AT_ONCE = 500, 100
TRIES = 5


class KeyRotator:
    """Changes keys; every step may be repeated after a crash."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        others_know_after: float = KNOWN_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Work with these tools."""
        self._store = store
        self._vault = vault
        self._others_know_after = others_know_after
        self._read_seconds = read_seconds
        self._resealer = Resealer(store, vault)

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of these jobs."""
        return {ROTATE_MASTER: self.rotate_master, RETIRE_MASTER: self.retire_master, ROTATE_DATA: self.rotate_data}

    def rotate_master(self, job: Job) -> Message:
        """Make a master key if asked, and wrap all data keys by the newest."""
        progress = _progress(job)
        master, checkpoint = self._vault.master, dict(job.checkpoint)
        if "before" not in checkpoint:
            checkpoint["before"] = master.newest()
            job.save(checkpoint, progress)
        if job.args.get("create_key") and master.newest() == checkpoint["before"]:
            self._refused(master.create)
        progress.master_key = master.newest()
        self._wait(job, checkpoint, progress, self._others_know_after)
        after = str(checkpoint.get("after", ""))
        while page := self._store.page_data_keys(after, KEYS_AT_ONCE):
            stale = {key_id: wrapped for key_id, wrapped in page.items() if master.is_stale(wrapped)}
            fresh = master.rewrap(stale)
            self._store.rewrap_data_keys({key_id: (stale[key_id], fresh[key_id]) for key_id in fresh})
            progress.seen += len(page)
            progress.changed += len(fresh)
            after = checkpoint["after"] = max(page)
            job.save(checkpoint, progress)
        return progress

    def retire_master(self, job: Job) -> Message:
        """Destroy a master key, once nothing is wrapped by it.

        Raises:
            MasterKeyInUse: data keys are wrapped by it.
            MasterKeyRefused: it is the newest, or its keeper refuses.
        """
        version, progress, checkpoint = str(job.args["key"]), _progress(job), dict(job.checkpoint)
        master = self._vault.master
        progress.stage, progress.master_key = "checking", master.newest()
        if version == master.newest():
            raise MasterKeyRefused("this master key wraps now: rotate first", metadata={"cause": "newest"})
        self._wait(job, checkpoint, progress, self._others_know_after)
        wrapped, after = int(str(checkpoint.get("wrapped", 0))), str(checkpoint.get("after", ""))
        while page := self._store.page_data_keys(after, KEYS_AT_ONCE):
            wrapped += sum(master.version_of(value) == version for value in page.values())
            progress.seen += len(page)
            after = max(page)
            checkpoint.update(after=after, wrapped=wrapped)
            job.save(checkpoint, progress)
        if wrapped:
            raise MasterKeyInUse(
                "data keys are wrapped by this master key; rotate first",
                metadata={"key": version, "wrapped": str(wrapped)},
            )
        if version in master.versions():  # else an earlier try destroyed it
            self._refused(lambda: master.retire(version))
        return progress

    def rotate_data(self, job: Job) -> Message:
        """Seal all under new data keys; then, when nobody can be reading by the old ones, destroy those."""
        progress, checkpoint = _progress(job), dict(job.checkpoint)
        progress.stage = str(checkpoint.get("stage", "sealing"))
        if progress.stage == "sealing":
            for page in self._pages(checkpoint):
                progress.changed += sum(self._reseal(item) for item in page)
                self._save(job, checkpoint, progress, page)
            checkpoint = {"stage": "destroying"}
            progress.stage, progress.seen = "destroying", 0
        self._wait(job, checkpoint, progress, self._read_seconds)
        progress.stage = "destroying"
        for page in self._pages(checkpoint):
            progress.destroyed += sum(self._resealer.settle(item) for item in page)
            self._save(job, checkpoint, progress, page)
        return progress

    def _pages(self, checkpoint: dict[str, object]) -> Iterator[list[Profile]]:
        while page := self._store.page_profiles(str(checkpoint.get("after", "")), PROFILES_AT_ONCE, ()):
            yield page

    def _save(
        self, job: Job, checkpoint: dict[str, object], progress: protection_pb2.KeyRotation, page: list[Profile]
    ) -> None:
        progress.seen += len(page)
        checkpoint["after"] = page[-1].profile_id
        job.save(checkpoint, progress)

    def _reseal(self, profile: Profile) -> bool:
        """Seal a profile anew; again when somebody else changed it meanwhile."""
        for _ in range(TRIES):
            if self._resealer.reseal(profile):
                return True
            found = self._store.profiles([profile.profile_id]).get(profile.profile_id)
            if found is None or not found.golden or found.merged_into or found.version == profile.version:
                return False
            profile = found
        return False

    def _wait(
        self, job: Job, checkpoint: dict[str, object], progress: protection_pb2.KeyRotation, seconds: float
    ) -> None:
        """Pause once, so that every other process knows what this one knows."""
        if checkpoint.get("waited"):
            progress.stage = progress.stage if progress.stage not in ("", "waiting") else "wrapping"
            return
        checkpoint["waited"] = True
        stage, progress.stage = progress.stage, "waiting"
        job.save(checkpoint, progress)
        if seconds:
            raise Paused("other processes may work with the former keys for moments", seconds)
        progress.stage = stage or "wrapping"

    @staticmethod
    def _refused(work: Callable[[], object]) -> None:
        try:
            work()
        except SealBroken as error:
            raise MasterKeyRefused(str(error), metadata={"cause": "keeper"}) from None


def _progress(job: Job) -> protection_pb2.KeyRotation:
    progress = protection_pb2.KeyRotation()
    job.metadata.Unpack(progress)
    return progress
