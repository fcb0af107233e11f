"""Imports on the real database: workers killed with SIGKILL in the middle, two at once, and the end is the same."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mongoengine
import pytest
from google.longrunning import operations_pb2
from kehu.profiles.v1 import resources_pb2

from services.chassis import records
from services.chassis.jobs import Jobs, MongoOperations, Owner
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.intake.uploads import store_upload
from services.profiles.jobs import IMPORT
from services.profiles.store import MongoStore
from services.profiles.taking import Taker
from services.profiles.values import Source
from services.profiles.vault import Vault
from tests.profiles.people import MAPPING, csv_of, person

ROWS = range(1500)
NAMES = ("rows_read", "rows_accepted", "rows_rejected", "profiles_created")


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
        return self.jobs.start(IMPORT, args, metadata, Owner("user:test", "sales"))

    def worker(self, *args: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.profiles.import_process", self.uri, self.name, str(self.keys), *args]
        return subprocess.Popen(argv, cwd=Path(__file__).parents[2])

    def written(self) -> int:
        return sum(1 for _ in records.database("profiles")["links"].find({}, {"_id": 1}))

    def expire_lease(self, operation: operations_pb2.Operation) -> None:
        found = self.operations.get(operation.name)
        assert found is not None
        self.operations.update(operation.name, str(found["lease"]), {"wake_at": datetime.now(UTC) - timedelta(1)})

    def close(self) -> None:
        mongoengine.get_connection("profiles").drop_database(self.name)
        mongoengine.disconnect("profiles")
        ProfileDocument._collection = None


@pytest.fixture
def database(mongo_uri: str, tmp_path: Path) -> Iterator[OnMongo]:
    found = OnMongo(mongo_uri, tmp_path / "keys")
    yield found
    found.close()


def until(claim: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def summary_of(operation: operations_pb2.Operation) -> resources_pb2.IntakeSummary:
    response = resources_pb2.ImportRecordsResponse()
    assert operation.response.Unpack(response), operation.error
    return response.summary


def test_a_worker_killed_again_and_again_leaves_the_import_as_if_nothing_had_happened(database: OnMongo) -> None:
    operation = database.queue(csv_of(ROWS))
    for threshold in (1, 600, 1100):
        process = database.worker()
        until(lambda threshold=threshold: database.written() >= threshold)
        process.kill()
        process.wait()
        database.expire_lease(operation)
    process = database.worker()
    try:
        until(lambda: database.jobs.get(operation.name, "sales").done)
    finally:
        process.kill()
        process.wait()

    summary = summary_of(database.jobs.get(operation.name, "sales"))
    assert [getattr(summary, name) for name in NAMES] == [1500, 1500, 0, 1500]
    profiles = database.store.page_profiles("", 5000, ())
    keys = [key for item in profiles for key in item.record_keys]
    assert sorted(keys) == sorted(f"till/{number}" for number in ROWS)
    ciphers = database.vault.ciphers(database.store, profiles)
    names = {database.vault.open_golden(item, ciphers).golden.value("email") for item in profiles}
    assert names == {person(number)["email"] for number in ROWS}
    facts = [len(item["outbox"]) for item in ProfileDocument._get_collection().find({}, {"outbox": 1})]
    assert facts == [1] * 1500
    assert not list(records.database("profiles")["upload_chunks"].find({}, {"_id": 1}))


def test_an_import_and_single_writes_of_the_same_people_at_once_end_with_one_profile_each(database: OnMongo) -> None:
    operation = database.queue(csv_of(range(600)))
    database.store.sources.insert(Source("shop", "sales", []))
    taker = Taker(database.store, database.vault, default_model, Dictionary(database.store))
    admission = Admission(database.store, database.vault, taker)
    source = database.store.sources.get("shop")
    assert source is not None
    process = database.worker()
    try:
        for start in range(0, 600, 50):
            entries = [Entry(n + 1, {**person(n), "address": ""}, False, str(n)) for n in range(start, start + 50)]
            admission.admit(settings_of(source), entries)
        until(lambda: database.jobs.get(operation.name, "sales").done)
    finally:
        process.kill()
        process.wait()

    profiles = database.store.page_profiles("", 5000, ())
    assert len(profiles) == 600
    assert all(len(item.records) == 2 for item in profiles)
    assert database.store.handing_over() == []
