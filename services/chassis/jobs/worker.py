"""Take due jobs and run them: leased by compare-and-set, renewed from a thread, resumed from the last checkpoint."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2

from services.chassis import telemetry
from services.chassis.errors import Busy, KehuError, Unavailable
from services.chassis.jobs.operations import Owner, ended, packed
from services.chassis.jobs.stores import Document, MongoOperations, OperationStore

LEASE = timedelta(seconds=30)
KEPT = timedelta(days=90)  # how long an operation that has ended can be looked up
TIDIED_EVERY_SECONDS = 3600.0
ATTEMPTS = 5  # unexpected failures without progress before a job is given up; outages and restarts do not count
_log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another worker has this job, or it was cancelled: stop at once, write nothing."""


class Paused(Exception):
    """The job cannot go on now (somebody it needs is down): try again after some seconds, from the checkpoint."""

    def __init__(self, reason: str, seconds: float = 5.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


@dataclass(slots=True)
class Job:
    """A job in a worker's hands: its arguments, its checkpoint, and the way to save progress."""

    name: str
    kind: str
    args: Mapping[str, object]
    checkpoint: dict[str, object]
    owner: Owner
    metadata: any_pb2.Any
    attempts: int  # unexpected failures since the checkpoint last changed, or since a pause
    _store: OperationStore = field(repr=False)
    _lease: str = field(repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    lost: threading.Event = field(default_factory=threading.Event)

    def save(self, checkpoint: Mapping[str, object], metadata: Message) -> None:
        """Save the checkpoint and what the operation shows; renews the lease.

        A checkpoint that differs is progress: a failure after it is the first again. So is one after a pause.

        Raises:
            LeaseLost: somebody else has the job, or it was cancelled.
            Paused: this worker is stopping; the next one goes on from here.
        """
        if self.checkpoint != checkpoint:
            self.attempts = 0
        self.checkpoint = dict(checkpoint)
        now = datetime.now(UTC)
        changes: Document = {"checkpoint": dict(checkpoint), "metadata": packed(metadata), "attempts": 0,
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
        self._tidied = -math.inf
        self._threads = [
            threading.Thread(target=self._loop, name=f"{service}-job-{i}", daemon=True) for i in range(threads)
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
                self._tidy()
                if self.run_one():
                    continue
            except Unavailable:
                _log.warning("operations cannot be read: the database does not answer")
            except Exception:
                _log.exception("worker loop failed")
            self._stop.wait(0.5)

    def _tidy(self) -> None:
        """Forget now and then what ended long ago."""
        if time.monotonic() - self._tidied >= TIDIED_EVERY_SECONDS:
            self._tidied = time.monotonic()
            self._store.forget(datetime.now(UTC) - KEPT)

    def run_one(self) -> bool:
        """Run one due job, if any; say whether there was one."""
        for document in self._store.due(datetime.now(UTC), 10, self._handlers):
            job = self._take(document)
            if job is not None:
                self._run(job)
                return True
        return False

    def _take(self, document: Mapping[str, object]) -> Job | None:
        name, lease = str(document["_id"]), uuid.uuid4().hex
        taken = self._store.update(name, str(document["lease"]), {"lease": lease, "wake_at": datetime.now(UTC) + LEASE})
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
            int(str(document["attempts"])),
            self._store,
            lease,
            self._stop,
        )

    def _run(self, job: Job) -> None:
        done = threading.Event()
        renewer = threading.Thread(target=_keep_lease, args=(job, done), daemon=True)
        renewer.start()
        try:
            outcome = self._outcome(job)
        finally:
            done.set()
            renewer.join(5)
        if outcome is not None:
            self._store.update(job.name, job._lease, {**outcome, "lease": ""})

    def _outcome(self, job: Job) -> Document | None:
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
        except Busy:
            self._count(job, "busy")
            return {"wake_at": _after(2.0), "note": "others change the same records"}
        except KehuError as error:
            self._count(job, "failed")
            return {**ended(), "error": {"code": code_pb2.FAILED_PRECONDITION, "reason": error.reason,
                                          "message": error.message}}  # fmt: skip
        except Exception:
            _log.exception("job failed", extra={"job": job.name, "kind": job.kind, "attempt": job.attempts + 1})
            self._count(job, "error")
            return self._after_error(job.attempts + 1)
        self._count(job, "done")
        return {**ended(), "response": packed(response)}

    def _after_error(self, attempts: int) -> Document:
        if attempts < ATTEMPTS:
            return {"attempts": attempts, "wake_at": _after(min(2.0**attempts, 30.0))}
        error = {"code": code_pb2.INTERNAL, "reason": "JOB_FAILED", "message": "the job failed; see the log"}
        return {**ended(), "attempts": attempts, "error": error}

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
