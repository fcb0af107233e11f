"""A record is one document: its state, its version and the facts that wait in its outbox (design.md §3).

State and facts are written by one compare-and-set on (id, version): they commit together or not at all,
on any MongoDB, without transactions. On the embedded server only queries by an index are quick, and
findAndModify is never used (runtime notes in docs/adr/0005-records.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, TypeVar

import mongoengine
import pymongo
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from mongoengine.connection import get_db
from pymongo import errors as mongo

from services.chassis.config import ProcessConfig
from services.chassis.errors import AlreadyExists, Conflict, EtagMismatch, FieldNotChangeable, Unavailable
from services.chassis.paging import Seen

DUPLICATE = 11000
_OUTAGES = (mongo.ConnectionFailure, mongo.ExecutionTimeout, mongo.WaitQueueTimeoutError, mongo.WriteConcernError)
REQUEST_IDS_KEPT = 20  # a retry of an older request than this is taken for a new one
_NAMESPACE = uuid.UUID("6f6a3c6e-3d0b-4b5e-9a5e-0a7b8e0c9a11")

M = TypeVar("M", bound=Message)

_wake: list[Callable[[], None]] = []


def connect(config: ProcessConfig, service: str) -> None:
    """Open the service's own database under its own alias; safe to call again."""
    mongoengine.connect(
        db=f"kehu_{service}",
        alias=service,
        host=config.mongo_uri,
        tz_aware=True,
        uuidRepresentation="standard",
        serverSelectionTimeoutMS=5000,
        connectTimeoutMS=3000,
        socketTimeoutMS=60_000,
        maxPoolSize=max(config.grpc_threads, 16) + 8,
        waitQueueTimeoutMS=5000,  # for a place among these, when a hanging database holds them all
    )


def database(service: str) -> pymongo.database.Database:
    """Return the pymongo database of a connected service, for bulk paths."""
    return get_db(service)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn driver errors into ours: an outage is Unavailable, a duplicate key AlreadyExists."""
    try:
        yield
    except mongo.DuplicateKeyError as error:
        raise AlreadyExists("a record with this name or key exists already") from error
    except mongo.PyMongoError as error:
        if not _is_outage(error):
            raise
        raise Unavailable("the database does not answer; try again") from error


def _is_outage(error: mongo.PyMongoError) -> bool:
    """Tell whether the database was away, or cannot promise yet to keep what it wrote."""
    if isinstance(error, mongo.ClientBulkWriteException):
        return bool(error.write_concern_errors) or isinstance(error.error, _OUTAGES)
    if isinstance(error, mongo.BulkWriteError):
        return bool(error.details.get("writeConcernErrors"))
    return isinstance(error, _OUTAGES)


def places_taken(error: mongo.BulkWriteError) -> list[int]:
    """Return the places of the documents whose keys are taken, when nothing else went wrong.

    Raises:
        BulkWriteError: something did, or the database cannot promise yet to keep the others.
    """
    found = error.details
    if found.get("writeConcernErrors") or any(item.get("code") != DUPLICATE for item in found["writeErrors"]):
        raise error
    return [item["index"] for item in found["writeErrors"]]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened: a message of the service's events.proto, the resource it is about, its version."""

    message: Message
    subject: str
    version: int

    def entry(self, now: datetime) -> dict[str, object]:
        """Return the outbox entry: a CloudEvents 1.0 envelope whose data is the message in proto JSON."""
        descriptor = self.message.DESCRIPTOR
        service = descriptor.file.package.split(".")[1]
        return {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": f"kehu/{service}",
            "type": descriptor.full_name,
            "subject": self.subject,
            "time": now.isoformat(),
            "datacontenttype": "application/json",
            "version": self.version,
            "data": json_format.MessageToDict(self.message, preserving_proto_field_name=True),
        }


class Record(mongoengine.Document):
    """Base of every record; subclasses set `meta` with `db_alias`, `collection` and their own indexes.

    Subclasses of an abstract document inherit `RECORD_INDEXES` by listing them: `[*RECORD_INDEXES, …]`.
    """

    id = mongoengine.StringField(primary_key=True)
    version = mongoengine.IntField(default=0)
    outbox = mongoengine.ListField(mongoengine.DictField())
    outbox_at = mongoengine.DateTimeField()
    request_ids = mongoengine.ListField(mongoengine.StringField())
    create_time = mongoengine.DateTimeField()
    update_time = mongoengine.DateTimeField()

    is_whole: ClassVar[bool] = False  # read with outbox and all, at the version it is written on: may be replaced whole
    meta: ClassVar[dict[str, object]] = {"abstract": True, "strict": False, "auto_create_index": False}


