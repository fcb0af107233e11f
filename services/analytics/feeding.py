"""Carry the inbox into the lake. An entry leaves the inbox only after its rows are in (see the protocol in lake.py)."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.analytics.domain.rows import Row, message_of, rows_of
from services.analytics.domain.tables import TABLES
from services.analytics.lake import rows_table
from services.analytics.scoring import rescore
from services.analytics.store import BYTES_AT_ONCE, Entry, Inbox
from services.analytics.warehouse import Warehouse
from services.chassis.repeating import Repeating

BATCH: Final = 2000  # entries per flush; an entry is one fact or up to 500 interactions
WAIT_SECONDS: Final = 1.0
TIDY_SECONDS: Final = 30.0
SWEEP_SECONDS: Final = 1800.0
RESCORED_AT_ONCE: Final = (
    100  # profiles merged or split in one flush; an import merges more, and is followed by a computation
)
_log = logging.getLogger(__name__)


def flush(inbox: Inbox, warehouse: Warehouse, limit: int = BATCH) -> int:
    """Move waiting entries into the lake and return how many; safe to be killed, repeated or raced.

    What is too much to be held in memory at once goes in parts.
    """
    moved, part = 0, BYTES_AT_ONCE
    while part >= BYTES_AT_ONCE and moved < limit:
        entries = inbox.waiting(limit - moved)
        _carry(entries, warehouse)
        if entries:
            inbox.remove([entry.id for entry in entries])
        moved, part = moved + len(entries), sum(len(entry.body) for entry in entries)
    return moved


def _carry(entries: Sequence[Entry], warehouse: Warehouse) -> None:
    """Bring the rows of entries into the lake."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for entry in entries:
        for name, found in rows_of(message_of(entry.kind, entry.body)).items():
            rows[name] += found
    for table in TABLES.values():  # profiles come before aliases, which look at them
        if rows[table.name]:
            warehouse.add(table, rows_table(table, rows[table.name]))
    parted = parted_profiles(entries)
    if 0 < len(parted) <= RESCORED_AT_ONCE:
        rescore(warehouse, parted)
    if erased := erased_of(entries):
        warehouse.erase(erased)


def parted_profiles(entries: Sequence[Entry]) -> list[str]:
    """Return the profiles that were merged or split by these entries."""
    found = set()
    for entry in entries:
        told = message_of(entry.kind, entry.body)
        if isinstance(told, ProfilesMerged):
            found |= {told.profile_id, told.merged_profile_id}
        elif isinstance(told, ProfilesUnmerged):
            found |= {told.profile_id, told.unmerged_profile_id}
    return sorted(found)


def erased_of(entries: Sequence[Entry]) -> list[str]:
    """Return the ids of people whom these entries erase, each once."""
    kind = ProfileErased.DESCRIPTOR.full_name
    told = (ProfileErased.FromString(entry.body).names for entry in entries if entry.kind == kind)
    return list(dict.fromkeys(name for names in told for name in names))


class Feeder(Repeating):
    """A thread of the serving process that flushes the inbox and tidies the lake."""

    def __init__(self, inbox: Inbox, warehouse: Warehouse, sweep: Callable[[], object] = int) -> None:
        """`sweep` is called when the lake is tidied."""
        super().__init__("lake-feeder", patience=30)
        self._inbox = inbox
        self._warehouse = warehouse
        self._sweep = sweep
        self._tidied = self._swept = time.monotonic()

    def turn(self) -> float:
        """Flush once, and again at once while more may wait; the inbox keeps everything over an outage."""
        if flush(self._inbox, self._warehouse) == BATCH:
            return 0.0
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            self._tidied = time.monotonic()
            self._warehouse.tidy()
            self._sweep()
            if time.monotonic() - self._swept > SWEEP_SECONDS:
                self._swept = time.monotonic()
                self._warehouse.sweep()
        return WAIT_SECONDS
