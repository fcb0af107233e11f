"""What an import promises: every row accounted for, nothing twice, and the same end wherever it is cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty
from kehu.profiles.v1 import profiles_pb2_grpc, resources_pb2

from services.chassis.jobs import LEASE, Owner
from services.profiles.domain.retention import RecordType
from services.profiles.intake.sweeping import Sweeper
from services.profiles.intake.uploads import CHUNK_BYTES, Upload, open_upload, store_upload
from services.profiles.store import MemoryStore, Store
from services.profiles.taking import AT_ONCE
from services.profiles.values import Source
from tests.profiles.people import MAPPING, Service, csv_of, person, upload

ROWS = range(240)


class Cut(BaseException):
    """The process is killed here: nothing catches it."""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    found = Service(tmp_path / "keys")
    register(found)
    return found


def register(service: Service) -> None:
    mapping = [[column, name] for column, name in MAPPING]
    service.store.sources.insert(Source("till", "sales", mapping))


def send(service: Service, content: bytes, **header: str) -> operations_pb2.Operation:
    with service.serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        return stub.ImportRecords(upload("till", content, **header), timeout=60)


def finish(service: Service, operation: operations_pb2.Operation) -> operations_pb2.Operation:
    """Run the job where it stands until it ends, letting expired leases expire at once."""
    deadline = time.monotonic() + 120
    worker = service.worker()
    while time.monotonic() < deadline:
        service.operations.update(operation.name, lease_of(service, operation), {"wake_at": datetime.now(UTC) - LEASE})
        worker.run_one()
        found = service.operations.get(operation.name)
        if found is not None and found["done"]:
            return service.jobs.get(operation.name, "data-office")
    raise AssertionError("the import did not end")


def lease_of(service: Service, operation: operations_pb2.Operation) -> str:
    found = service.operations.get(operation.name)
    assert found is not None
    return str(found["lease"])


def summary_of(operation: operations_pb2.Operation) -> resources_pb2.IntakeSummary:
    response = resources_pb2.ImportRecordsResponse()
    assert operation.response.Unpack(response), operation.error
    return response.summary


def state_of(store: Store) -> list[tuple[object, ...]]:
    """Return all that counts of every profile, the moments of writing left out."""
    profiles = store.page_profiles("", 100_000, ())
    return [(p.profile_id, sorted(p.record_keys), sorted(p.tokens), p.owner_department, p.aliases) for p in profiles]


def dirty_file() -> bytes:
    """Some people, a quarter of them twice, and some rows that must be set apart."""
    doubles = csv_of(range(60), time="2025-03-01", prefix="again-").split(b"\n", 1)[1]
    bad = "x1,,王五,1.38E+10,,,\nx2,,,,,,\n,,张三,13912345670,,,\n".encode("gb18030")
    return csv_of(ROWS) + doubles + bad


def test_every_row_is_accounted_for(service: Service) -> None:
    summary = summary_of(finish(service, send(service, dirty_file())))

    assert summary.rows_read == 303
    assert summary.rows_accepted == 300
    assert summary.rows_rejected == 3
    assert (
        summary.rows_read == summary.rows_accepted + summary.rows_unchanged + summary.rows_stale + summary.rows_rejected
    )
    assert summary.rejects_by_reason["PHONE_DIGITS_LOST"] == 1
    assert summary.rejects_by_reason["RECORD_ID_MISSING"] == 1
    assert summary.profiles_created == 240 == len(service.store.page_profiles("", 5000, ()))
    assert len(service.store.rejects.page({"state": "open"}, "", 10)) == 3


def test_the_same_file_twice_changes_nothing_and_says_so(service: Service) -> None:
    finish(service, send(service, dirty_file()))
    before, facts = state_of(service.store), len(service.store.facts)
    again = summary_of(finish(service, send(service, dirty_file())))

    assert (again.rows_accepted, again.rows_unchanged, again.profiles_created) == (0, 300, 0)
    assert (state_of(service.store), len(service.store.facts)) == (before, facts)


def test_an_older_file_after_a_newer_one_overwrites_nothing(service: Service) -> None:
    finish(service, send(service, csv_of(range(50), time="2025-05-05")))
    old = csv_of(range(50), time="2024-05-05").replace("文三路".encode("gb18030"), "文二路".encode("gb18030"))

    assert summary_of(finish(service, send(service, old))).rows_stale == 50


def test_the_operation_shows_progress_and_what_the_file_is(service: Service) -> None:
    operation = finish(service, send(service, csv_of(range(20)).replace("更新".encode("gb18030"), b"spare")))
    metadata = resources_pb2.ImportMetadata()
    operation.metadata.Unpack(metadata)

    assert (metadata.format, metadata.encoding, metadata.source) == ("csv", "gb18030", "sources/till")
    assert list(metadata.unmapped_columns) == ["spare"]
    assert metadata.summary.rows_read == 20


def test_an_unreadable_file_ends_the_operation_with_its_reason_and_leaves_no_upload(service: Service) -> None:
    operation = finish(service, send(service, b"\x1f\x8b" + b"0" * 100))

    assert "unpack" in operation.error.message
    assert service.store._chunks == {}
    unmapped = finish(service, send(service, b"foo,bar\n1,2\n"))
    assert "mapping" in unmapped.error.message


def killing(store: Store, method: str, at: int, after: bool) -> Callable[[], None]:
    """Make the `at`-th call of a store method die, before or after it did its work; return what undoes that."""
    original, calls = getattr(store, method), iter(range(1_000_000))

    def call(*args: object) -> object:
        if next(calls) == at:
            if after:
                original(*args)
            raise Cut
        return original(*args)

    setattr(store, method, call)
    return lambda: setattr(store, method, original)


CUTS = [
    ("write_part", 0, False),
    ("write_part", 0, True),
    ("write_part", 1, True),
    ("write_part", 2, False),
    ("write_part", 3, True),
    ("close_round", 0, False),
    ("close_round", 1, True),
    ("add_data_keys", 1, True),
    ("near", 1, True),
    ("rounds", 2, False),
    ("archive", 1, True),
]


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[object, ...]], resources_pb2.IntakeSummary]:
    """The state and the sums of an import that nothing cut."""
    keys = tmp_path_factory.mktemp("keys")
    service = Service(keys)
    register(service)
    operation = finish(service, send(service, dirty_file(), request_id="one"))
    return keys, state_of(service.store), summary_of(operation)


@pytest.mark.parametrize(("method", "at", "after"), CUTS)
def test_an_import_cut_anywhere_ends_in_the_same_state_and_sums(
    whole: tuple[Path, list[tuple[object, ...]], resources_pb2.IntakeSummary], method: str, at: int, after: bool
) -> None:
    keys, state, summary = whole
    service = Service(keys)
    register(service)
    operation = send(service, dirty_file(), request_id="one")
    restore = killing(service.store, method, at, after)
    with pytest.raises(Cut):
        finish(service, operation)
    restore()
    ended = summary_of(finish(service, operation))

    assert state_of(service.store) == state
    assert ended == summary


def test_a_cut_in_the_middle_of_one_bulk_write_loses_and_doubles_nothing(
    whole: tuple[Path, list[tuple[object, ...]], resources_pb2.IntakeSummary],
) -> None:
    keys, state, summary = whole
    service = Service(keys)
    register(service)
    operation = send(service, dirty_file(), request_id="one")
    original = service.store.write_part

    def half(changes: list) -> list[str]:
        original(changes[: len(changes) // 2])
        raise Cut

    service.store.write_part = half  # type: ignore[method-assign]
    with pytest.raises(Cut):
        finish(service, operation)
    service.store.write_part = original  # type: ignore[method-assign]
    ended = summary_of(finish(service, operation))

    assert state_of(service.store) == state
    assert ended == summary


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("after", [False, True])
def test_a_merge_cut_at_any_write_is_finished_by_the_next_who_looks(service: Service, at: int, after: bool) -> None:
    base = person(1)
    admit(service, {"1": {"name": base["name"], "phone": base["phone"], "birth_date": base["birth_date"]}})
    admit(service, {"2": {"name": base["name"], "email": base["email"], "address": base["address"]}})
    ids = [item.profile_id for item in service.store.page_profiles("", 10, ())]
    restore = killing(service.store, "write_profiles", at, after)
    with pytest.raises(Cut):
        service.taker.merger.merge(ids)
    restore()
    service.taker.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1))
    service.taker.merger.merge(ids)

    (survivor,) = service.store.page_profiles("", 10, ())
    assert sorted(survivor.record_keys) == ["till/1", "till/2"]
    assert len(survivor.aliases) == 1
    assert service.store.handing_over() == []


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("after", [False, True])
def test_a_split_cut_at_any_write_loses_no_record(service: Service, at: int, after: bool) -> None:
    admit(service, {"1": person(1)})
    admit(service, {"2": {**person(1), "email": ""}})
    (profile,) = service.store.page_profiles("", 10, ())
    restore = killing(service.store, "write_profiles", at, after)
    with pytest.raises(Cut):
        service.taker.merger.split(profile.profile_id, ["till/2"], "f" * 32)
    restore()
    service.taker.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1))

    living = service.store.page_profiles("", 10, ())
    assert sorted(key for item in living for key in item.record_keys) == ["till/1", "till/2"]
    assert service.store.handing_over() == []


def admit(service: Service, people: Mapping[str, dict[str, str]]) -> None:
    """Take these records of the till in, by their ids."""
    from services.profiles.admission import Admission, Entry, settings_of

    source = service.store.sources.get("till")
    assert source is not None
    admission = Admission(service.store, service.vault, service.taker)
    entries = [Entry(row, fields, False, key) for row, (key, fields) in enumerate(people.items(), 1)]
    admission.admit(settings_of(source), entries)


@pytest.mark.parametrize(("looking", "count"), [("look", 1), ("near", AT_ONCE + 1)])
def test_two_takers_that_meet_one_person_at_once_end_with_one_profile(
    service: Service, looking: str, count: int
) -> None:
    """The second look: what both founded while neither could see the other becomes one, in few records or in many."""
    original = getattr(service.store, looking)
    done: list[bool] = []

    def look_and_be_overtaken(*asked: list[str]) -> object:
        found = original(*asked)
        if not done:
            done.append(True)
            admit(service, {"other": {**person(1), "address": ""}})
        return found

    setattr(service.store, looking, look_and_be_overtaken)
    admit(service, {str(number): person(number) for number in range(1, count + 1)})

    profiles = service.store.page_profiles("", 100, ())
    assert len(profiles) == count
    assert ["till/1", "till/other"] in [sorted(profile.record_keys) for profile in profiles]


def test_a_worker_that_lost_its_lease_writes_no_more(service: Service) -> None:
    operation = send(service, csv_of(range(20)))
    taken = service.operations.get(operation.name)
    assert taken is not None
    assert service.operations.update(operation.name, "", {"lease": "another", "wake_at": datetime.now(UTC) + LEASE})

    assert not service.worker().run_one()


def parts(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_an_upload_is_read_back_whole_from_anywhere_and_is_never_in_the_clear(tmp_path: Path) -> None:
    service = Service(tmp_path / "keys")
    content = bytes(range(256)) * 3000
    stored = store_upload(service.store, service.vault.uploads, "u", parts(content, 77_777))
    file = open_upload(service.store, service.vault.uploads, stored)

    assert stored == Upload("u", -(-len(content) // CHUNK_BYTES), len(content))
    assert file.read() == content
    file.seek(-10, 2)
    assert file.read() == content[-10:]
    file.seek(CHUNK_BYTES - 5)
    assert file.read(5) + file.read(5) == content[CHUNK_BYTES - 5 : CHUNK_BYTES + 5]
    assert isinstance(service.store, MemoryStore)
    assert all(content[:64] not in sealed for sealed in service.store._chunks.values())


def test_uploads_of_imports_that_failed_were_cancelled_or_never_began_are_deleted_and_others_are_not(
    service: Service,
) -> None:
    store, sweeper, owner = service.store, Sweeper(service.store, service.operations), Owner("u", "data-office")
    for name in ("waiting", "cancelled", "orphan", "export-e1", "plan"):
        store_upload(store, service.vault.uploads, name, [bytes(CHUNK_BYTES + 1)])
    service.jobs.start("import", {"upload_id": "waiting"}, Empty(), owner)
    service.jobs.start("expire_export", {"export_id": "e1"}, Empty(), owner)
    resolving = service.jobs.start("resolve", {}, Empty(), owner)
    service.operations.update(resolving.name, "", {"checkpoint": {"plan": "plan"}})
    service.jobs.cancel(service.jobs.start("import", {"upload_id": "cancelled"}, Empty(), owner).name, "data-office")
    now = datetime.now(UTC)

    assert sweeper.sweep(now + timedelta(minutes=59)) == 0
    assert sweeper.sweep(now + timedelta(minutes=61)) == 2
    left = {part.id for part in store.ageing(RecordType.UPLOADS, "", 99)}
    assert left == {f"{name}/{number}" for name in ("waiting", "export-e1", "plan") for number in (0, 1)}


def test_a_caller_who_goes_away_while_sending_a_file_leaves_nothing(service: Service) -> None:
    def cut_short() -> Iterator[bytes]:
        yield bytes(2 * CHUNK_BYTES)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store_upload(service.store, service.vault.uploads, "u", cut_short())

    assert service.store.ageing(RecordType.UPLOADS, "", 9) == []
