"""Publish the facts that wait in records: with broker confirms, then remove; at least once, never blocking the API."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

import amqp
import pymongo
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from services.chassis import records, telemetry
from services.chassis.consuming.contract import CONTENT_TYPE, Subscription, snake_case
from services.chassis.consuming.topology import Retries, declare, known_subscriptions

BATCH = 500  # records whose facts are published and removed together
SWEEP_SECONDS = 1.0
ORPHAN_AGE = timedelta(seconds=2)  # facts of a process that died; a living one publishes its own at once
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
CONFIRM_SECONDS = 10.0
PERSISTENT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for the broker."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """Which of the published messages, by index, the broker keeps, and which it found no queue for."""

    confirmed: frozenset[int]
    unroutable: frozenset[int]
    sent: int

    @property
    def all_routed(self) -> bool:
        """Say whether every message lies in a queue now."""
        return len(self.confirmed) == self.sent and not self.unroutable


def connect(amqp_uri: str) -> amqp.Connection:
    """Open a connection to the broker named by an amqp:// or amqps:// address.

    Raises:
        OSError: it does not answer.
    """
    parts = urlsplit(amqp_uri)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        ssl=parts.scheme == "amqps",
        connect_timeout=5,
        read_timeout=CONFIRM_SECONDS,
        write_timeout=CONFIRM_SECONDS,
        heartbeat=30,
    )
    with _broker_errors():
        connection.connect()
    return connection


@contextlib.contextmanager
def _broker_errors() -> Iterator[None]:
    """Turn the protocol's own errors into OSError: for a publisher both mean that the broker is not there."""
    try:
        yield
    except amqp.AMQPError as error:
        raise ConnectionError(type(error).__name__) from error


class ConfirmingPublisher:
    """Publishes persistent, mandatory messages, many on the way at once, and waits for the broker's confirms.

    It connects when first used, declares the topology on every new connection, and may be shared by threads.
    """

    def __init__(
        self, amqp_uri: str, subscriptions: Sequence[Subscription] | None = None, retries: Retries | None = None
    ) -> None:
        self._amqp_uri = amqp_uri
        self.subscriptions = known_subscriptions() if subscriptions is None else tuple(subscriptions)
        self._retries = retries or Retries()
        self._connection: amqp.Connection | None = None
        self._channel: amqp.Channel | None = None
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Outgoing]) -> Taken:
        """Publish and wait for the confirms of all.

        Raises:
            OSError: the broker went away; some of the messages may have been taken.
        """
        with self._lock:
            try:
                with _broker_errors():
                    return self._publish(self._open(), messages)
            except OSError:
                self._drop()
                raise

    def beat(self) -> None:
        """Keep an idle connection alive; a dead one is opened again by the next publish."""
        with self._lock:
            if self._connection is None:
                return
            try:
                with _broker_errors():
                    self._connection.heartbeat_tick()
                    with contextlib.suppress(TimeoutError):
                        self._connection.drain_events(timeout=0.001)
            except OSError:
                self._drop()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def reset(self) -> None:
        """Forget the connection, so that the next publish declares the topology again."""
        self.close()

    def _open(self) -> amqp.Channel:
        if self._channel is None:
            self._connection = connect(self._amqp_uri)
            channel = self._connection.channel()
            declare(channel, self.subscriptions, self._retries)
            channel.confirm_select()
            self._channel = channel
            self._tags = itertools.count(1)
        return self._channel

    def _publish(self, channel: amqp.Channel, messages: Sequence[Outgoing]) -> Taken:
        pending: dict[int, int] = {}
        confirmed: set[int] = set()
        unroutable: set[int] = set()

        def settled(tag: int, multiple: bool, keep: Callable[[int], None]) -> None:
            for done in [t for t in pending if t <= tag] if multiple else [tag]:
                if done in pending:
                    keep(pending.pop(done))

        channel.events["basic_ack"] = {lambda tag, multiple: settled(tag, multiple, confirmed.add)}
        channel.events["basic_nack"] = {lambda tag, multiple: settled(tag, multiple, lambda index: None)}
        channel.events["basic_return"] = {
            lambda error, exchange, key, message: unroutable.add(int(message.properties["message_id"]))
        }
        for index, message in enumerate(messages):
            pending[next(self._tags)] = index
            channel.basic_publish(_amqp_message(index, message), message.exchange, message.routing_key, True)
        while pending:
            channel.connection.drain_events(timeout=CONFIRM_SECONDS)
        return Taken(frozenset(confirmed), frozenset(unroutable), len(messages))

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(OSError, amqp.AMQPError, AttributeError):
                connection.close()


def _amqp_message(index: int, message: Outgoing) -> amqp.Message:
    return amqp.Message(
        message.body,
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=str(index),  # comes back with a return: the place in the batch; the event's own id is in the body
        application_headers=dict(message.headers),
    )


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
