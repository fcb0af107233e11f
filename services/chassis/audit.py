"""Audit entries: durable on this machine before a reply is released, then shipped in order to access.

The spool is a directory of segments, one JSON line per entry. An entry is one write to a file opened for
appending: it outlives a kill -9 of the process the moment `append` returns. Access down, the spool grows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import orjson

from services.chassis.errors import Invalid

SEGMENT_BYTES = 4 * 1024 * 1024
BATCH_ENTRIES = 500  # WriteAuditEntries documents this maximum
FIELD_CHARACTERS = 256  # access refuses longer ones; a cut value is better than a lost entry

log = logging.getLogger("kehu.audit")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which resource, why, with what outcome, under which policy; ids only, no personal data.

    `outcome` is "allowed" or "denied"; `status` the gRPC code name of the reply; `target` a resource name.
    """

    service: str
    subject: str
    department: str
    purpose: str
    resource: str
    action: str
    target: str
    outcome: str
    reason: str
    status: str
    policy_version: int
    request_id: str
    time: str
    entry_id: str

    @classmethod
    def of(cls, *, now: datetime | None = None, policy_version: int = 0, **values: str) -> AuditEntry:
        """Return an entry stamped with the time and a fresh id; fields not given are empty, long ones cut."""
        stamped = {
            "time": (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds"),
            "entry_id": os.urandom(16).hex(),
        } | {name: value[:FIELD_CHARACTERS] for name, value in values.items()}
        texts = {
            field.name: stamped.pop(field.name, "") for field in fields(cls) if field.name != "policy_version"
        }
        if stamped:
            raise TypeError(f"unknown audit fields: {', '.join(stamped)}")
        return cls(policy_version=policy_version, **texts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that travel together; the id is the same each time the same entries are sent again."""

    batch_id: str
    entries: tuple[AuditEntry, ...]


class AuditSpool:
    """The entries of this process that access has not confirmed yet; one process per directory."""

    def __init__(self, path: Path) -> None:
        """Open the directory, take its lock, and seal what a former process left.

        Raises:
            RuntimeError: another process holds the directory.
        """
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._guard = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._guard)
            raise RuntimeError(f"the audit spool {path} is in use by another process") from error
        self.spool_id = _spool_id(path / "id")
        self._lock = threading.Lock()
        self._number = max((_number(segment) for segment in path.glob("*.jsonl*")), default=0)
        self._descriptor = -1
        self._size = 0
        self._open_next()

    def append(self, entry: AuditEntry) -> None:
        """Make the entry outlive this process; thread-safe, about 10 µs.

        Raises:
            OSError: the disk is full or gone; the caller must then not release its reply.
        """
        line = orjson.dumps(entry) + b"\n"
        with self._lock:
            written = os.write(self._descriptor, line)
            self._size += written
            if written < len(line):
                self._open_next()  # the torn line stays behind as the last of its segment
                raise OSError("the audit spool is full")
            if self._size >= SEGMENT_BYTES:
                self._open_next()

    def seal(self) -> list[Path]:
        """Close the segment being written unless it is empty, and return the closed ones, oldest first."""
        with self._lock:
            if self._size:
                self._open_next()
            current = self._number
        return sorted((s for s in self._path.glob("*.jsonl") if _number(s) < current), key=_number)

    def batches(self, segment: Path) -> Iterator[Batch]:
        """Read a closed segment as batches with ids of their own."""
        entries = list(_entries(segment))
        for index in range(0, len(entries), BATCH_ENTRIES):
            batch_id = f"{self.spool_id}-{_number(segment):010d}-{index // BATCH_ENTRIES:04d}"
            yield Batch(batch_id, tuple(entries[index : index + BATCH_ENTRIES]))

    def pending(self) -> int:
        """Return the bytes not confirmed yet."""
        return sum(segment.stat().st_size for segment in self._path.glob("*.jsonl"))

    def close(self) -> None:
        """Close the files and give the directory back."""
        with self._lock:
            os.close(self._descriptor)
            os.close(self._guard)

    def _open_next(self) -> None:
        self._number += 1
        former, self._size = self._descriptor, 0
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        self._descriptor = os.open(self._path / f"{self._number:010d}.jsonl", flags, 0o600)
        if former >= 0:
            os.close(former)


def _spool_id(path: Path) -> str:
    if not path.exists():
        path.with_suffix(".new").write_text(uuid.uuid4().hex)
        path.with_suffix(".new").rename(path)
    return path.read_text()


def _number(segment: Path) -> int:
    return int(segment.name.partition(".")[0])


def _entries(segment: Path) -> Iterator[AuditEntry]:
    for line in segment.read_bytes().splitlines():
        try:
            yield AuditEntry(**orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError):
            log.error("a torn audit line was left out")  # its append never returned


class Shipper:
    """A thread that sends closed segments in order and deletes each once access has all of it."""

    def __init__(
        self, spool: AuditSpool, write_entries: Callable[[Batch], None], interval_seconds: float = 1.0
    ) -> None:
        """`write_entries` returns when access holds the batch, and is repeated until it does."""
        self._spool, self._write, self._interval = spool, write_entries, interval_seconds
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="audit-shipper", daemon=True)

    def start(self) -> None:
        """Begin shipping."""
        self._thread.start()

    def stop(self) -> None:
        """Ship what there is once more, then stop; what access did not take waits for the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self.ship_once()

    def ship_once(self) -> bool:
        """Send all there is; tell whether access took everything."""
        with self._turn:
            return all(self._ship(segment) for segment in self._spool.seal())

    def _ship(self, segment: Path) -> bool:
        try:
            for batch in self._spool.batches(segment):
                self._write(batch)
        except Invalid:
            log.error("access refused an audit segment; it is kept aside as %s.refused", segment.name)
            segment.rename(segment.with_suffix(".jsonl.refused"))
            return True
        except Exception as error:  # access is away: the segment stays, order is kept
            log.warning("audit entries wait: %s", type(error).__name__)
            return False
        segment.unlink()
        return True

    def _run(self) -> None:
        wait = self._interval
        while not self._stopping.wait(wait):
            shipped = self.ship_once()
            wait = self._interval if shipped else min(wait * 2, 30.0)
