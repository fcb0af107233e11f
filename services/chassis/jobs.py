"""Work that outlives a request: leased, resumable, with progress, shown as google.longrunning.Operation (AIP-151).

A job is a document: a worker takes it by compare-and-set on its lease, renews the lease from a thread,
saves a checkpoint after each step, and another worker goes on from there when the first one dies.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2

from services.chassis import records, telemetry
from services.chassis.errors import Conflict, KehuError, NotAllowed, NotFound, Unavailable

LEASE = timedelta(seconds=30)
ATTEMPTS = 5  # unexpected failures before a job is given up; outages of others do not count
_log = logging.getLogger(__name__)

Document = dict[str, object]


class OperationNotFound(NotFound):
    """No operation of this name is visible to the caller."""

    reason = "OPERATION_NOT_FOUND"


class LeaseLost(Exception):
    """Another worker has this job, or it was cancelled: stop at once, write nothing."""


class Paused(Exception):
    """The job cannot go on now (somebody it needs is down): try again after some seconds, from the checkpoint."""

    def __init__(self, reason: str, seconds: float = 5.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


class OperationStore(Protocol):
    """Where operations are kept."""

    def insert(self, document: Document) -> None:
        """Add a new one; AlreadyExists when the id is taken."""

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""

    def due(self, now: datetime, limit: int) -> list[Document]:
        """Return unfinished ones whose wake_at has come: never taken, paused, or with an expired lease."""

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest, newest first."""

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields if the lease token is still this one; say whether it was."""


class MongoOperations:
    """Operations in the service's own database."""

    def __init__(self, service: str) -> None:
        self._service = service

    def _collection(self) -> records.pymongo.collection.Collection:
        return records.database(self._service)["operations"]

    def ensure_indexes(self) -> None:
        """Create the indexes of due() and newest()."""
        with records.driver_errors():
            self._collection().create_index([("open", 1), ("wake_at", 1)])
            self._collection().create_index([("department", 1), ("create_time", -1)])

    def insert(self, document: Document) -> None:
        """Add a new one."""
        with records.driver_errors():
            self._collection().insert_one(dict(document))

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""
        with records.driver_errors():
            return self._collection().find_one({"_id": operation_id})

    def due(self, now: datetime, limit: int) -> list[Document]:
        """Return what may be taken."""
        with records.driver_errors():
            return list(self._collection().find({"open": True, "wake_at": {"$lte": now}}).limit(limit))

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest."""
        with records.driver_errors():
            found = self._collection().find({"department": department})
            return list(found.sort([("create_time", -1)]).limit(limit))

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields under the lease."""
        with records.driver_errors():
            result = self._collection().update_one(
                {"_id": operation_id, "lease": lease}, {"$set": dict(changes)}
            )
        return result.matched_count == 1


class MemoryOperations:
    """Operations in memory, for tests; same promises."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._lock = threading.Lock()

    def insert(self, document: Document) -> None:
        """Add a new one."""
        from services.chassis.errors import AlreadyExists

        with self._lock:
            if str(document["_id"]) in self._documents:
                raise AlreadyExists("an operation with this id exists already")
            self._documents[str(document["_id"])] = dict(document)

    def get(self, operation_id: str) -> Document | None:
        """Return one by id."""
        with self._lock:
            found = self._documents.get(operation_id)
            return dict(found) if found is not None else None

    def due(self, now: datetime, limit: int) -> list[Document]:
        """Return what may be taken."""
        with self._lock:
            found = [d for d in self._documents.values() if d["open"] and d["wake_at"] <= now]  # type: ignore[operator]
            return [dict(document) for document in found[:limit]]

    def newest(self, department: str, limit: int) -> list[Document]:
        """Return a department's latest."""
        with self._lock:
            found = [d for d in self._documents.values() if d["department"] == department]
            return [dict(d) for d in sorted(found, key=lambda d: str(d["create_time"]), reverse=True)[:limit]]

    def update(self, operation_id: str, lease: str, changes: Mapping[str, object]) -> bool:
        """Set fields under the lease."""
        with self._lock:
            found = self._documents.get(operation_id)
            if found is None or found["lease"] != lease:
                return False
            found.update(changes)
            return True


@dataclass(frozen=True, slots=True)
class Owner:
    """Who started an operation; people and apps of the same department may watch it."""

    subject: str
    department: str


