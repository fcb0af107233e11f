"""Records that arrive as lines: good ones are taken in, bad ones set apart, and sending them again changes nothing."""

from __future__ import annotations

from pathlib import Path

import grpc
import orjson
import pytest
from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc, streaming_pb2

from services.profiles.admission import Admission, settings_of
from services.profiles.intake.streaming import LINE_BYTES, entries_of
from services.profiles.store import Store
from services.profiles.values import Field, Reject
from tests.profiles.people import Service, person
from tests.profiles.test_deletions import believed, registered
from tests.profiles.test_jobs import Cut, killing, state_of
from tests.profiles.test_store import mongo_store, store

__all__ = ["mongo_store", "store"]
Stub = profiles_pb2_grpc.ProfilesServiceStub
BAD = (
    ('{"source_record_id": "x1", "fields"', "ROW_UNREADABLE", ""),
    ('["x2"]', "ROW_UNREADABLE", ""),
    ('{"source_record_id": "x3", "colour": 1}', "ROW_UNREADABLE", ""),
    ('{"source_record_id": "x4", "fields": {"phone": 1.38e10}}', "ROW_UNREADABLE", ""),
    ('{"fields": {"name": "张三"}}', "RECORD_INVALID", "source_record_id"),
    ('{"source_record_id": "x5", "fields": {"Name": "张三"}}', "RECORD_INVALID", "fields"),
    ('{"source_record_id": "x6", "fields": {"shoe_size": "43"}}', "FIELD_UNKNOWN", "shoe_size"),
    ('{"source_record_id": "x7", "fields": {"phone": "12"}}', "IDENTIFIER_MISSING", ""),
    (b'{"source_record_id": "x8", "fields": {"name": "\xd5\xc5"}}', "CHARACTERS_UNREADABLE", ""),
    ('{"source_record_id": "x9", "fields": {"name": "' + "长" * LINE_BYTES + '"}}', "LINE_TOO_LONG", ""),
    ("[" * 50_000, "ROW_UNREADABLE", ""),
)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return registered(Service(tmp_path / "keys"))


def line_of(number: int, **changes: str) -> bytes:
    fields = {**person(number), **changes}
    return orjson.dumps({"source_record_id": str(number), "update_time": "2025-01-02T03:04:05Z", "fields": fields})


def send(
    service: Service, *lines: bytes | str, first: int = 0, request_id: str = ""
) -> streaming_pb2.StreamRecordsResponse:
    body = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    request = streaming_pb2.StreamRecordsRequest(
        parent="sources/till", lines=body, first_line=first, request_id=request_id
    )
    with service.serving() as harness:
        return harness.stub(Stub).StreamRecords(request, timeout=10)


def found(reply: streaming_pb2.StreamRecordsResponse) -> list[tuple[int, str, list[str]]]:
    return [(item.line, item.source_record_id, [why.reason for why in item.reasons]) for item in reply.set_apart]


def test_good_lines_are_taken_in_and_blank_ones_count_in_numbers_only(service: Service) -> None:
    reply = send(service, line_of(1), "", "  ", line_of(2), first=1001)

    assert (reply.last_line, reply.summary.rows_read, reply.summary.rows_accepted) == (1004, 2, 2)
    assert believed(service, "till/2")["name"] == person(2)["name"]


@pytest.mark.parametrize(("line", "reason", "column"), BAD)
def test_a_bad_line_is_set_apart_with_its_reason_and_ends_nothing(
    service: Service, line: str | bytes, reason: str, column: str
) -> None:
    reply = send(service, line_of(1), line, line_of(2))

    assert (reply.last_line, reply.summary.rows_accepted, reply.summary.rows_rejected) == (3, 2, 1)
    (item,) = reply.set_apart
    assert (item.line, reason, column) in [(2, why.reason, why.field) for why in item.reasons]
    assert all(why.description for why in item.reasons)
    assert item.reject.startswith("rejects/")


