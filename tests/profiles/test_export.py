"""An export holds what its recipient sees, for the recipient, for some hours; no cell runs; a leaked file is traced."""

from __future__ import annotations

import csv
import dataclasses
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
from kehu.profiles.v1 import profiles_pb2
from openpyxl import load_workbook

from services.chassis.access import Condition, Obligations
from services.chassis.jobs import Worker
from services.profiles import exporting
from services.profiles.domain.cells import alive, dead, without_controls
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