class Jobs:
    """The operations of one service: start, look up, list, cancel."""

    def __init__(self, service: str, store: OperationStore | None = None) -> None:
        self.service = service
        self.store: OperationStore = store or MongoOperations(service)

    def start(
        self,
        kind: str,
        args: Mapping[str, object],
        metadata: Message,
        owner: Owner,
        request_id: str = "",
    ) -> operations_pb2.Operation:
        """Queue a job and return its operation; a repeated request id returns the first one.

        `args` must hold ids and options only, never a person's data.
        """
        now = datetime.now(UTC)
        job_id = records.new_id(request_id, self.service, kind, owner.subject)
        name = f"operations/{self.service}-{job_id}"
        document: Document = {
            "_id": name, "kind": kind, "args": dict(args), "subject": owner.subject,
            "department": owner.department, "open": True, "done": False, "wake_at": now, "lease": "",
            "attempts": 0, "checkpoint": {}, "note": "", "create_time": now, "update_time": now,
            "metadata": _packed(metadata), "response": None, "error": None,
        }  # fmt: skip
        found = self.store.get(name) if request_id else None
        if found is None:
            self.store.insert(document)
            found = document
        return to_operation(found)

    def get(self, name: str, department: str) -> operations_pb2.Operation:
        """Return an operation of this department.

        Raises:
            OperationNotFound: there is none, or it belongs to another department.
        """
        return to_operation(self._visible(name, department))

    def list(self, department: str, limit: int) -> list[operations_pb2.Operation]:
        """Return the department's latest operations, newest first."""
        return [to_operation(document) for document in self.store.newest(department, limit)]

    def cancel(self, name: str, department: str) -> None:
        """End an operation: its worker stops at its next checkpoint.

        Raises:
            NotAllowed: it has ended already.
        """
        document = self._visible(name, department)
        if document["done"]:
            raise NotAllowed("the operation has ended already")
        changes = {**_ended(), "lease": "cancelled", "error": {"code": code_pb2.CANCELLED, "reason": "CANCELLED",
                                                               "message": "the operation was cancelled"}}  # fmt: skip
        if not self.store.update(name, str(document["lease"]), changes):
            raise Conflict("the operation moved on meanwhile; try again")

    def _visible(self, name: str, department: str) -> Document:
        found = self.store.get(name)
        if found is None or found["department"] != department:
            raise OperationNotFound("there is no such operation in your department")
        return found


def _ended() -> Document:
    return {"open": False, "done": True, "update_time": datetime.now(UTC)}


def _packed(message: Message) -> Document:
    packed = any_pb2.Any()
    packed.Pack(message)
    return {"type_url": packed.type_url, "value": packed.value}


def to_operation(document: Mapping[str, object]) -> operations_pb2.Operation:
    """Return the google.longrunning.Operation of a stored document."""
    operation = operations_pb2.Operation(name=str(document["_id"]), done=bool(document["done"]))
    metadata, response, error = document["metadata"], document["response"], document["error"]
    if isinstance(metadata, Mapping):
        operation.metadata.type_url, operation.metadata.value = metadata["type_url"], metadata["value"]
    if isinstance(response, Mapping):
        operation.response.type_url, operation.response.value = response["type_url"], response["value"]
    if isinstance(error, Mapping):
        operation.error.code, operation.error.message = error["code"], error["message"]
        info = error_details_pb2.ErrorInfo(reason=error["reason"], domain="kehu")
        operation.error.details.add().Pack(info)
    return operation