def test_the_same_lines_again_change_nothing_and_are_set_apart_once(service: Service) -> None:
    lines = [line_of(1), *(line for line, _, _ in BAD), line_of(2)]
    first = send(service, *lines)
    again = send(service, *lines)

    assert found(again) == found(first)
    assert (again.summary.rows_unchanged, again.summary.profiles_updated) == (2, 0)
    assert len(service.store.rejects.page({}, "", 100)) == len(BAD)


def test_a_line_that_could_not_be_read_is_taken_in_with_the_fields_it_should_have_had(service: Service) -> None:
    (item,) = send(service, BAD[0][0]).set_apart
    corrections = {"source_record_id": "x1", "name": "王五", "phone": "13912345670"}
    with service.serving() as harness:
        stub = harness.stub(Stub)
        row = stub.GetReject(profiles_pb2.GetRejectRequest(name=item.reject), timeout=10).row
        assert list(row.values()) == [BAD[0][0]]
        stub.ReplayReject(profiles_pb2.ReplayRejectRequest(name=item.reject, corrections=corrections), timeout=10)

    assert believed(service, "till/x1")["name"] == "王五"


def test_a_field_that_is_defined_later_can_be_taken_in_then_and_no_sooner(service: Service) -> None:
    line = '{"source_record_id": "x6", "fields": {"name": "王五", "phone": "13912345670", "shoe_size": "43"}}'
    (item,) = send(service, line).set_apart
    request = profiles_pb2.ReplayRejectRequest(name=item.reject)
    with service.serving() as harness:
        stub = harness.stub(Stub)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ReplayReject(request, timeout=10)
        assert "still refused" in str(refused.value.details())
        service.store.fields.insert(Field("shoe_size", "鞋码"))
        service.tools.dictionary.forget()
        stub.ReplayReject(request, timeout=10)

    assert believed(service, "till/x6")["shoe_size"] == "43"


def test_a_stream_names_itself_and_the_line_in_the_origin_of_a_record(service: Service) -> None:
    send(service, line_of(1), line_of(2), first=41, request_id="night")

    (profile,) = service.store.by_record_keys(["till/2"])
    assert [record.origin for record in profile.records] == ["user:test/night:42"]


def test_more_lines_than_a_batch_has_are_refused_whole(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        send(service, *[line_of(1)] * 501)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert state_of(service.store) == []


@pytest.mark.parametrize(
    ("shelf", "method", "at", "after"),
    [
        ("", "write_part", 0, False),
        ("", "write_part", 0, True),
        ("", "write_part", 2, False),
        ("", "close_round", 0, False),
        ("", "add_data_keys", 0, True),
        ("rejects", "add_missing", 0, False),
        ("rejects", "add_missing", 0, True),
    ],
)
def test_a_batch_cut_anywhere_and_sent_again_ends_as_if_it_had_not_been_cut(
    tmp_path: Path, store: Store, shelf: str, method: str, at: int, after: bool
) -> None:
    body = b"\n".join([*(line_of(number) for number in range(80)), BAD[0][0].encode(), BAD[6][0].encode()])
    whole = registered(Service(tmp_path / "keys"))
    take(whole, body)
    cut = registered(Service(tmp_path / "keys", store))
    restore = killing(getattr(store, shelf) if shelf else store, method, at, after)
    with pytest.raises(Cut):
        take(cut, body)
    restore()
    take(cut, body)

    assert state_of(store) == state_of(whole.store)
    assert [item.id for item in rejects(store)] == [item.id for item in rejects(whole.store)]
    assert len(rejects(store)) == 2


def take(service: Service, body: bytes) -> None:
    source = service.store.sources.get("till")
    assert source is not None
    admission = Admission(service.store, service.vault, service.taker, service.tools.may_feed)
    admission.admit(settings_of(source), entries_of(body, 1)[0])


def rejects(store: Store) -> list[Reject]:
    return sorted(store.rejects.page({}, "", 100), key=lambda item: item.id)
