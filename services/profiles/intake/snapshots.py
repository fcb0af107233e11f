"""A file that holds all a source has: which records it lacks, and deleting those, bounded and resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from services.profiles.admission import Admission, Entry
from services.profiles.domain.sources import DELETED, SOURCE_RECORD_ID, SourceSettings, read_row
from services.profiles.errors import SnapshotIncomplete
from services.profiles.intake import Row
from services.profiles.intake.rejecting import Admitted
from services.profiles.store import Store
from services.profiles.values import record_key
from services.profiles.vault import Vault

PAGE = 500


class SeenIds:
    """The record ids of a file, 8 bytes each; of strangers, one in 10^12 files of ten million passes for seen."""

    def __init__(self, rows: Iterable[Row], settings: SourceSettings, now: datetime) -> None:
        """Read them.

        Raises:
            SnapshotIncomplete: the id of a row cannot be read.
        """
        self._digests = np.fromiter((_digest(_id_of(row, settings, now)) for row in rows), np.uint64)
        self._digests.sort()

    def __contains__(self, record_id: str) -> bool:
        digest = np.uint64(_digest(record_id))
        at = int(np.searchsorted(self._digests, digest))
        return at < self._digests.size and bool(self._digests[at] == digest)


def _digest(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "big")


def _id_of(row: Row, settings: SourceSettings, now: datetime) -> str:
    raw = read_row(settings, row.values, now)
    is_cut = row.fault == "ROW_WIDTH" or "\ufffd" in raw.source_record_id  # its cells may stand in other columns
    if is_cut or not raw.source_record_id or any(item.field == SOURCE_RECORD_ID for item in raw.problems):
        raise SnapshotIncomplete(
            "a row has no readable record id; correct it, for its record would count as missing",
            metadata={"row_number": str(row.number)},
        )
    return raw.source_record_id


@dataclass(frozen=True, slots=True)
class Missing:
    """A page of a source's records: the key it ends with, and the ids that the file lacks, by place in the page."""

    last_key: str
    ids: dict[int, str]


class Snapshots:
    """Finds and deletes what a snapshot lacks."""

    def __init__(self, store: Store, vault: Vault, admission: Admission) -> None:
        self._store = store
        self._vault = vault
        self._admission = admission

    def missing(self, source_id: str, seen: SeenIds, after: str = "", own: str = "") -> Iterator[Missing]:
        """Yield pages of what is missing and not deleted yet, but for what the operation `own` deleted itself."""
        while keys := self._store.record_keys(source_id, after, PAGE):
            after = keys[-1]
            ids = {at: key.partition("/")[2] for at, key in enumerate(keys)}
            lacking = {at: record_id for at, record_id in ids.items() if record_id not in seen}
            gone = self._deleted(source_id, list(lacking.values()), own)
            yield Missing(after, {at: record_id for at, record_id in lacking.items() if record_id not in gone})

    def _deleted(self, source_id: str, record_ids: list[str], own: str) -> set[str]:
        """Return those that are deleted already, or that no profile holds."""
        held = {
            record.key: record
            for profile in self._store.by_record_keys([record_key(source_id, item) for item in record_ids])
            for record in profile.records
        }
        gone = set()
        for record_id in record_ids:
            stored = held.get(record_key(source_id, record_id))
            if stored is None or (self._vault.is_deleted(stored)
                                  and not (own and stored.origin.startswith(f"{own}:"))):  # fmt: skip
                gone.add(record_id)
        return gone

    def delete(self, settings: SourceSettings, page: Missing, time: datetime, operation: str) -> list[Admitted]:
        """Delete the records of a page as of a time; what changed after it stays."""
        entries = [Entry(at, {DELETED: "true"}, False, record_id, time) for at, record_id in page.ids.items()]
        return self._admission.admit(settings, entries, operation)[0] if entries else []