@dataclass(slots=True)
class Job:
    """A job in a worker's hands: its arguments, its checkpoint, and the way to save progress."""

    name: str
    kind: str
    args: Mapping[str, object]
    checkpoint: dict[str, object]
    owner: Owner
    metadata: any_pb2.Any
    _store: OperationStore = field(repr=False)
    _lease: str = field(repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    lost: threading.Event = field(default_factory=threading.Event)

    def save(self, checkpoint: Mapping[str, object], metadata: Message) -> None:
        """Save the checkpoint and what the operation shows; renews the lease.

        Raises:
            LeaseLost: somebody else has the job, or it was cancelled.
            Paused: this worker is stopping; the next one goes on from here.
        """
        self.checkpoint = dict(checkpoint)
        now = datetime.now(UTC)
        changes: Document = {"checkpoint": dict(checkpoint), "metadata": _packed(metadata), "attempts": 0,
                             "wake_at": now + LEASE, "update_time": now}  # fmt: skip
        if self.lost.is_set() or not self._store.update(self.name, self._lease, changes):
            self.lost.set()
            raise LeaseLost(self.name)
        if self._stopping.is_set():
            raise Paused("the worker is stopping", 0.0)

    def renew(self) -> None:
        """Keep the lease for another LEASE; sets `lost` when it is gone."""
        if not self._store.update(self.name, self._lease, {"wake_at": datetime.now(UTC) + LEASE}):
            self.lost.set()


Handler = Callable[[Job], Message]


class Worker:
    """Takes due jobs of one service and runs them, a few at a time, until stopped."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, Handler],
        store: OperationStore | None = None,
        threads: int = 2,
    ) -> None:
        self.service = service
        self._handlers = dict(handlers)
        self._store = store or MongoOperations(service)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, name=f"{service}-job-{i}", daemon=True)
            for i in range(threads)
        ]

    def start(self) -> None:
        """Start the threads; returns at once."""
        for thread in self._threads:
            thread.start()

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Take no new job and wait; a job that does not end in time is resumed by the next worker."""
        self._stop.set()
        for thread in self._threads:
            thread.join(grace_seconds)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                if self.run_one():
                    continue
            except Unavailable:
                _log.warning("operations cannot be read: the database does not answer")
            except Exception:
                _log.exception("worker loop failed")
            self._stop.wait(0.5)

    def run_one(self) -> bool:
        """Run one due job, if any; say whether there was one."""
        for document in self._store.due(datetime.now(UTC), 10):
            job = self._take(document)
            if job is not None:
                self._run(job, int(str(document["attempts"])))
                return True
        return False

    def _take(self, document: Mapping[str, object]) -> Job | None:
        if document["kind"] not in self._handlers:
            return None
        name, lease = str(document["_id"]), uuid.uuid4().hex
        taken = self._store.update(
            name, str(document["lease"]), {"lease": lease, "wake_at": datetime.now(UTC) + LEASE}
        )
        if not taken:
            return None
        metadata = any_pb2.Any(**document["metadata"])  # type: ignore[arg-type]
        owner = Owner(str(document["subject"]), str(document["department"]))
        args, checkpoint = document["args"], document["checkpoint"]
        assert isinstance(args, Mapping) and isinstance(checkpoint, Mapping)
        return Job(
            name,
            str(document["kind"]),
            args,
            dict(checkpoint),
            owner,
            metadata,
            self._store,
            lease,
            self._stop,
        )

    def _run(self, job: Job, attempts: int) -> None:
        done = threading.Event()
        renewer = threading.Thread(target=_keep_lease, args=(job, done), daemon=True)
        renewer.start()
        try:
            outcome = self._outcome(job, attempts)
        finally:
            done.set()
            renewer.join(5)
        if outcome is not None:
            self._store.update(job.name, job._lease, {**outcome, "lease": ""})

    def _outcome(self, job: Job, attempts: int) -> Document | None:
        try:
            response = self._handlers[job.kind](job)
        except LeaseLost:
            self._count(job, "lease_lost")
            return None
        except Paused as pause:
            self._count(job, "paused")
            return {"wake_at": _after(pause.seconds), "note": pause.reason}
        except Unavailable:
            self._count(job, "unavailable")
            return {"wake_at": _after(2.0), "note": "a service or store is not available"}
        except KehuError as error:
            self._count(job, "failed")
            return {**_ended(), "error": {"code": code_pb2.FAILED_PRECONDITION, "reason": error.reason,
                                          "message": error.message}}  # fmt: skip
        except Exception:
            _log.exception("job failed", extra={"job": job.name, "kind": job.kind, "attempt": attempts + 1})
            self._count(job, "error")
            return self._after_error(attempts + 1)
        self._count(job, "done")
        return {**_ended(), "response": _packed(response)}

    def _after_error(self, attempts: int) -> Document:
        if attempts < ATTEMPTS:
            return {"attempts": attempts, "wake_at": _after(min(2.0**attempts, 30.0))}
        error = {"code": code_pb2.INTERNAL, "reason": "JOB_FAILED", "message": "the job failed; see the log"}
        return {**_ended(), "attempts": attempts, "error": error}

    def _count(self, job: Job, outcome: str) -> None:
        telemetry.JOBS.labels(self.service, job.kind, outcome).inc()


def _after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _keep_lease(job: Job, done: threading.Event) -> None:
    while not done.wait(LEASE.total_seconds() / 3):
        try:
            job.renew()
        except Unavailable:
            continue
        if job.lost.is_set():
            return
