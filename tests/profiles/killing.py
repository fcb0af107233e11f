"""A real database and real workers to be killed: what the tests of killed jobs share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mongoengine
from google.longrunning import operations_pb2
from kehu.profiles.v1 import resources_pb2

from services.chassis import records
from services.chassis.jobs import Jobs, MongoOperations, Owner
from services.profiles.documents import ProfileDocument
from services.profiles.intake.uploads import store_upload
from services.profiles.jobs import IMPORT
from services.profiles.store import MongoStore
from services.profiles.values import Source
from services.profiles.vault import Vault
from tests.profiles.people import MAPPING

OWNER = Owner("user:test", "sales")


class OnMongo:
    """A database of its own with one source and one queued import."""

    def __init__(self, uri: str, keys: Path) -> None:
        self.uri, self.keys = uri, keys
        self.name = f"profiles_kill_{uuid.uuid4().hex[:8]}"
        mongoengine.disconnect("profiles")
        mongoengine.connect(db=self.name, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
        ProfileDocument._collection = None
        records.ensure_indexes([ProfileDocument])
        self.store, self.vault = MongoStore(), Vault(keys)
        self.store.prepare()
        self.jobs = Jobs("profiles")
        self.operations = MongoOperations("profiles")
        self.operations.ensure_indexes()
        self.store.sources.insert(Source("till", "sales", [list(item) for item in MAPPING]))

    def queue(self, content: bytes, **options: object) -> operations_pb2.Operation:
        upload = store_upload(self.store, self.vault.uploads, uuid.uuid4().hex, [content])
        args = {"source_id": "till", "upload_id": upload.upload_id, "chunks": upload.chunks, "size": upload.size}
        args |= options
        metadata = resources_pb2.ImportMetadata(source="sources/till")
        metadata.create_time.GetCurrentTime()
        return self.jobs.start(IMPORT, args, metadata, OWNER)

    def worker(self, *args: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.profiles.import_process", self.uri, self.name, str(self.keys), *args]
        return subprocess.Popen(argv, cwd=Path(__file__).parents[2])

    def written(self) -> int:
        return sum(1 for _ in records.database("profiles")["links"].find({}, {"_id": 1}))

    def expire_lease(self, operation: operations_pb2.Operation) -> None:
        found = self.operations.get(operation.name)
        assert found is not None
        self.operations.update(operation.name, str(found["lease"]), {"wake_at": datetime.now(UTC) - timedelta(1)})

    def kill_when(self, operation: operations_pb2.Operation, *reached: Callable[[], bool]) -> None:
        """Let one worker after the other begin, and kill each with SIGKILL when it got so far."""
        for claim in reached:
            process = self.worker()
            until(claim)
            process.kill()
            process.wait()
            self.expire_lease(operation)

    @contextmanager
    def working(self, *args: str) -> Iterator[None]:
        """Have a worker while the block runs."""
        process = self.worker(*args)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def finish(
        self, operation: operations_pb2.Operation, *args: str, department: str = OWNER.department
    ) -> operations_pb2.Operation:
        """Let a worker run until the operation is done, and return it."""
        with self.working(*args):
            until(lambda: self.jobs.get(operation.name, department).done)
        return self.jobs.get(operation.name, department)

    def close(self) -> None:
        mongoengine.get_connection("profiles").drop_database(self.name)
        mongoengine.disconnect("profiles")
        ProfileDocument._collection = None


def until(claim: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)