RECORD_INDEXES: list[object] = [{"fields": ["outbox_at"], "sparse": True}]


def new_id(request_id: str = "", *scope: str) -> str:
    """Return a new id; the same non-empty request id in the same scope gives the same one (AIP-155)."""
    return uuid.uuid5(_NAMESPACE, "\0".join((*scope, request_id))).hex if request_id else uuid.uuid4().hex


def remembered(request_id: str, *scope: str) -> str:
    """Return what a record remembers of a request id, which stands for one scope only; empty for none."""
    return new_id(request_id, *scope) if request_id else ""


def etag_of(version: int) -> str:
    """Return the etag of a version; the gateway writes the quotes that HTTP wants around it (AIP-154)."""
    return str(version)


@contextmanager
def unchanged_since(etag: str, version: int, name: str) -> Iterator[None]:
    """Refuse a change when the caller's etag is of another version, or when the write inside loses a race.

    Raises:
        EtagMismatch: naming the resource.
    """
    if etag and etag.strip('"') != etag_of(version):  # 0.1.0 gave quoted ones out
        raise EtagMismatch(name)
    try:
        yield
    except Conflict:
        raise EtagMismatch(name) from None


def fields_to_change(mask: FieldMask, message: Message, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of an update: those of its mask, all with `*`, those that are set without one (AIP-134).

    Raises:
        FieldNotChangeable: the mask names others than those allowed.
    """
    if not mask.paths:
        return tuple(field.name for field, _ in message.ListFields() if field.name in allowed)
    if list(mask.paths) == ["*"]:
        return tuple(allowed)
    if wrong := [path for path in mask.paths if path not in allowed]:
        raise FieldNotChangeable(*wrong)
    return tuple(mask.paths)


def updated(current: M, change: M, fields: Collection[str]) -> M:
    """Return the current message with these fields as the change has them, those it leaves out being cleared."""
    kept, taken = type(current)(), type(current)()
    kept.CopyFrom(current)
    taken.CopyFrom(change)
    for field in current.DESCRIPTOR.fields:
        (kept if field.name in fields else taken).ClearField(field.name)  # type: ignore[arg-type]
    kept.MergeFrom(taken)
    return kept


def before_seen(time_field: str, seen: Seen | None) -> mongoengine.Q:
    """Return what finds the rest of a list newest first; nothing seen finds all."""
    if seen is None:
        return mongoengine.Q()
    at, last = seen
    return mongoengine.Q(**{f"{time_field}__lt": at}) | mongoengine.Q(**{time_field: at, "id__lt": last})


def on_write(wake: Callable[[], None]) -> None:
    """Call `wake` after every write that leaves facts: the outbox relay of this process."""
    _wake.append(wake)


def notify(facts: Sequence[Fact]) -> None:
    """Wake the relays of this process when facts were written."""
    if facts:
        for wake in _wake:
            wake()


def insert(record: Record, facts: Sequence[Fact] = (), *, request_id: str = "") -> None:
    """Write a new record and its facts at once, as version 1.

    Raises:
        AlreadyExists: a record with this id or a unique key is there.
        Unavailable: the database does not answer.
    """
    now = datetime.now(UTC)
    _stamp_new(record, facts, now, request_id)
    with driver_errors():
        record._get_collection().insert_one(record.to_mongo())
    notify(facts)


def _stamp_new(record: Record, facts: Sequence[Fact], now: datetime, request_id: str) -> None:
    record.version = 1
    record.create_time = record.create_time or now
    record.update_time = now
    record.request_ids = [request_id] if request_id else []
    record.outbox = [fact.entry(now) for fact in facts]
    record.outbox_at = now if facts else None


def replace(record: Record, facts: Sequence[Fact] = (), *, request_id: str = "") -> None:
    """Write the record's new state and its facts if nobody changed it since it was read.

    `record.version` is the version read; afterwards it is the new one.

    Raises:
        Conflict: the stored version is another one, or the record is gone.
        Unavailable: the database does not answer.
    """
    update = _update_of(record, facts, datetime.now(UTC), request_id)
    with driver_errors():
        result = record._get_collection().update_one({"_id": record.id, "version": record.version}, update)
    if result.matched_count == 0:
        raise Conflict("the record was changed meanwhile; read it again and repeat")
    record.version += 1
    notify(facts)


def _update_of(record: Record, facts: Sequence[Fact], now: datetime, request_id: str) -> dict[str, object]:
    record.update_time = now
    state = record.to_mongo().to_dict()
    for key in ("_id", "_cls", "version", "outbox", "outbox_at", "request_ids"):
        state.pop(key, None)
    absent = {
        name: ""
        for name in record._db_field_map.values()
        if name not in state and name not in ("_id", "version", "outbox", "outbox_at", "request_ids")
    }
    update: dict[str, object] = {"$set": {**state, "version": record.version + 1}}
    push: dict[str, object] = {}
    if facts:
        update["$set"] = {**state, "version": record.version + 1, "outbox_at": now}
        push["outbox"] = {"$each": [fact.entry(now) for fact in facts]}
    if request_id:
        push["request_ids"] = {"$each": [request_id], "$slice": -REQUEST_IDS_KEPT}
    if push:
        update["$push"] = push
    if absent:
        update["$unset"] = absent
    return update


def bulk_write(changes: Sequence[tuple[Record, Sequence[Fact]]]) -> list[str]:
    """Write many records of one collection, each as `insert` (version 0) or `replace`, in one round trip.

    Returns the ids that lost the race or exist already: load those again and repeat. Order is free.
    """
    if not changes:
        return []
    now = datetime.now(UTC)
    token = uuid.uuid4().hex
    operations = [operation(record, facts, now, token) for record, facts in changes]
    collection = changes[0][0]._get_collection()
    with driver_errors():
        try:
            result = collection.bulk_write(operations, ordered=False)
            written = result.inserted_count + result.matched_count
        except mongo.BulkWriteError as error:
            places_taken(error)
            written = -1
        lost = [] if written == len(changes) else _lost(collection, changes, token)
    notify([fact for _, facts in changes for fact in facts])
    return lost


def operation(
    record: Record, facts: Sequence[Fact], now: datetime, token: str, namespace: str | None = None
) -> pymongo.InsertOne | pymongo.ReplaceOne | pymongo.UpdateOne:
    """Return the write of a record and its facts, `token` telling whose it was; `namespace` for writes over several."""
    if record.version == 0:
        _stamp_new(record, facts, now, "")
        return pymongo.InsertOne({**record.to_mongo(), "write_id": token}, namespace=namespace)
    unchanged = {"_id": record.id, "version": record.version}
    if record.is_whole:
        return pymongo.ReplaceOne(unchanged, _whole(record, facts, now, token), namespace=namespace)
    update = _update_of(record, facts, now, "")
    state = update["$set"]
    assert isinstance(state, Mapping)
    update["$set"] = {**state, "write_id": token}
    return pymongo.UpdateOne(unchanged, update, namespace=namespace)


def _whole(record: Record, facts: Sequence[Fact], now: datetime, token: str) -> dict[str, object]:
    """Return the next document, facts that waited when it was read included.

    The relay removes what it published without a new version: such facts come back, and are published twice.
    """
    record.update_time = now
    document: dict[str, object] = {**record.to_mongo(), "version": record.version + 1, "write_id": token}
    document["outbox"] = [*record.outbox, *(fact.entry(now) for fact in facts)]
    document.pop("outbox_at", None)
    return {**document, "outbox_at": now} if document["outbox"] else document


def _lost(
    collection: pymongo.collection.Collection, changes: Sequence[tuple[Record, Sequence[Fact]]], token: str
) -> list[str]:
    ids = [record.id for record, _ in changes]
    ours = {row["_id"] for row in collection.find({"_id": {"$in": ids}, "write_id": token}, {"_id": 1})}
    return [record_id for record_id in ids if record_id not in ours]


def ensure_indexes(record_classes: Sequence[type[Record]]) -> None:
    """Create the indexes the classes declare; idempotent, run by every process at its start."""
    with driver_errors():
        for record_class in record_classes:
            record_class.ensure_indexes()
