"""What analytics keeps outside the lake: the inbox that feeds it, and the record of the last computation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Protocol

import mongoengine as me
import pymongo
from kehu.analytics.v1.events_pb2 import ScoresComputed

from services.chassis import records
from services.chassis.errors import AlreadyExists
from services.chassis.records import RECORD_INDEXES, Fact, Record

SERVICE = "analytics"
SCORES_NAME = "scores/rfm"
BYTES_AT_ONCE: Final = 4 << 20  # of entries in memory; as rows of the lake they take some twenty times as much


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that waits for the lake: its id (event or request id), full name and bytes."""

    id: str
    kind: str
    body: bytes


def held_at_once(entries: Iterable[Entry]) -> list[Entry]:
    """Return the first of the entries, as many as reach BYTES_AT_ONCE."""
    held: list[Entry] = []
    size = 0
    for entry in entries:
        held.append(entry)
        size += len(entry.body)
        if size >= BYTES_AT_ONCE:
            break
    return held


class Inbox(Protocol):
    """A durable waiting room: what is put is there until it is removed."""

    def put(self, entry: Entry) -> None:
        """Keep an entry; one whose id waits already changes nothing."""

    def waiting(self, limit: int) -> list[Entry]:
        """Return so many entries or fewer that reach BYTES_AT_ONCE, in no order."""

    def remove(self, ids: Sequence[str]) -> None:
        """Forget entries that are in the lake."""


class Computations(Protocol):
    """Which computation of scores was the last; its facts."""

    def record(self, operation: str, fact_of: Callable[[int], ScoresComputed]) -> None:
        """Note that an operation ended, with its fact (given the version); again changes nothing."""


class MongoInbox:
    """The inbox in the service's own database."""

    def _collection(self) -> pymongo.collection.Collection:
        return records.database(SERVICE)["inbox"]

    def ensure_indexes(self) -> None:
        """Create the index of waiting()."""
        with records.driver_errors():
            self._collection().create_index([("open", 1)])

    def put(self, entry: Entry) -> None:
        """Keep an entry."""
        try:
            with records.driver_errors():
                document = {"_id": entry.id, "kind": entry.kind, "body": entry.body, "open": True}
                self._collection().insert_one(document)
        except AlreadyExists:
            return

    def waiting(self, limit: int) -> list[Entry]:
        """Return entries."""
        with records.driver_errors():
            found = self._collection().find({"open": True}).limit(limit)
            return held_at_once(Entry(row["_id"], row["kind"], bytes(row["body"])) for row in found)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget entries."""
        with records.driver_errors():
            self._collection().delete_many({"_id": {"$in": list(ids)}})


class MemoryInbox:
    """The inbox in memory, for tests; same promises."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def put(self, entry: Entry) -> None:
        """Keep an entry."""
        with self._lock:
            self._entries.setdefault(entry.id, entry)

    def waiting(self, limit: int) -> list[Entry]:
        """Return entries."""
        with self._lock:
            return held_at_once(islice(self._entries.values(), limit))

    def remove(self, ids: Sequence[str]) -> None:
        """Forget entries."""
        with self._lock:
            for name in ids:
                self._entries.pop(name, None)


class ComputationDocument(Record):
    """The last computation of one kind of scores; the id is its resource name."""

    operation = me.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": SERVICE,
        "collection": "computations",
        "indexes": [*RECORD_INDEXES],
        "auto_create_index": False,
        "strict": False,
    }


class MongoComputations:
    """Computations in the service's own database, facts in their outbox."""

    def record(self, operation: str, fact_of: Callable[[int], ScoresComputed]) -> None:
        """Note that an operation ended."""
        with records.driver_errors():
            found = ComputationDocument.objects(id=SCORES_NAME).first()
        if found is not None and found.operation == operation:
            return
        document = found or ComputationDocument(id=SCORES_NAME)
        document.operation = operation
        version = document.version + 1
        facts = [Fact(fact_of(version), SCORES_NAME, version)]
        if found is None:
            records.insert(document, facts)
        else:
            records.replace(document, facts)


class MemoryComputations:
    """Computations in memory, for tests; same promises."""

    def __init__(self) -> None:
        self.facts: list[ScoresComputed] = []
        self._operation = ""

    def record(self, operation: str, fact_of: Callable[[int], ScoresComputed]) -> None:
        """Note that an operation ended."""
        if operation != self._operation:
            self._operation = operation
            self.facts.append(fact_of(len(self.facts) + 1))


RECORD_CLASSES: tuple[type[Record], ...] = (ComputationDocument,)
