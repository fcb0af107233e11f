"""Mappings: a closed list of steps, tried on a preview, suggested by names and contents."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import openpyxl
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from kehu.profiles.v1 import intake_pb2, profiles_pb2, profiles_pb2_grpc, resources_pb2

from services.chassis.access import Obligations
from services.profiles.domain.mapping import (
    CLEAR,
    KEEP,
    LONGEST,
    REFUSE,
    Concatenate,
    Constant,
    DateOrder,
    Replace,
    Split,
    Transform,
    Trim,
    ValueMap,
)
from services.profiles.domain.sources import ColumnMapping, SourceSettings, read_row
from services.profiles.intake.mapping import domain_mapping, stored_mapping
from services.profiles.intake.preview import PREVIEW_BYTES, PREVIEW_ROWS
from services.profiles.intake.suggestions import suggest
from tests.harness import Harness
from tests.profiles.people import MAPPING, Service, csv_of, person, source_request, upload

NOW = datetime(2025, 6, 1, tzinfo=UTC)
Stub = profiles_pb2_grpc.ProfilesServiceStub
STEPS: list[tuple[Transform, str, str]] = [
    (Trim(), "\u3000 张三\u200b ", "张三"),
    (Trim("*#"), "#张三*", "张三"),
    (Split("/", 1), "张三/13812345670", "张三"),
    (Split("/", -1), "张三/13812345670", "13812345670"),
    (Split("/", 3), "张三/13812345670", ""),
    (Split("/", -3), "张三/13812345670", ""),
    (Concatenate(("区", "无此列"), "-"), "杭州", "杭州-西湖"),
    (Concatenate(("区",)), "", "西湖"),
    (Constant("gold"), "anything", "gold"),
    (Replace(".", "-"), "1990.1.2", "1990-1-2"),
    (ValueMap({"1": "男"}, KEEP), "7", "7"),
    (ValueMap({"1": "男"}, CLEAR), "7", ""),
    (ValueMap({"1": "男"}, REFUSE), " 1 ", "男"),
    (DateOrder("dmy"), "2/1/1990", "1990-01-02"),
    (DateOrder("mdy"), "2/1/1990", "1990-02-01"),
    (DateOrder("dmy"), "no date", "no date"),
    (DateOrder("dmy"), "05/01/90", "1990-01-05"),
    (DateOrder("ymd"), "2060-01-05", "2060-01-05"),
]


@pytest.mark.parametrize(("step", "text", "expected"), STEPS)
def test_each_step_does_what_it_says(step: Transform, text: str, expected: str) -> None:
    assert step.apply(text, {"区": "西湖"}) == expected


def test_replacements_upon_replacements_do_not_grow_a_text_without_end() -> None:
    grown = ColumnMapping("a", "note", (Replace("a", "a" * 200),) * 3).read({"a": "a"})
    assert grown == "a" * LONGEST, "a mapping may have twenty: 200 to the power of 20 characters"


@given(st.text(max_size=80), st.sampled_from([step for step, _, _ in STEPS if step != ValueMap({"1": "男"}, REFUSE)]))
def test_no_text_makes_a_step_fail(text: str, step: Transform) -> None:
    assert isinstance(step.apply(text, {"区": text}), str)


def settings(*mapping: ColumnMapping) -> SourceSettings:
    return SourceSettings("till", (ColumnMapping("id", "source_record_id"), *mapping))


def test_steps_run_in_order_and_one_column_may_feed_two_fields() -> None:
    mapping = (
        ColumnMapping("联系", "name", (Split("/", 1), Trim())),
        ColumnMapping("联系", "phone", (Split("/", 2), Replace("-", ""))),
        ColumnMapping("none", "tier", (Constant("gold"),)),
    )
    raw = read_row(settings(*mapping), {"id": "1", "联系": " 张三 /138-1234-5670"}, NOW)

    assert dict(raw.fields) == {"name": "张三", "phone": "13812345670", "tier": "gold"}


def test_a_value_that_is_not_listed_refuses_its_row_and_names_the_field() -> None:
    mapping = ColumnMapping("性别", "gender", (ValueMap({"1": "男"}, REFUSE),))
    raw = read_row(settings(mapping), {"id": "1", "性别": "7"}, NOW)

    assert [(item.field, item.reason) for item in raw.problems] == [("gender", "VALUE_NOT_LISTED")]


def test_every_step_of_the_contract_survives_storing_and_reaches_the_domain() -> None:
    text = """
        column: "c" field: "name"
        transforms { trim { characters: "*" } } transforms { split { delimiter: "." take: -2 } }
        transforms { concatenate { columns: "a" columns: "b" separator: " " } } transforms { constant: "x" }
        transforms { replace { find: "$" with: "." } } transforms { date_order: "mdy" }
        transforms { value_map { values { key: "a.b" value: "$c" } otherwise: OTHERWISE_CLEAR } }
    """
    (mapping,) = domain_mapping(stored_mapping([text_format.Parse(text, resources_pb2.ColumnMapping())]))

    assert mapping.transforms == (
        Trim("*"), Split(".", -2), Concatenate(("a", "b"), " "), Constant("x"), Replace("$", "."), DateOrder("mdy"),
        ValueMap({"a.b": "$c"}, CLEAR),
    )  # fmt: skip


def sent(content: bytes, **header: object) -> Iterator[intake_pb2.PreviewImportRequest]:
    yield intake_pb2.PreviewImportRequest(header=intake_pb2.PreviewImportHeader(name="sources/till", **header))
    for start in range(0, len(content), 500_000):
        yield intake_pb2.PreviewImportRequest(chunk=content[start : start + 500_000])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, Harness]]:
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        harness.stub(Stub).CreateSource(source_request(), timeout=10)
        yield service, harness


def tried(harness: Harness, content: bytes, **header: object) -> intake_pb2.PreviewImportResponse:
    return harness.stub(Stub).PreviewImport(sent(content, **header), timeout=30)


def nothing_written(service: Service) -> bool:
    store = service.store
    return not (store.page_profiles("", 10, ()) or store.rejects.page({}, "", 10) or store._chunks or store.facts)


def test_a_preview_tells_what_the_first_rows_become_and_writes_nothing(served: tuple[Service, Harness]) -> None:
    service, harness = served
    bad = "x1,,王五,1.38E+10,,,\n".encode("gb18030")
    head, _, rows = csv_of(range(150)).partition(b"\n")
    found = tried(harness, head + b"\n" + bad + rows)

    assert (found.format, found.encoding, found.rows_read, found.rows_rejected) == ("csv", "gb18030", 100, 1)
    assert found.rows[0].problems[0].reason in found.rates_by_reason
    assert found.rates_by_reason["PHONE_DIGITS_LOST"] == pytest.approx(0.01)
    good = found.rows[1]
    assert (good.accepted, good.row_number, good.source_record_id) == (True, 2, "0")
    assert good.profile.display_name == person(0)["name"]
    assert good.profile.address.city_code == "330100"
    assert nothing_written(service)


def test_a_preview_says_of_each_row_what_the_import_then_does(served: tuple[Service, Harness]) -> None:
    service, harness = served
    content = csv_of(range(40)) + "x1,,王五,1.38E+10,,,\nx2,,,,,,\n,,张三,13912345670,,,\nx3,1\n".encode("gb18030")
    preview = tried(harness, content)
    operation = harness.stub(Stub).ImportRecords(upload("till", content), timeout=30)
    service.worker().run_one()
    response = resources_pb2.ImportRecordsResponse()
    service.jobs.get(operation.name, "data-office").response.Unpack(response)
    rejected = {item.row_number for item in service.store.rejects.page({}, "", 100)}

    assert {row.row_number for row in preview.rows if not row.accepted} == rejected == {41, 42, 43, 44}
    assert preview.rows_rejected == response.summary.rows_rejected


def test_a_preview_shows_fields_by_the_rights_of_its_caller(served: tuple[Service, Harness]) -> None:
    _, harness = served
    harness.policy.obligations = Obligations(masked=frozenset({"personal/name", "personal/contact"}))
    profile = tried(harness, csv_of(range(1))).rows[0].profile

    assert profile.display_name == person(0)["name"][0] + "**"
    assert "****" in profile.phones[0]
    assert profile.address.text == ""


def test_a_draft_is_tried_without_touching_the_mapping(served: tuple[Service, Harness]) -> None:
    service, harness = served
    update = profiles_pb2.UpdateSourceRequest()
    update.source.name = "sources/till"
    for column, field in MAPPING[:3]:
        item = update.source.draft_mapping.add(column=column, field=field)
    item.transforms.add().replace.find = "赵"
    harness.stub(Stub).UpdateSource(update, timeout=10)
    draft, live = (tried(harness, csv_of(range(1)), draft=flag).rows[0] for flag in (True, False))

    assert draft.profile.display_name != live.profile.display_name == person(0)["name"]
    assert list(draft.profile.phones) == [] != list(live.profile.phones)
    assert [row[:2] for row in service.store.sources.get("till").mapping] == [list(item) for item in MAPPING]


def test_a_source_without_a_mapping_is_tried_with_what_its_columns_suggest(served: tuple[Service, Harness]) -> None:
    _, harness = served
    request = profiles_pb2.CreateSourceRequest(source_id="new")
    request.source.owner_department = "sales"
    harness.stub(Stub).CreateSource(request, timeout=10)
    found = tried(harness, csv_of(range(30)))
    header = intake_pb2.PreviewImportHeader(name="sources/new")
    parts = [intake_pb2.PreviewImportRequest(header=header), intake_pb2.PreviewImportRequest(chunk=csv_of(range(30)))]
    new = harness.stub(Stub).PreviewImport(iter(parts), timeout=30)

    assert sorted((item.column, item.field) for item in new.mapping) == sorted(MAPPING)
    assert [row.profile for row in new.rows] == [row.profile for row in found.rows]
    assert new.rows_rejected == 0


def test_a_preview_of_a_workbook_reads_it_and_one_cut_off_is_refused(served: tuple[Service, Harness]) -> None:
    _, harness = served
    book = openpyxl.Workbook()
    for row in ([column for column, _ in MAPPING], ["1", None, "张三", 13812345670, None, None, None]):
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)

    assert tried(harness, out.getvalue()).rows[0].profile.phones == ["+8613812345670"]
    with pytest.raises(grpc.RpcError) as refusal:
        tried(harness, out.getvalue() + b"\0" * PREVIEW_BYTES)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_of_a_long_csv_only_the_first_part_is_kept(served: tuple[Service, Harness]) -> None:
    _, harness = served
    rows = csv_of(range(100))
    found = tried(harness, rows + rows.split(b"\n")[1] * (PREVIEW_BYTES // 80))

    assert found.rows_read == PREVIEW_ROWS


def test_a_preview_without_a_header_or_source_is_refused(served: tuple[Service, Harness]) -> None:
    _, harness = served
    for parts in ([intake_pb2.PreviewImportRequest(chunk=b"x")], list(sent(b"a,b\n"))[1:]):
        with pytest.raises(grpc.RpcError) as refusal:
            harness.stub(Stub).PreviewImport(iter(parts), timeout=10)
        assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def cells(*columns: str) -> list[dict[str, str]]:
    fields = ("name", "phone", "email", "birth_date", "address")
    return [dict(zip(columns, (person(n)[field] for field in fields), strict=True)) for n in range(30)]


@pytest.mark.parametrize(
    "columns",
    [
        ("姓名", "手机号", "邮箱", "出生日期", "详细地址"),
        ("Customer_Name", "mobile no.", "E-Mail", "DOB", "Address"),
        ("客户姓名*", "联系电话（必填）", "电子邮箱", "生日", "收货地址"),
        ("A", "B", "C", "D", "E"),
    ],
)
def test_columns_are_told_by_chinese_and_english_names_and_by_contents_alone(columns: tuple[str, ...]) -> None:
    found = {item.column: item.field for item in suggest(columns, cells(*columns))}

    assert [found.get(column) for column in columns] == ["name", "phone", "email", "birth_date", "address"]


def test_a_name_that_its_contents_contradict_is_not_believed() -> None:
    rows = [{"id": str(n), "姓名": person(n)["phone"], "备注": "x"} for n in range(20)]
    found = {item.column: (item.field, item.by) for item in suggest(("id", "姓名", "备注"), rows)}

    assert found == {"id": ("source_record_id", "name"), "姓名": ("phone", "content")}


def test_an_id_that_repeats_is_not_suggested_as_record_id() -> None:
    rows = [{"编号": "1", "member_id": str(n)} for n in range(20)]
    found = {item.column: item.field for item in suggest(("编号", "member_id"), rows)}

    assert found == {"member_id": "source_record_id"}


def test_the_columns_of_a_preview_that_are_looked_at_are_bounded() -> None:
    columns = tuple(f"c{number}" for number in range(60_000))
    started = time.process_time()
    assert suggest(("手机", *columns), [{"手机": "13912345671", **dict.fromkeys(columns, "1")}])[0].field == "phone"
    assert time.process_time() - started < 1, "32 MiB of short cells would take minutes"
