"""Audit entries: durable on this machine before a reply is released, then shipped in order to access.

The spool is a directory of segments, one JSON line per entry, each named by the number of its first entry. An entry
is one write to a file opened for appending: it outlives a kill -9 of the process the moment `append` returns. Access
down, the spool grows. Entries are numbered without a gap, so that access sees when some never arrived.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from services.chassis.errors import Invalid
from services.chassis.repeating import Repeating
from services.chassis.times import EPOCH, NAIVE_EPOCH

SEGMENT_BYTES = 4 * 1024 * 1024
LONGEST_WAIT = 30.0  # seconds, while access is away
BATCH_ENTRIES = 500  # WriteAuditEntries documents this maximum
BATCH_BYTES = 1024 * 1024  # entries of lists name many profiles; a call carries 4 MiB at most
SPAN = 60  # seconds from a batch's first entry to its last at most: what a search by time relies on
LONGEST = 256  # characters of a field: access refuses longer ones; a cut value is better than a lost entry

log = logging.getLogger("kehu.audit")
_ids = random.Random()  # seeded by the system: ids must be new, it is no secret what they are
os.register_at_fork(after_in_child=_ids.seed)


@dataclass(slots=True)
class AuditEntry:
    """Who did what to which resource, why, with what outcome, under which policy; ids only, no personal data.

    Never changed; not frozen, for each call makes one and that would cost twice as much.

    `outcome` is "allowed" or "denied"; `status` the gRPC code name of the reply; `target` a resource name; `method` the
    full name of the RPC. `profiles` are the ids of the customers asked for or in the reply, `shown` and `masked` the
    field groups (`personal/contact`) of which the reply had a value. `entry_id` is the decision id a refusal tells.
    `emergency` is the access request by which the caller had broken the glass then.
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
    method: str = ""
    profiles: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    emergency: str = ""

    @classmethod
    def of(
        cls,
        *,
        now: datetime | None = None,
        service: str = "",
        subject: str = "",
        department: str = "",
        purpose: str = "",
        resource: str = "",
        action: str = "",
        target: str = "",
        outcome: str = "",
        reason: str = "",
        status: str = "",
        policy_version: int = 0,
        request_id: str = "",
        method: str = "",
        profiles: tuple[str, ...] = (),
        shown: tuple[str, ...] = (),
        masked: tuple[str, ...] = (),
        emergency: str = "",
    ) -> AuditEntry:
        """Return an entry stamped with the time and a fresh id that begins with it.

        Fields not given are empty, long ones cut.
        """
        micros = time.time_ns() // 1000 if now is None else (now - EPOCH) // timedelta(microseconds=1)
        number = micros // 1000 << 80 | _ids.getrandbits(80)
        return cls(
            service[:LONGEST], subject[:LONGEST], department[:LONGEST], purpose[:LONGEST], resource[:LONGEST],
            action[:LONGEST], target[:LONGEST], outcome[:LONGEST], reason[:LONGEST], status[:LONGEST], policy_version,
            request_id[:LONGEST], _utc(micros), f"{number:032x}", method[:LONGEST], profiles, shown, masked,
            emergency[:LONGEST],
        )  # fmt: skip

    @classmethod
    def read(cls, line: bytes) -> AuditEntry:
        """Return the entry of a line written by `line`.

        Raises:
            ValueError, TypeError: it is none.
        """
        values = orjson.loads(line)
        for name in LISTS:
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    def line(self) -> bytes:
        """Return the entry as JSON, its fields in the order of this class."""
        return orjson.dumps(self)


def _utc(micros: int) -> str:
    """Return microseconds since 1970 as an ISO time; that of a datetime with a zone takes twice as long."""
    moment = NAIVE_EPOCH + timedelta(0, 0, micros)
    return f"{moment.isoformat('T', 'microseconds')}+00:00"


