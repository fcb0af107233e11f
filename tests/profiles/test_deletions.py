"""What a source deletes or clears is followed: by a marked row, by a snapshot that lacks a record, by an empty cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from kehu.profiles.v1 import events_pb2, profiles_pb2_grpc, resources_pb2

from services.profiles.store import MemoryStore, Store
from services.profiles.values import Profile, Source
from tests.profiles.people import MAPPING, Service, batch, csv_of, person, upload
from tests.profiles.test_jobs import CUTS, Cut, finish, killing, state_of, summary_of
from tests.profiles.test_store import mongo_store, profile, record, store

__all__ = ["mongo_store", "store"]
LATER = "2025-06-07 08:09:10"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return registered(Service(tmp_path / "keys"))


def registered(service: Service) -> Service:
    mapping = [*map(list, MAPPING), ["状态", "record_deleted"]]
    service.store.sources.insert(Source("till", "sales", mapping))
    service.store.sources.insert(Source("shop", "sales", mapping))
    return service


def send(service: Service, content: bytes, source: str = "till", **header: object) -> operations_pb2.Operation:
    with service.serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        return finish(service, stub.ImportRecords(upload(source, content, **header), timeout=60))


def profile_of(service: Service, key: str) -> Profile:
    (found,) = service.store.by_record_keys([key])
    return found


def believed(service: Service, key: str) -> dict[str, str]:
    profile = profile_of(service, key)
    found = service.vault.open_golden(profile, service.vault.ciphers(service.store, [profile]))
    return {name: value for name, value in found.values().items() if value and name != "owner_department"}


def marked(*numbers: int, mark: str = "已删除", time: str = LATER) -> bytes:
    head = ",".join([column for column, _ in MAPPING] + ["状态"])
    return "\n".join([head, *(f"{number},{time},,,,,,{mark}" for number in numbers), ""]).encode("gb18030")


def test_a_row_marked_deleted_leaves_nothing_of_it_believed_and_nothing_to_find_it_by(service: Service) -> None:
    send(service, csv_of(range(3)))
    tokens = profile_of(service, "till/1").tokens
    summary = summary_of(send(service, marked(1)))

    assert (summary.rows_read, summary.rows_accepted, summary.rows_deleted) == (1, 1, 1)
    assert believed(service, "till/1") == {}
    assert service.store.by_tokens(tokens) == []
    assert believed(service, "till/2")["name"] == person(2)["name"]
    assert [item.number for item in service.store.archived("till", "1")] == [1]
    last = [fact.message for fact in service.store.facts if isinstance(fact.message, events_pb2.ProfileChanged)][-1]
    assert (last.province_code, last.birth_year) == ("", 0)


def test_a_person_keeps_what_other_sources_say(service: Service) -> None:
    send(service, csv_of(range(2)))
    send(service, csv_of(range(1), prefix="s"), source="shop")
    assert profile_of(service, "till/0").profile_id == profile_of(service, "shop/s0").profile_id
    send(service, marked(0))

    assert believed(service, "till/0")["name"] == person(0)["name"]
    (record,) = [item for item in profile_of(service, "till/0").records if item.source_id == "till"]
    assert list(record.tokens) == []


def test_a_deletion_again_changes_nothing_and_an_older_one_neither(service: Service) -> None:
    send(service, csv_of(range(1)))
    old = summary_of(send(service, marked(0, time="2020-01-01")))
    send(service, marked(0))
    before, facts = state_of(service.store), len(service.store.facts)
    again = summary_of(send(service, marked(0)))

    assert (old.rows_stale, old.rows_deleted) == (1, 0)
    assert (again.rows_unchanged, again.rows_deleted) == (1, 0)
    assert (state_of(service.store), len(service.store.facts)) == (before, facts)


def test_deleting_what_was_never_sent_founds_nobody(service: Service) -> None:
    summary = summary_of(send(service, marked(7)))

    assert (summary.rows_unchanged, summary.profiles_created) == (1, 0)
    assert service.store.page_profiles("", 10, ()) == []


def test_a_record_that_comes_and_goes_within_one_batch_is_gone(service: Service) -> None:
    line = csv_of(range(1)).split(b"\n")[1] + b","
    head, gone = marked(0).split(b"\n")[:2]
    send(service, b"\n".join([head, line, gone, b""]))

    assert believed(service, "till/0") == {}


def test_a_deleted_record_that_returns_is_the_same_person_again(service: Service) -> None:
    send(service, csv_of(range(1)))
    profile_id = profile_of(service, "till/0").profile_id
    send(service, marked(0))
    send(service, csv_of(range(1), time="2025-08-01"))

    assert profile_of(service, "till/0").profile_id == profile_id
    assert believed(service, "till/0")["name"] == person(0)["name"]


def test_a_mark_that_is_neither_yes_nor_no_sets_its_row_apart(service: Service) -> None:
    send(service, csv_of(range(1)))
    summary = summary_of(send(service, marked(0, mark="maybe")))

    assert summary.rejects_by_reason["DELETE_MARK_UNREADABLE"] == 1
    assert believed(service, "till/0")["name"] == person(0)["name"]


def test_a_record_is_deleted_through_the_api_too(service: Service) -> None:
    with service.serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        stub.BatchUpsertRecords(batch("till", ("1", person(1)), ("2", person(2))), timeout=10)
        reply = stub.BatchUpsertRecords(batch("till", ("1", {"record_deleted": "true"})), timeout=10)

    assert reply.summary.rows_deleted == 1
    assert (believed(service, "till/1"), believed(service, "till/2")["name"]) == ({}, person(2)["name"])


def test_a_field_that_the_source_cleared_is_believed_no_longer(service: Service) -> None:
    send(service, csv_of(range(1)))
    assert believed(service, "till/0")["emails"]
    send(service, csv_of(range(1), time=LATER).replace(person(0)["email"].encode(), b""))

    assert believed(service, "till/0").get("emails", "") == ""
    assert believed(service, "till/0")["phones"]


def test_a_snapshot_counts_what_is_missing_and_deletes_nothing_without_a_limit(service: Service) -> None:
    send(service, csv_of(range(20)))
    summary = summary_of(send(service, csv_of(range(15)), snapshot=True))

    assert (summary.rows_unchanged, summary.records_missing, summary.records_deleted) == (15, 5, 0)
    assert believed(service, "till/17")["name"] == person(17)["name"]


def test_a_snapshot_deletes_what_is_missing_of_its_own_source_within_the_limit(service: Service) -> None:
    send(service, csv_of(range(20)))
    send(service, csv_of(range(30, 40)), source="shop")
    summary = summary_of(send(service, csv_of(range(15)), snapshot=True, delete_limit=5))
    again = summary_of(send(service, csv_of(range(15)), snapshot=True, delete_limit=5))

    assert (summary.records_missing, summary.records_deleted) == (5, 5)
    assert (again.records_missing, again.records_deleted) == (0, 0)
    assert all(believed(service, f"till/{number}") == {} for number in range(15, 20))
    assert all(believed(service, f"till/{number}") for number in range(15))
    assert all(believed(service, f"shop/{number}") for number in range(30, 40))


def test_a_snapshot_that_lacks_more_than_the_limit_deletes_nothing_and_says_how_many(service: Service) -> None:
    send(service, csv_of(range(20)))
    operation = send(service, csv_of([*range(14), 50]), snapshot=True, delete_limit=5)  # type: ignore[arg-type]
    metadata = resources_pb2.ImportMetadata()
    operation.metadata.Unpack(metadata)

    assert "more records are missing" in operation.error.message
    assert (metadata.summary.records_missing, metadata.summary.records_deleted) == (6, 0)
    assert all(believed(service, f"till/{number}") for number in [*range(20), 50])
    assert isinstance(service.store, MemoryStore)
    assert service.store._chunks == {}


@pytest.mark.parametrize(
    "bad", [",2025-01-02,张三,13912345670,,,\n", '"16,2025-01-02,张\n', "1.2E+10,2025-01-02,张三,,,,\n",
            "Ou,Yang,2025-01-02,张三,13912345670,,,x\n"]
)  # fmt: skip
def test_a_snapshot_with_a_row_of_unknown_id_deletes_nothing(service: Service, bad: str) -> None:
    send(service, csv_of(range(20)))
    operation = send(service, csv_of(range(15)) + bad.encode("gb18030"), snapshot=True, delete_limit=5)

    assert "record id" in operation.error.message
    assert all(believed(service, f"till/{number}") for number in range(20))


def test_a_row_that_is_set_apart_is_not_missing(service: Service) -> None:
    send(service, csv_of(range(3)))
    bad = f"2,{LATER},王五,1.38E+10,,,\n".encode("gb18030")
    summary = summary_of(send(service, csv_of(range(2)) + bad, snapshot=True, delete_limit=5))

    assert (summary.rows_rejected, summary.records_missing) == (1, 0)
    assert believed(service, "till/2")["name"] == person(2)["name"]


def test_what_changed_after_the_snapshot_was_sent_is_not_deleted(service: Service) -> None:
    send(service, csv_of(range(2)))
    with service.serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        operation = stub.ImportRecords(upload("till", csv_of(range(1)), snapshot=True, delete_limit=5), timeout=60)
        stub.BatchUpsertRecords(batch("till", ("1", {**person(1), "email": "new@mail.example.cn"})), timeout=10)
    summary = summary_of(finish(service, operation))

    assert (summary.records_missing, summary.records_deleted) == (1, 0)
    assert believed(service, "till/1")["emails"]


@pytest.mark.parametrize(("method", "at", "after"), [*CUTS[:4], ("by_record_keys", 4, True), ("record_keys", 3, True)])
def test_a_snapshot_cut_anywhere_ends_in_the_same_state_and_sums(
    tmp_path: Path, method: str, at: int, after: bool
) -> None:
    ends = []
    for is_cut in (False, True):
        service = registered(Service(tmp_path / "keys"))
        send(service, csv_of(range(1200)), request_id="first")
        with service.serving() as harness:
            stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
            header = {"snapshot": True, "delete_limit": 2000, "request_id": "second"}
            operation = stub.ImportRecords(upload("till", csv_of(range(1190, 1210)), **header), timeout=60)
        if is_cut:
            restore = killing(service.store, method, at, after)
            with pytest.raises(Cut):
                finish(service, operation)
            restore()
        summary = summary_of(finish(service, operation))
        ends.append((state_of(service.store), summary))

    assert ends[0] == ends[1]
    assert (ends[0][1].records_missing, ends[0][1].records_deleted) == (1190, 1190)


def test_a_store_pages_the_record_keys_of_one_source_only(store: Store) -> None:
    sources = ("till", "till-2", "til", "till0", "tilla")
    kept = [record(number, source=source) for source in sources for number in range(5)]
    store.write_profiles([(profile("one", *kept), [])])
    pages, after = [], ""
    while page := store.record_keys("till", after, 2):
        pages.append(page)
        after = page[-1]

    assert pages == [["till/0", "till/1"], ["till/2", "till/3"], ["till/4"]]
