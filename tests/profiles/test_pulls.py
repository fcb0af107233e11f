"""Pulls: files of a folder or an object store, each once, in order, from named places only."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import orjson
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from google.longrunning import operations_pb2
from kehu.profiles.v1 import intake_pb2, profiles_pb2_grpc

from services.chassis.jobs import Worker
from services.profiles.pulls import TARGETS_FILE, Puller, Target, load_targets
from tests.profiles.people import Service, csv_of
from tests.profiles.test_deletions import believed, registered
from tests.profiles.test_jobs import CUTS, Cut, killing, lease_of, state_of

OLD = 3600.0


class SafeFiles(MemoryFileSystem):
    """An object store that opens to a secret only."""

    protocol = "safe"
    store: dict[str, object] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("safe:/", "memory:/", 1))

    def __init__(self, *, secret: str = "", **options: object) -> None:
        if secret != "open sesame":
            raise PermissionError("wrong secret")
        super().__init__(**options)


fsspec.register_implementation("safe", SafeFiles, clobber=True)


class Pulls:
    """Profiles with an inbox, an object store and a worker that runs pulls."""

    def __init__(self, tmp_path: Path) -> None:
        self.inbox = tmp_path / "inbox"
        (self.inbox / "till").mkdir(parents=True)
        self.bucket = f"/{uuid.uuid4().hex}"
        self.service = registered(Service(tmp_path / "keys"))
        targets = {
            "inbox": Target(f"file://{self.inbox}"),
            "bucket": Target(f"memory:/{self.bucket}"),
            "safe": Target(f"safe:/{self.bucket}"),
            "gone": Target(f"file://{tmp_path}/nowhere"),
        }
        puller = Puller(self.service.store, self.service.vault, self.service.jobs, targets)
        handlers = {**self.service.importer.handlers(), **puller.handlers()}
        self.worker = Worker("profiles", handlers, self.service.operations)

    def put(self, name: str, content: bytes, age: float = OLD) -> Path:
        place = self.inbox / name
        place.write_bytes(content)
        os.utime(place, (time.time() - age, time.time() - age))
        return place

    def pull(self, target: str = "inbox", **fields: object) -> operations_pb2.Operation:
        request = intake_pb2.PullRecordsRequest(name="sources/till", target=target, **fields)
        with self.service.serving() as harness:
            return harness.stub(profiles_pb2_grpc.ProfilesServiceStub).PullRecords(request, timeout=10)

    def work(self, operation: operations_pb2.Operation, looks: int = 60) -> intake_pb2.PullProgress:
        """Run what is due, waking the pull at once instead of in time, until it ends or has looked often enough."""
        for _ in range(looks):
            while self.worker.run_one():
                pass
            found = self.service.operations.get(operation.name)
            assert found is not None
            if found["done"]:
                break
            self.service.operations.update(
                operation.name, lease_of(self.service, operation), {"wake_at": datetime.now(UTC)}
            )
        progress = intake_pb2.PullProgress()
        self.service.jobs.get(operation.name, "data-office").metadata.Unpack(progress)
        return progress

    def ended(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        return self.service.jobs.get(operation.name, "data-office")

    def people(self) -> int:
        return len(self.service.store.page_profiles("", 1000, ()))


@pytest.fixture
def pulls(tmp_path: Path) -> Pulls:
    return Pulls(tmp_path)


def test_the_files_of_a_folder_are_imported_oldest_first_and_each_once(pulls: Pulls) -> None:
    newer = csv_of(range(3), time="2025-01-02").replace("文三路".encode("gb18030"), "文二路".encode("gb18030"))
    pulls.put("a.csv", newer, age=100)
    pulls.put("b.csv", csv_of(range(3), time="2025-01-02"), age=200)
    pulls.put("c.txt", csv_of(range(10, 12)))
    operation = pulls.pull(pattern="*.csv")
    progress = pulls.work(operation)

    assert (progress.files_imported, progress.last_file, progress.last_failure) == (2, "a.csv", "")
    assert "文二路" in believed(pulls.service, "till/1")["address"]
    assert pulls.ended(operation).done
    assert pulls.people() == 3


def test_on_a_schedule_only_new_and_changed_files_are_taken_and_cancelling_ends_it(pulls: Pulls) -> None:
    pulls.put("a.csv", csv_of(range(3)))
    operation = pulls.pull(interval_minutes=15)
    assert pulls.work(operation, 6).files_imported == 1
    wake = pulls.service.operations.get(operation.name)
    assert wake is not None and not wake["done"]
    pulls.put("b.csv", csv_of(range(3, 5)))
    assert pulls.work(operation, 6).files_imported == 2
    pulls.put("a.csv", csv_of(range(6)), age=50)
    assert pulls.work(operation, 6).files_imported == 3
    assert pulls.people() == 6
    pulls.service.jobs.cancel(operation.name, "data-office")
    pulls.put("d.csv", csv_of(range(20, 22)))

    assert pulls.work(operation, 6).files_imported == 3
    assert pulls.people() == 6


def test_the_next_look_is_as_far_away_as_asked_for(pulls: Pulls) -> None:
    before = datetime.now(UTC)
    operation = pulls.pull(interval_minutes=15)
    while pulls.worker.run_one():
        pass
    found = pulls.service.operations.get(operation.name)

    assert found is not None
    assert 14 * 60 < (found["wake_at"] - before).total_seconds() < 16 * 60


def test_a_file_that_is_still_written_waits(pulls: Pulls) -> None:
    pulls.put("a.csv", csv_of(range(3)), age=0)

    assert pulls.work(pulls.pull()).files_imported == 0


def test_an_object_store_is_pulled_from(pulls: Pulls) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{pulls.bucket}/in/people.csv", csv_of(range(4)))
    files.pipe_file(f"{pulls.bucket}/other.csv", csv_of(range(10, 14)))

    assert pulls.work(pulls.pull("bucket", folder="in")).files_imported == 1
    assert pulls.people() == 4


def test_credentials_open_the_place_and_are_kept_sealed(pulls: Pulls) -> None:
    opened = SafeFiles(secret="open sesame")
    opened.pipe_file(f"{pulls.bucket}/people.csv", csv_of(range(2)))
    operation = pulls.pull("safe", credentials={"secret": "open sesame"})

    assert "sesame" not in str(pulls.service.operations.get(operation.name))
    assert pulls.work(operation).files_imported == 1
    refused = pulls.pull("safe", credentials={"secret": "wrong"})
    pulls.work(refused)
    assert pulls.ended(refused).error.message == "the place cannot be read"


def test_no_place_but_those_named_is_reached(pulls: Pulls) -> None:
    operation = pulls.pull("elsewhere")
    pulls.work(operation)

    assert "no such place" in pulls.ended(operation).error.message


@pytest.mark.parametrize("folder", ["..", "../x", "a/../..", "/etc", "a//b", ".hidden", "memory::x"])
def test_a_folder_never_leads_out_of_its_place(pulls: Pulls, folder: str) -> None:
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        pulls.pull(folder=folder)


def test_a_link_that_leads_out_of_its_place_is_not_followed(pulls: Pulls, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_bytes(csv_of(range(3)))
    os.utime(outside, (0, 0))
    (pulls.inbox / "link.csv").symlink_to(outside)
    (pulls.inbox / "linked").symlink_to(tmp_path)

    assert pulls.work(pulls.pull()).files_imported == 0
    assert pulls.work(pulls.pull(folder="linked")).files_imported == 0


def test_a_place_that_is_gone_ends_one_pull_and_only_delays_a_schedule(pulls: Pulls) -> None:
    once, often = pulls.pull("gone"), pulls.pull("gone", interval_minutes=5)
    pulls.work(once)
    progress = pulls.work(often, 3)

    assert pulls.ended(once).error.message == "the place cannot be read"
    assert progress.last_failure == "FileNotFoundError"
    assert not pulls.ended(often).done


@pytest.mark.parametrize(("method", "at", "after"), [*CUTS[:3], ("add_chunk", 0, True), ("add_chunk", 1, True)])
def test_a_pull_cut_anywhere_takes_every_file_once(tmp_path: Path, method: str, at: int, after: bool) -> None:
    pulls = Pulls(tmp_path)
    for number in range(3):
        pulls.put(f"{number}.csv", csv_of(range(number * 40, number * 40 + 40)), age=100 - number)
    operation = pulls.pull()
    restore = killing(pulls.service.store, method, at, after)
    with pytest.raises(Cut):
        pulls.work(operation)
    restore()
    for document in list(pulls.service.operations.newest("data-office", 10)):
        pulls.service.operations.update(str(document["_id"]), str(document["lease"]), {"wake_at": datetime.now(UTC)})
    progress = pulls.work(operation)

    assert progress.files_imported == 3
    assert pulls.people() == 120
    assert len(state_of(pulls.service.store)) == 120
    imports = [item for item in pulls.service.operations.newest("data-office", 10) if item["kind"] == "import"]
    assert len(imports) == 3


def test_places_come_from_the_operators_file(tmp_path: Path) -> None:
    assert load_targets(tmp_path) == {}
    content = {"inbox": {"url": "file:///in"}, "s3": {"url": "s3://b/in", "options": {"endpoint_url": "https://x"}}}
    (tmp_path / TARGETS_FILE).write_bytes(orjson.dumps(content))

    assert load_targets(tmp_path)["s3"] == Target("s3://b/in", {"endpoint_url": "https://x"})
    assert "endpoint" not in repr(load_targets(tmp_path))