LISTS = ("profiles", "shown", "masked")
TEXTS = tuple(field.name for field in fields(AuditEntry) if field.name not in (*LISTS, "policy_version"))


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
        self._descriptor = -1
        self._reopen()

    def append(self, entry: AuditEntry) -> None:
        """Make the entry outlive this process; thread-safe, about 10 µs.

        Raises:
            OSError: the disk is full or gone; the caller must then not release its reply.
        """
        line = entry.line() + b"\n"
        with self._lock:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, self._size)
                raise OSError("the audit spool is full")
            self._size += written
            self._count += 1
            if self._size >= SEGMENT_BYTES:
                self._open(self._first + self._count)

    def seal(self) -> list[Path]:
        """Close the segment being written unless it is empty, and return the closed ones, oldest first."""
        with self._lock:
            if self._size:
                self._open(self._first + self._count)
            current = self._first
        return sorted((s for s in self._path.glob("*.jsonl") if _number(s) < current), key=_number)

    def batches(self, segment: Path) -> Iterator[Batch]:
        """Read a closed segment as batches; each batch's id ends with the number of its first entry."""
        start, first = _number(segment), 0
        held: list[AuditEntry] = []
        size = 0
        for number, line in enumerate(segment.read_bytes().splitlines()):
            entry = _entry(line)
            if held and (entry is None or size + len(line) > BATCH_BYTES or not _together(held, entry)):
                yield self._batch(start + first, held)
                held, size = [], 0
            if entry is not None:
                first = first if held else number
                held.append(entry)
                size += len(line)
        if held:
            yield self._batch(start + first, held)

    def _batch(self, first: int, entries: list[AuditEntry]) -> Batch:
        return Batch(f"{self.spool_id}-{first:016d}", tuple(entries))

    def pending(self) -> int:
        """Return the bytes not confirmed yet."""
        return sum(segment.stat().st_size for segment in self._path.glob("*.jsonl"))

    def close(self) -> None:
        """Close the files and give the directory back."""
        with self._lock:
            os.close(self._descriptor)
            os.close(self._guard)

    def _reopen(self) -> None:
        """Go on in the newest segment; a torn last line is cut off, for its `append` never returned."""
        newest = max(self._path.glob("*.jsonl"), default=None, key=_number)
        self._open(_number(newest) if newest else 0)
        held = (newest.read_bytes() if newest else b"").rpartition(b"\n")
        if held[2]:
            log.error("a torn audit line was cut off")
            os.ftruncate(self._descriptor, len(held[0]) + len(held[1]))
        self._size, self._count = len(held[0]) + len(held[1]), (held[0] + held[1]).count(b"\n")

    def _open(self, first: int) -> None:
        former, flags = self._descriptor, os.O_CREAT | os.O_WRONLY | os.O_APPEND
        self._descriptor = os.open(self._path / f"{first:016d}.jsonl", flags, 0o600)
        self._first, self._size, self._count = first, 0, 0
        if former >= 0:
            os.close(former)


def _spool_id(path: Path) -> str:
    if not path.exists():
        path.with_suffix(".new").write_text(uuid.uuid4().hex)
        path.with_suffix(".new").rename(path)
    return path.read_text()


def _number(segment: Path) -> int:
    return int(segment.name.partition(".")[0])


def _entry(line: bytes) -> AuditEntry | None:
    try:
        return AuditEntry.read(line)
    except (ValueError, TypeError):
        log.error("an audit line that cannot be read was left out: the trail will show its number missing")
        return None


def _together(held: list[AuditEntry], entry: AuditEntry) -> bool:
    """Tell whether an entry may travel with those held; the times of a clock set back part them too."""
    first, last = datetime.fromisoformat(held[0].time), datetime.fromisoformat(entry.time)
    return len(held) < BATCH_ENTRIES and abs((last - first).total_seconds()) < SPAN / 2


class Shipper(Repeating):
    """A thread that sends closed segments in order and deletes each once access has all of it."""

    def __init__(
        self, spool: AuditSpool, write_entries: Callable[[Batch], None], interval_seconds: float = 1.0
    ) -> None:
        """`write_entries` returns when access holds the batch, and is repeated until it does."""
        super().__init__("audit-shipper", interval_seconds, patience=10)
        self._spool, self._write, self._interval = spool, write_entries, interval_seconds
        self._wait = interval_seconds
        self._one = threading.Lock()

    def turn(self) -> float:
        """Ship what there is, the less often the longer access is away."""
        self._wait = self._interval if self.ship_once() else min(self._wait * 2, LONGEST_WAIT)
        return self._wait

    def stop(self) -> None:
        """Ship what there is once more, then stop; what access did not take waits for the next start."""
        super().stop()
        self.ship_once()

    def ship_once(self) -> bool:
        """Send all there is; tell whether access took everything."""
        with self._one:
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
