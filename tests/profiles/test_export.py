"""An export holds what its recipient sees, for the recipient, for some hours; no cell runs; a leaked file is traced."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api import httpbody_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from kehu.options.v1 import options_pb2 as options
from kehu.profiles.v1 import export_pb2 as pb
from kehu.profiles.v1 import profiles_pb2, protection_pb2
from openpyxl import load_workbook

from services.chassis.access import ALL_SHOWN, Condition, Obligations
from services.chassis.jobs import Worker
from services.profiles import exported, exporting
from services.profiles.domain.cells import alive, dead, without_controls
from services.profiles.protection import erasing as eraser_module
from services.profiles.protection.erasing import Eraser
from services.profiles.store import MemoryStore
from tests.profiles.conftest import Desk
from tests.profiles.people import person, source_request

MARKETER = Obligations(masked=frozenset({"personal/name", "personal/contact"}), shown=frozenset({"personal/birth"}))
ANN = {"caller": "user:ann@marketing", "purpose": "marketing"}
LIVE = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠x", " =1", "  @x", "\u200b=1",
    "\ufeff=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")', "=1\n2", '"=1"', "'=1", "-2+3+cmd|'/C calc'!A0",
]  # fmt: skip


@pytest.mark.parametrize("value", LIVE)
def test_no_cell_begins_a_formula_and_each_comes_back_as_it_was(value: str) -> None:
    mark, rows = "mark", [(value, "plain", "李小明")]
    table = list(csv.reader(io.StringIO(exporting._csv(rows, mark).decode("utf-8-sig"), newline="")))
    sheet = load_workbook(io.BytesIO(exporting._workbook(rows, mark))).active
    cells = [table[2][0], sheet["A3"].value]

    assert sheet["A3"].data_type == "s", "text, whatever it looks like"
    assert [table[2][1:], [sheet["B3"].value, sheet["C3"].value]] == [["plain", "李小明"]] * 2
    for cell in cells:
        assert cell.lstrip("\ufeff\u200b \t\r\n")[:1] not in tuple("=+-@＝＋－＠"), "nothing a spreadsheet would run"
    assert alive(table[2][0]) == value
    assert alive(sheet["A3"].value) == value.replace("\r", "\n"), "XML has one kind of line end"


@given(st.text(max_size=40))
def test_any_text_comes_back_from_its_cell(value: str) -> None:
    assert alive(dead(value)) == value
    assert dead(value)[:1] not in tuple("=+-@\t\r＝＋－＠")
    assert len(without_controls(value)) <= len(value)


def export(desk: Desk, later: Obligations = MARKETER, now: Obligations = MARKETER, **fields: object) -> pb.Export:
    """Export as Ann with the rights of now, and let the jobs run with others."""
    desk.harness.policy.obligations = now
    operation = desk.call("ExportProfiles", pb.ExportProfilesRequest(**fields), **ANN)
    desk.harness.policy.obligations = later
    handlers = exporting.Exporter(desk.service.store, desk.service.vault).handlers()
    worker = Worker("profiles", handlers, desk.service.operations)
    while worker.run_one():
        pass
    stub = desk.harness.stub(operations_pb2_grpc.OperationsStub, **ANN)
    done = stub.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=5)
    assert done.done and not done.error.message, done
    made = pb.Export()
    done.response.Unpack(made)
    return made


def download(desk: Desk, name: str, **caller: str) -> httpbody_pb2.HttpBody:
    return desk.call("DownloadExport", pb.DownloadExportRequest(name=name), **{**ANN, **caller})


def refused(desk: Desk, name: str, **caller: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        download(desk, name, **caller)
    return caught.value.code()


@pytest.fixture
def people(desk: Desk) -> list[str]:
    desk.call("CreateSource", source_request("desk", owner_department="service"))
    names = [desk.upsert("till", str(n), person(n)) for n in range(4)] + [desk.upsert("desk", "9", person(9))]
    desk.harness.policy.obligations = MARKETER
    return names


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_a_file_holds_the_rows_and_fields_its_recipient_reads_one_by_one(
    desk: Desk, people: list[str], form: str
) -> None:
    sales = Condition("owner_department", ("sales",))
    made = export(desk, MARKETER, dataclasses.replace(MARKETER, row_filter=(sales,)), format=form)
    read = [desk.call("GetProfile", profiles_pb2.GetProfileRequest(name=name), **ANN) for name in people[:4]]
    body = download(desk, made.name)

    table = _table(body)
    rows = {row["profile"]: row for row in table[1]}
    assert "user:ann (marketing) for marketing" in table[0] and made.name in table[0]
    assert (made.row_count, len(rows), set(people[:4]) <= set(rows)) == (4, 5, True), "and one row of nobody"
    for profile in read:
        row = rows[profile.name]
        assert (row["name"], row["birth_date"], row["address"]) == (profile.display_name, profile.birth_date, "")
        assert row["phones"] == "\n".join(profile.phones) and "****" in row["phones"]
    assert people[4] not in rows, "out of reach"
    text = body.data.decode("utf-8", "replace")
    assert not any(person(n)["phone"] in text or person(n)["name"] in text for n in range(10))


def _table(body: httpbody_pb2.HttpBody) -> tuple[str, list[dict[str, str]]]:
    if body.content_type.startswith("text/csv"):
        cells = list(csv.reader(io.StringIO(body.data.decode("utf-8-sig"), newline="")))
    else:
        sheet = load_workbook(io.BytesIO(body.data)).active
        cells = [[str(cell or "") for cell in row] for row in sheet.iter_rows(values_only=True)]
    return cells[0][0], [dict(zip(cells[1], map(alive, row), strict=True)) for row in cells[2:]]


def test_a_leaked_file_is_traced_to_its_recipient_by_the_row_of_nobody(desk: Desk, people: list[str]) -> None:
    first, second = export(desk), export(desk)
    ids = [{row["profile"] for row in _table(download(desk, made.name))[1]} for made in (first, second)]
    (nobody,), (other,) = (found - set(people) for found in ids)

    traced = desk.call("TraceExport", pb.TraceExportRequest(profile=nobody), caller="user:root@administration")
    assert nobody != other
    assert (traced.name, traced.recipient, traced.purpose) == (first.name, "user:ann", "marketing")
    assert desk.refused("TraceExport", pb.TraceExportRequest(profile=people[0])) == "EXPORT_NOT_FOUND"
    assert desk.refused("GetProfile", profiles_pb2.GetProfileRequest(name=nobody)) == "PROFILE_NOT_FOUND"


def test_only_the_recipient_fetches_a_file_and_only_until_it_expires(desk: Desk, people: list[str]) -> None:
    made = export(desk, expire_hours=1)
    store = desk.service.store
    kept = store.exports.get(made.name.removeprefix("exports/"))
    assert timedelta(minutes=59) < kept.expire_time - datetime.now(UTC) <= timedelta(hours=1)
    assert download(desk, made.name).data
    assert refused(desk, made.name, caller="user:bob@marketing") == grpc.StatusCode.NOT_FOUND
    assert refused(desk, "exports/none") == grpc.StatusCode.NOT_FOUND

    past = datetime.now(UTC) - timedelta(seconds=1)
    store.exports.replace(dataclasses.replace(kept, expire_time=past))
    assert refused(desk, made.name) == grpc.StatusCode.NOT_FOUND
    for document in desk.service.operations._documents.values():
        document["args"] = {**document["args"], "expire_time": past.isoformat()}
        document["wake_at"] = past
    handlers = exporting.Exporter(store, desk.service.vault).handlers()
    while Worker("profiles", handlers, desk.service.operations).run_one():
        pass
    assert store.chunk(f"export-{kept.id}", 0) is None, "the file is gone, not only the link"


def test_each_export_and_each_download_is_audited_with_its_count(desk: Desk, people: list[str]) -> None:
    notes: list[tuple[str, str]] = []
    desk.harness.trail.record = lambda call, plan, resource, code, reason, *rest: notes.append(
        (plan.path.rpartition("/")[2], reason)
    )
    made = export(desk)
    download(desk, made.name)

    told = dict(notes)
    assert told["ExportProfiles"] == f"{made.name} csv"
    assert told["DownloadExport"] == f"{made.name} 5 rows"


def test_exporting_asks_for_a_second_factor_and_a_purpose() -> None:
    method = profiles_pb2.DESCRIPTOR.services_by_name["ProfilesService"].methods_by_name["ExportProfiles"].GetOptions()

    assert method.Extensions[options.step_up] and method.Extensions[options.access].purpose_required


def test_more_than_a_file_holds_is_refused_and_leaves_nothing(desk: Desk, people: list[str], monkeypatch) -> None:
    monkeypatch.setattr(exporting, "MOST_ROWS", 3)
    operation = desk.call("ExportProfiles", pb.ExportProfilesRequest(), **ANN)
    handlers = exporting.Exporter(desk.service.store, desk.service.vault).handlers()
    worker = Worker("profiles", handlers, desk.service.operations)
    while worker.run_one():
        pass
    stub = desk.harness.stub(operations_pb2_grpc.OperationsStub, **ANN)
    done = stub.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=5)

    assert done.done and "narrow by a department" in done.error.message
    assert desk.service.store.exports.page({}, "", 9) == []


# who is in it


def handlers_of(desk: Desk) -> Worker:
    service = desk.service
    eraser = Eraser(service.store, service.vault, others_know_after=0)
    handlers = {**exporting.Exporter(service.store, service.vault).handlers(), **eraser.handlers()}
    return Worker("profiles", handlers, service.operations)


def erase(desk: Desk, name: str) -> None:
    """Erase a person as somebody who may, and let the jobs run."""
    rights, desk.harness.policy.obligations = desk.harness.policy.obligations, ALL_SHOWN
    desk.call("EraseProfile", protection_pb2.EraseProfileRequest(name=name, reason="asked"))
    while handlers_of(desk).run_one():
        pass
    desk.harness.policy.obligations = rights


def test_each_download_tells_the_trail_whose_data_and_which_groups_went_to_whom(
    desk: Desk, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PER_PART", 2)
    made = export(desk)
    desk.harness.trail.seen.clear()
    for _ in range(2):
        download(desk, made.name)

    told = [seen for seen in desk.harness.trail.seen if seen.profiles]
    assert [len(seen.profiles) for seen in told] == [2, 2, 1] * 2
    assert sorted(f"profiles/{one}" for seen in told[:3] for one in seen.profiles) == sorted(people)
    assert {seen.masked for seen in told} == {("personal/contact", "personal/name")}
    assert {seen.shown for seen in told} == {("personal/birth",)}


def test_an_export_that_nobody_fetched_tells_nobody_anything(desk: Desk, people: list[str]) -> None:
    desk.harness.trail.seen.clear()
    export(desk)

    assert not any(seen.profiles for seen in desk.harness.trail.seen)


def test_the_file_with_an_erased_person_is_gone_and_that_without_is_not(desk: Desk, people: list[str]) -> None:
    with_it = export(desk)
    without = export(desk, now=dataclasses.replace(MARKETER, row_filter=(Condition("owner_department", ("service",)),)))
    erase(desk, people[0])

    assert desk.refused("DownloadExport", pb.DownloadExportRequest(name=with_it.name), **ANN) == "EXPORT_WITHDRAWN"
    assert desk.service.store.chunk(exported.file_of(with_it.name[8:]), 0) is None, "the file, not only the link"
    assert list(exported.members(desk.service.store, with_it.name[8:])) == []
    assert download(desk, without.name).data
    again = _table(download(desk, export(desk).name))[1]
    assert not {row["profile"] for row in again} & {people[0]}


def test_a_person_merged_since_and_erased_is_found_in_the_file_by_the_former_name(desk: Desk) -> None:
    one, other = desk.upsert("till", "1", person(1)), desk.upsert("shop", "1", person(2))
    made = export(desk)
    desk.service.taker.merger.merge([part.partition("/")[2] for part in (one, other)], "user:test")
    erase(desk, other)

    assert desk.refused("DownloadExport", pb.DownloadExportRequest(name=made.name), **ANN) == "EXPORT_WITHDRAWN"


def test_whoever_is_erased_while_the_file_is_made_is_in_no_file_that_stays(
    desk: Desk, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(store: object, export_id: str, profile_ids: list[str]) -> None:
        erase(desk, people[0])
        kept(store, export_id, profile_ids)

    kept = exporting.keep_members
    monkeypatch.setattr(exporting, "keep_members", meanwhile)
    made = export(desk)

    assert desk.refused("DownloadExport", pb.DownloadExportRequest(name=made.name), **ANN) == "EXPORT_WITHDRAWN"
    assert desk.service.store.chunk(exported.file_of(made.name[8:]), 0) is None


class Killed(BaseException):
    """The process ends here: nothing catches it."""


def died(desk: Desk, monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> str:
    """Let the worker of an export die in a call; return the export's id."""

    def dies(*_: object) -> None:
        raise Killed

    desk.call("ExportProfiles", pb.ExportProfilesRequest(), **ANN)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(where, name, dies)
        while handlers_of(desk).run_one():
            pass
    (found,) = (item for item in desk.service.operations._documents.values() if item["kind"] == exporting.EXPORT)
    return str(found["args"]["export_id"])


