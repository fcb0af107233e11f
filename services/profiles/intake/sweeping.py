"""Remove parts of uploads that nobody needs any more: of imports that failed, were cancelled or never began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby

from google.protobuf.message import Message

from services.chassis.errors import Unavailable
from services.chassis.jobs import Handler, Job, OperationStore, Paused
from services.profiles.domain.retention import RecordType
from services.profiles.exported import file_of
from services.profiles.store import Store
from services.profiles.values import Ageing

SWEEP = "sweep_uploads"
UNCLAIMED = timedelta(hours=1)
LOOK_SECONDS = 600.0
PARTS_PER_READ, UNFINISHED_LIMIT = 500, 10_000


class Sweeper:
    """The handler of this job."""

    def __init__(self, store: Store, operations: OperationStore) -> None:
        self._store = store
        self._operations = operations

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {SWEEP: self.run}

    def run(self, job: Job) -> Message:
        """Sweep, then look again.

        Raises:
            Paused: always; there is no end to it.
        """
        self.sweep(datetime.now(UTC))
        raise Paused("until the next look", LOOK_SECONDS)

    def sweep(self, now: datetime) -> int:
        """Remove what lies there for an hour and no unfinished operation names; return how many uploads.

        Raises:
            Unavailable: too many operations are unfinished to tell.
        """
        old: dict[str, list[str]] = {}
        for upload_id, parts in groupby(self._parts(), key=lambda part: part.id.rpartition("/")[0]):
            found = list(parts)
            if now - max(part.time for part in found) > UNCLAIMED:
                old[upload_id] = [part.id for part in found]
        needed = self._needed(now) if old else set()
        left = old.keys() - needed
        for upload_id in left:
            self._store.drop_aged(RecordType.UPLOADS, old[upload_id])
        return len(left)

    def _parts(self) -> Iterator[Ageing]:
        after = ""
        while page := self._store.ageing(RecordType.UPLOADS, after, PARTS_PER_READ):
            yield from page
            after = page[-1].id

    def _needed(self, now: datetime) -> set[str]:
        """Return the uploads, plans and files of exports that unfinished operations name."""
        found = self._operations.due(now + timedelta(days=3650), UNFINISHED_LIMIT)
        if len(found) == UNFINISHED_LIMIT:
            raise Unavailable("too many operations are waiting to tell which uploads are needed")
        needed: set[str] = set()
        for item in found:
            args, checkpoint = item["args"], item["checkpoint"]
            assert isinstance(args, Mapping) and isinstance(checkpoint, Mapping)
            needed |= {str(args.get("upload_id")), str(checkpoint.get("plan")), file_of(str(args.get("export_id")))}
        return needed
