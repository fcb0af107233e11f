"""Rows that are set apart: kept once, fixed in place or by a corrected file, with their history."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import grpc
import openpyxl
import pytest
from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc, resources_pb2

from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.store import Store
from services.profiles.values import Reject
from tests.profiles.people import Service, batch, csv_of, person, upload
from tests.profiles.test_deletions import believed, registered, send
from tests.profiles.test_jobs import CUTS, Cut, finish, killing, state_of, summary_of
from tests.profiles.test_store import mongo_store, store

__all__ = ["mongo_store", "store"]
Stub = profiles_pb2_grpc.ProfilesServiceStub
GOOD = "x1,2025-03-01,王五,13912345670,,,\n".encode("gb18030")
BAD = "x1,2025-02-01,王五,1.38E+10,,,\nx2,2025-02-01,赵六,1.39E+10,,,\n,,张三,13912345671,,,\n".encode("gb18030")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return registered(Service(tmp_path / "keys"))


def rejects(service: Service) -> list[Reject]:
    return sorted(service.store.rejects.page({}, "", 1000), key=lambda item: item.row_number)


def states(service: Service) -> list[str]:
    return [item.state for item in rejects(service)]


def test_the_same_file_twice_sets_no_row_apart_twice(service: Service) -> None:
    send(service, csv_of(range(5)) + BAD)
    first = rejects(service)
    summary = summary_of(send(service, csv_of(range(5)) + BAD))

    assert summary.rows_rejected == 3
    assert rejects(service) == first
    assert len(first) == 3


def test_equal_rows_of_one_file_are_each_set_apart(service: Service) -> None:
    send(service, csv_of(range(1)) + b"x9,,,,,,\n" * 3)

    assert [item.row_number for item in rejects(service)] == [2, 3, 4]


def test_a_corrected_file_closes_the_rows_whose_records_it_brings(service: Service) -> None:
    send(service, csv_of(range(3)) + BAD)
    operation = send(service, csv_of(range(0)) + GOOD)
    closed, *others = rejects(service)

    assert states(service) == ["corrected", "open", "open"]
    assert [(entry[1], entry[2], entry[3]) for entry in closed.attempts] == [("", operation.name, 1)]
    assert all(not item.attempts for item in others)
    assert believed(service, "till/x1")["phones"] == "+8613912345670"


def test_a_bad_row_after_a_good_one_stays_open_and_one_before_it_is_closed(service: Service) -> None:
    bad = BAD.split(b"\n")[0] + b"\n"
    send(service, csv_of(range(2)) + GOOD + bad)
    assert states(service) == ["open"]
    again = csv_of(range(2)) + bad + GOOD.replace(b"670,", b"672,").replace(b"03-01", b"04-01")
    send(service, again)

    assert sorted((item.row_number, item.state) for item in rejects(service)) == [(3, "corrected"), (4, "corrected")]


def test_a_row_that_changes_nothing_closes_nothing(service: Service) -> None:
    send(service, csv_of(range(1)) + GOOD)
    send(service, csv_of(range(1)) + GOOD + BAD.split(b"\n")[0] + b"\n")
    send(service, csv_of(range(1)) + GOOD)

    assert states(service) == ["open"]


def test_another_source_closes_nothing(service: Service) -> None:
    send(service, csv_of(range(1)) + BAD)
    send(service, csv_of(range(1)) + GOOD, source="shop")

    assert states(service) == ["open"] * 3


def test_the_api_corrects_what_a_file_brought_badly(service: Service) -> None:
    send(service, csv_of(range(1)) + BAD)
    with service.serving() as harness:
        harness.stub(Stub).BatchUpsertRecords(batch("till", ("x2", person(2))), timeout=10)

    assert states(service) == ["open", "corrected", "open"]


def test_every_try_is_kept_with_who_which_columns_and_why_not_but_no_value(service: Service) -> None:
    send(service, csv_of(range(1)) + BAD)
    name = f"rejects/{rejects(service)[0].id}"
    with service.serving() as harness:
        stub = harness.stub(Stub)
        for phone in ("1.40E+10", "13912345670"):
            request = profiles_pb2.ReplayRejectRequest(name=name, corrections={"手机": phone})
            try:
                stub.ReplayReject(request, timeout=10)
            except grpc.RpcError as refused:
                assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
        found = stub.GetReject(profiles_pb2.GetRejectRequest(name=name), timeout=10)

    assert found.state == resources_pb2.Reject.STATE_REPLAYED
    first, second = found.attempts
    assert ("PHONE_DIGITS_LOST" in first.reasons, list(second.reasons)) == (True, [])
    assert list(first.corrected_columns) == list(second.corrected_columns) == ["手机"]
    assert first.subject and first.subject == second.subject
    assert second.time.ToDatetime() >= first.time.ToDatetime()
    assert found.row["手机"] == "1.38E+10"
    assert "1.40" not in str(found.attempts)


@pytest.mark.parametrize(("method", "at", "after"), CUTS[:6])
def test_a_correction_cut_anywhere_ends_closed(tmp_path: Path, method: str, at: int, after: bool) -> None:
    service = registered(Service(tmp_path / "keys"))
    send(service, csv_of(range(120)) + BAD)
    with service.serving() as harness:
        operation = harness.stub(Stub).ImportRecords(upload("till", csv_of(range(120, 240)) + GOOD), timeout=60)
    restore = killing(service.store, method, at, after)
    with pytest.raises(Cut):
        finish(service, operation)
    restore()
    finish(service, operation)

    assert states(service) == ["corrected", "open", "open"]
    assert len(state_of(service.store)) == 241


def test_a_shelf_finds_those_whose_field_has_one_of_many_values(store: Store) -> None:
    made = [Reject(f"r{n:03}", "till", "op", n, [], b"", record=f"token{n}") for n in range(100)]
    store.rejects.add_missing(made)
    found = store.rejects.among("record", [f"token{n}" for n in range(10, 90)] + ["none"])

    assert sorted(item.id for item in found) == [f"r{n:03}" for n in range(10, 90)]


def test_a_bad_record_is_the_same_one_in_whatever_order_its_fields_come(tmp_path: Path) -> None:
    service = registered(Service(tmp_path / "keys"))
    source = service.store.sources.get("till")
    assert source is not None
    fields = {"phone": "12", "email": "nobody", "gender": "unsaid"}
    for values in (fields, dict(reversed(fields.items()))):
        admission = Admission(service.store, service.vault, service.taker)
        admission.admit(settings_of(source), [Entry(1, values, False, "1", datetime(2025, 1, 2, tzinfo=UTC))])

    assert len(service.store.rejects.page({}, "", 10)) == 1


def test_rows_that_lost_digits_keep_their_other_cells_and_those_of_two_files_are_two(service: Service) -> None:
    for name in ("张三", "李四"):
        book = openpyxl.Workbook()
        book.active.append(["编号", "姓名", "手机", "卡号"])
        book.active.append([name, name, "13912345670", 6222021234567890123])
        content = io.BytesIO()
        book.save(content)
        assert dict(summary_of(send(service, content.getvalue())).rejects_by_reason) == {"DIGITS_LOST": 1}

    admission = Admission(service.store, service.vault, service.taker)
    assert sorted(admission.reopen(item, {}).values["姓名"] for item in rejects(service)) == ["张三", "李四"]