def expired(desk: Desk, *kinds: str) -> None:
    """Let the time of all exports be over and these jobs run."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    for document in desk.service.operations._documents.values():
        document["args"] = {**document["args"], "expire_time": past.isoformat()}
        document["wake_at"] = past if document["kind"] in kinds else past + timedelta(hours=1)
    while handlers_of(desk).run_one():
        pass


@pytest.mark.parametrize("first", [exporting.EXPORT, exporting.EXPIRE])
def test_the_file_of_a_worker_that_died_is_gone_once_the_export_expires(
    desk: Desk, people: list[str], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    file = exported.file_of(died(desk, monkeypatch, desk.service.store.exports, "add_missing"))
    assert desk.service.store.chunk(file, 0) is not None
    expired(desk, first)

    assert desk.service.store.chunk(file, 0) is None
    assert desk.service.store.export_parts.page({}, "", 9) == []


def test_whoever_is_erased_before_a_worker_that_died_comes_again_is_in_no_file_that_stays(
    desk: Desk, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(eraser_module, "withdraw", lambda *_: 0)  # it looked before the export was kept
        export_id = died(desk, monkeypatch, exporting, "checked")
        erase(desk, people[0])
    assert desk.service.store.exports.get(export_id).state == exported.READY
    for document in desk.service.operations._documents.values():
        document["wake_at"] = datetime.now(UTC)
    while handlers_of(desk).run_one():
        pass

    assert desk.service.store.exports.get(export_id).state == exported.WITHDRAWN
    assert desk.service.store.chunk(exported.file_of(export_id), 0) is None


@pytest.mark.parametrize("store", ["memory", "mongo"])
def test_a_person_is_found_in_an_export_of_a_hundred_thousand_by_one_look(
    store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelves = MemoryStore() if store == "memory" else request.getfixturevalue("database").store
    ids = [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(100_000 if store == "memory" else 5_000)]
    exported.keep_members(shelves, "e1", ids)
    exported.keep_members(shelves, "e2", ids[:3])
    reads: list[int] = []
    page = shelves.export_parts.page
    monkeypatch.setattr(shelves.export_parts, "page", lambda *asked: reads.append(asked[2]) or page(*asked))

    inside = [exported.holds(shelves, "e1", one) for one in (min(ids), max(ids), *ids[:20])]
    outside = [exported.holds(shelves, "e1", one) for one in ("0" * 32, "f" * 32, ids[0][:31] + "~")]
    assert (set(inside), set(outside), set(reads)) == ({True}, {False}, {1})
    assert not exported.holds(shelves, "e2", ids[4])
    assert sum(len(part) for part in exported.members(shelves, "e1")) == len(ids)
