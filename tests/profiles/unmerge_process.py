"""Splits a profile and dies by SIGKILL: `python -m tests.profiles.unmerge_process URI DB KEYS WRITES PROFILE RECORD…`.

It dies before write number WRITES, counted from 0, of profiles.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import mongoengine

from services.chassis.records import new_id
from services.profiles.dictionary import Dictionary
from services.profiles.merging import Merger
from services.profiles.store import MongoStore
from services.profiles.vault import Vault


class DyingStore(MongoStore):
    """The real store, in a process that is killed at a write."""

    left = 0

    def write_part(self, changes):  # noqa: ANN001, ANN201
        """Write, or die: every write of profiles comes by here."""
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().write_part(changes)


def main() -> None:
    """Split the records out."""
    uri, database, keys_dir, writes, profile_id, *keys = sys.argv[1:]
    mongoengine.connect(db=database, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    store = DyingStore()
    store.left = int(writes)
    Merger(store, Vault(Path(keys_dir)), Dictionary(store)).split(profile_id, keys, new_id(), "user:li", "two persons")


if __name__ == "__main__":
    main()
