"""Pulls: files of a folder or an object store, each once, in order, from named places only."""

from __future__ import annotations

import os
import sqlite3
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
from services.profiles.intake.places import TARGETS_FILE, Target, load_targets
from services.profiles.intake.pulls import Puller
from services.profiles.intake.sql_pulls import cursor_from_plain, cursor_to_plain, read_table
from tests.profiles.people import MAPPING, Service, csv_of, person
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
        self.targets = targets = {
            "inbox": Target(f"file://{self.inbox}"),
            "bucket": Target(f"memory:/{self.bucket}"),
            "safe": Target(f"safe:/{self.bucket}"),
            "crm": Target(f"sqlite:///{tmp_path}/crm.sqlite"),
            "gone": Target(f"file://{tmp_path}/nowhere"),
        }
        puller = Puller(
            self.service.store, self.service.vault, self.service.jobs, targets, self.service.importer.admission
        )
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


def test_a_file_that_cannot_be_opened_holds_up_no_other_and_is_taken_when_it_can(
    pulls: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = SafeFiles(secret="open sesame")
    for name, numbers in (("a.csv", range(2)), ("b.csv", range(2, 4))):
        opened.pipe_file(f"{pulls.bucket}/{name}", csv_of(numbers))
    real = SafeFiles._open

    def locked(self: SafeFiles, path: str, *args: object, **how: object) -> object:
        if path.endswith("a.csv"):
            raise PermissionError("locked by whom?")
        return real(self, path, *args, **how)

    monkeypatch.setattr(SafeFiles, "_open", locked)
    operation = pulls.pull("safe", credentials={"secret": "open sesame"}, interval_minutes=5)
    progress = pulls.work(operation, looks=6)
    assert (progress.files_imported, progress.last_failure, pulls.people()) == (1, "PermissionError", 2)

    monkeypatch.setattr(SafeFiles, "_open", real)
    progress = pulls.work(operation, looks=6)
    assert (progress.files_imported, progress.last_failure, pulls.people()) == (2, "", 4)


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


def fill(tmp_path: Path, numbers: range, changed: str, table: str = "members", suffix: str = "") -> None:
    columns = [column for column, _ in MAPPING]
    with sqlite3.connect(tmp_path / "crm.sqlite") as database:
        database.execute(f"create table if not exists {table} ({', '.join(columns)}, seq integer)")
        for number in numbers:
            fields = {**person(number), "source_record_id": str(number), "updated_time": changed}
            cells = [fields[name] + (suffix if name == "address" else "") for _, name in MAPPING]
            database.execute(f"delete from {table} where 编号 = ?", (str(number),))
            last = database.execute(f"select coalesce(max(seq), 0) from {table}").fetchone()[0]
            database.execute(f"insert into {table} values ({', '.join('?' * len(cells))}, ?)", (*cells, last + 1))


def test_a_table_is_read_from_its_cursor_on(pulls: Pulls, tmp_path: Path) -> None:
    fill(tmp_path, range(700), "2025-01-02")
    operation = pulls.pull("crm", table="members", cursor_column="seq", interval_minutes=5)
    first = pulls.work(operation, 2).summary
    assert (first.rows_read, first.rows_accepted) >= (700, 700)
    fill(tmp_path, range(2), "2025-02-02", suffix="x")
    fill(tmp_path, range(700, 702), "2025-02-02")
    before = pulls.work(operation, 1).summary.rows_read
    after = pulls.work(operation, 1).summary

    assert pulls.people() == 702
    assert believed(pulls.service, "till/1")["address"].endswith("x")
    assert after.rows_read - before == 1, "only the row that carries the cursor's last value comes again"


def test_a_table_without_a_cursor_is_read_whole_and_a_second_look_changes_nothing(pulls: Pulls, tmp_path: Path) -> None:
    fill(tmp_path, range(30), "2025-01-02")
    once = pulls.work(pulls.pull("crm", table="main.members"))
    before = state_of(pulls.service.store)
    again = pulls.work(pulls.pull("crm", table="members"))

    assert (once.summary.rows_accepted, again.summary.rows_unchanged) == (30, 30)
    assert state_of(pulls.service.store) == before


@pytest.mark.parametrize("table", ["members; drop table members", 'a"b', "a.b.c", "members--", "(select 1)"])
def test_a_table_is_a_name_and_nothing_else(pulls: Pulls, table: str) -> None:
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        pulls.pull("crm", table=table)


def test_a_table_that_is_not_there_ends_the_pull_without_telling_the_address(pulls: Pulls, tmp_path: Path) -> None:
    operation = pulls.pull("crm", table="nothing", credentials={"password": "open sesame"})
    pulls.work(operation)
    error = pulls.ended(operation).error

    assert error.message == "the place cannot be read"
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize(("method", "at", "after"), [*CUTS[:5]])
def test_a_table_cut_anywhere_ends_in_the_same_state(tmp_path: Path, method: str, at: int, after: bool) -> None:
    pulls = Pulls(tmp_path)
    fill(tmp_path, range(600), "2025-01-02")
    operation = pulls.pull("crm", table="members", cursor_column="seq")
    restore = killing(pulls.service.store, method, at, after)
    with pytest.raises(Cut):
        pulls.work(operation)
    restore()
    pulls.work(operation)

    assert pulls.ended(operation).done
    assert pulls.people() == 600


@pytest.mark.parametrize(
    "cursor", [7, "2025-01-02", datetime(2025, 1, 2, 3, 4, 5, 6), datetime(2025, 1, 2, tzinfo=UTC)]
)
def test_a_cursor_is_kept_as_it_is(cursor: int | str | datetime) -> None:
    assert cursor_from_plain(cursor_to_plain(cursor)) == cursor
    assert cursor_from_plain(None) is None


def test_columns_of_other_kinds_than_text_and_number_are_read_as_text(tmp_path: Path) -> None:
    sqlite3.register_converter("UUID", lambda raw: uuid.UUID(raw.decode()))
    sqlite3.register_converter("JSONB", orjson.loads)
    with sqlite3.connect(tmp_path / "crm.db") as made:
        made.execute("CREATE TABLE members (id UUID, name TEXT, extra JSONB, tags JSONB)")
        name = uuid.uuid4()
        made.execute("INSERT INTO members VALUES (?, ?, ?, ?)", (str(name), "张三", '{"等级": 1}', '["a", "b"]'))
    (page,) = read_table(f"sqlite:///{tmp_path}/crm.db", {"detect_types": sqlite3.PARSE_DECLTYPES}, {}, "members", "")

    values = {"id": str(name), "name": "张三", "extra": '{"等级": 1}', "tags": "a;b"}
    assert [(row.fault, dict(row.values)) for row in page.rows] == [("", values)]
