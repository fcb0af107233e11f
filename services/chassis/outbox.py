"""Publish the facts that wait in records: with broker confirms, then remove; at least once, never blocking the API."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pymongo
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from services.chassis import records, telemetry
from services.chassis.consuming.contract import Subscription, snake_case
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing

BATCH = 500  # records whose facts are published and removed together
SWEEP_SECONDS = 1.0
ORPHAN_AGE = timedelta(seconds=1)  # facts of other processes: workers, consumers, and those that died
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The facts that waited in one record when it was read."""

    record_id: str
    version: int
    facts: tuple[Mapping[str, object], ...]


class Relay:
    """The thread of a process that carries facts from its service's records to the broker."""

    def __init__(
        self,
        record_classes: Sequence[type[records.Record]],
        amqp_uri: str,
        service: str,
        subscriptions: Sequence[Subscription] | None = None,
    ) -> None:
        self._record_classes = record_classes
        self._service = service
        self._publisher = ConfirmingPublisher(amqp_uri, subscriptions)
        self._wanted = {(s.exchange, s.event) for s in self._publisher.subscriptions}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{service}-outbox", daemon=True)

    def start(self) -> None:
        """Publish from now on what the records' writers leave; first what an earlier process left."""
        records.on_write(self.notify)
        self._wake.set()
        self._thread.start()

    def notify(self) -> None:
        """Say that facts were written; returns at once."""
        self._wake.set()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Publish what is there, as far as the grace allows, and end."""
        self._stop.set()
        self._wake.set()
        self._thread.join(grace_seconds)
        self._publisher.close()

    def _run(self) -> None:
        failures = 0
        while True:
            woken = self._wake.wait(SWEEP_SECONDS)
            self._wake.clear()
            now = datetime.now(UTC)
            try:
                self.publish_waiting(now if woken or failures else now - ORPHAN_AGE)
                self._publisher.beat()
                failures = 0
            except (OSError, PyMongoError) as error:
                failures += 1
                _log.warning("facts wait in the outbox", extra={"error": type(error).__name__, "failures": failures})
            if self._stop.is_set():
                return
            if failures:
                self._stop.wait(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1])

    def publish_waiting(self, until: datetime) -> int:
        """Publish and remove all facts written up to `until`; return how many.

        Raises:
            OSError: the broker is away; what was not confirmed stays.
            PyMongoError: the database is away; what was confirmed will be published again.
        """
        published = 0
        for record_class in self._record_classes:
            collection = record_class._get_collection()
            while waiting := _read(collection, until, self._service):
                published += self._publish(collection, waiting)
                if len(waiting) < BATCH:
                    break
        telemetry.OUTBOX_LAG.labels(self._service).set(0)
        return published

    def _publish(self, collection: Collection, waiting: Sequence[_Waiting]) -> int:
        outgoing = [_outgoing(fact) for record in waiting for fact in record.facts]
        taken = self._publisher.publish(outgoing)
        missing = [i for i in taken.unroutable if (outgoing[i].exchange, outgoing[i].routing_key) in self._wanted]
        if missing:
            self._publisher.reset()
            raise ConnectionError("a queue was deleted: declare it again")
        gone = iter(range(len(outgoing)))
        done = [r for r in waiting if all([next(gone) in taken.confirmed for _ in r.facts])]
        _remove(collection, done)
        if len(done) < len(waiting):
            raise ConnectionError("the broker refused some facts")
        return len(outgoing)


def _read(collection: Collection, until: datetime, service: str) -> list[_Waiting]:
    found = collection.find({"outbox_at": {"$lte": until}}, {"outbox": 1, "version": 1, "outbox_at": 1}).limit(BATCH)
    rows = list(found)
    if rows:
        oldest = min(row["outbox_at"] for row in rows)
        lag = datetime.now(UTC) - (oldest if oldest.tzinfo else oldest.replace(tzinfo=UTC))
        telemetry.OUTBOX_LAG.labels(service).set(max(0.0, lag.total_seconds()))
    return [_Waiting(row["_id"], row["version"], tuple(row.get("outbox", ()))) for row in rows]


def _outgoing(fact: Mapping[str, object]) -> Outgoing:
    service = str(fact["source"]).partition("/")[2]
    event = snake_case(str(fact["type"]).rpartition(".")[2])
    return Outgoing(f"{service}.events", event, json.dumps(fact, ensure_ascii=False).encode())


def _remove(collection: Collection, published: Sequence[_Waiting]) -> None:
    """Remove exactly the published facts; one that was added meanwhile stays."""
    if not published:
        return
    empty = {"$set": {"outbox": []}, "$unset": {"outbox_at": ""}}
    result = collection.bulk_write(
        [pymongo.UpdateOne({"_id": r.record_id, "version": r.version}, empty) for r in published], ordered=False
    )
    if result.matched_count == len(published):
        return
    for record in published:
        ids = [fact["id"] for fact in record.facts]
        collection.update_one({"_id": record.record_id}, {"$pull": {"outbox": {"id": {"$in": ids}}}})
        collection.update_one({"_id": record.record_id, "outbox": []}, {"$unset": {"outbox_at": ""}})
