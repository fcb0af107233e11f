"""Files as they really come: each of these has lost or falsified somebody's customers before."""

from __future__ import annotations

import csv
import io
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from datetime import UTC, date, datetime
from pathlib import Path

import openpyxl
import openpyxl.utils.datetime as excel
import pyarrow
import pyarrow.parquet
import pytest

from services.profiles.admission import entry_of
from services.profiles.domain.sources import ColumnMapping, SourceSettings, read_row
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import Severity, StandardRecord
from services.profiles.errors import FilePacked, FileUnreadable, HeaderInvalid
from services.profiles.intake import FAULTS, FileOptions, Row, open_rows
from services.profiles.intake.rows import check_header
from services.profiles.intake.sheets import MAX_CELLS
from services.profiles.intake.tables import open_parquet

NOW = datetime(2025, 6, 1, tzinfo=UTC)
COLUMNS = ("编号", "姓名", "手机", "证件", "生日")
FIELDS = ("source_record_id", "name", "phone", "resident_id", "birth_date")
SETTINGS = SourceSettings("till", tuple(map(ColumnMapping, COLUMNS, FIELDS)))


def rows_of(content: bytes, **options: str) -> list[Row]:
    return list(open_rows(io.BytesIO(content), FileOptions(**options)).rows)


def faults_of(content: bytes, **options: str) -> list[str]:
    return [row.fault for row in rows_of(content, **options)]


def reasons_of(row: Row) -> set[str]:
    """Return why a row is set apart, by the path every import takes."""
    if row.fault:
        return {row.fault}
    record = standardize(read_row(SETTINGS, entry_of(row).values, NOW), SETTINGS)
    return {item.reason for item in record.problems if item.severity is Severity.REJECT}


def record_of(row: Row) -> StandardRecord:
    return standardize(read_row(SETTINGS, row.values, NOW), SETTINGS)


def csv_rows(*lines: str, encoding: str = "utf-8") -> list[Row]:
    return rows_of("\n".join([",".join(COLUMNS), *lines, ""]).encode(encoding))


def book(*rows: list[object], epoch: datetime | None = None) -> openpyxl.Workbook:
    made = openpyxl.Workbook()
    if epoch is not None:
        made.epoch = epoch
    for row in rows:
        made.active.append(row)
    return made


def saved(made: openpyxl.Workbook) -> bytes:
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def with_sheet(xml: str) -> bytes:
    """Return a workbook whose sheet is this XML, as other writers than Excel's make it."""
    source = zipfile.ZipFile(io.BytesIO(saved(book(["x"]))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, xml if name == "xl/worksheets/sheet1.xml" else source.read(name))
    return out.getvalue()


def sheet_xml(*rows: str) -> str:
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<?xml version="1.0"?><worksheet xmlns="{space}"><sheetData>{"".join(rows)}</sheetData></worksheet>'


def text_row(number: int, *texts: str) -> str:
    cells = "".join(f'<c r="{chr(65 + at)}{number}" t="str"><v>{text}</v></c>' for at, text in enumerate(texts))
    return f'<row r="{number}">{cells}</row>'


@pytest.mark.parametrize("phone", ["1.38E+10", "1.38123E+10", "1.38e10", "1.38Ｅ+10", " 1.38E+10 "])
def test_a_phone_that_a_spreadsheet_rounded_is_refused_with_that_reason(phone: str) -> None:
    (row,) = csv_rows(f"1,张三,{phone},,")

    assert "PHONE_DIGITS_LOST" in reasons_of(row)


def test_a_phone_cell_that_shows_as_scientific_but_is_whole_is_taken() -> None:
    made = book([*COLUMNS], [1, "张三", 13812345670, None, None])
    made.active["C2"].number_format = "0.00E+00"
    (row,) = rows_of(saved(made))

    assert [phone.number for phone in record_of(row).phones] == ["+8613812345670"]


def test_numbers_stored_as_text_and_texts_stored_as_number_read_the_same() -> None:
    as_text, as_number = rows_of(saved(book([*COLUMNS], ["7", "张三", "13812345670"], [7, "张三", 13812345670.0])))

    assert dict(as_text.values) == dict(as_number.values)


@pytest.mark.parametrize(("column", "text"), [("编号", "1.23457E+11"), ("证件", "1.10101E+17")])
def test_a_rounded_record_id_or_document_is_refused_for_it_would_join_strangers(column: str, text: str) -> None:
    values = {"编号": "1", "姓名": "张三", "手机": "13812345670", column: text}
    (row,) = csv_rows(",".join(values.get(name, "") for name in COLUMNS))

    assert reasons_of(row) == {"DIGITS_LOST"}


@pytest.mark.parametrize("epoch", [excel.WINDOWS_EPOCH, excel.CALENDAR_MAC_1904])
def test_excel_dates_are_the_day_their_owner_saw_in_both_calendars(epoch: datetime) -> None:
    (row,) = rows_of(saved(book([*COLUMNS], ["1", "张三", "13812345670", None, date(1990, 1, 2)], epoch=epoch)))

    assert row.values["生日"] == "1990-01-02"


def test_an_excel_date_that_lost_its_format_is_still_that_day() -> None:
    (row,) = rows_of(saved(book([*COLUMNS], ["1", "张三", "13812345670", None, 32875])))

    assert record_of(row).birth_date == "1990-01-02"


def test_rows_within_merged_cells_are_set_apart_and_never_guessed() -> None:
    made = book(["id", "姓名", "部门"], [1, "张三", "市场"], [2, "李四", None], [3, "王五", "财务"])
    made.active.merge_cells("C2:C3")
    rows = rows_of(saved(made))

    assert [row.fault for row in rows] == ["CELLS_MERGED", "CELLS_MERGED", ""]
    assert rows[0].fault_column == "部门"
    assert rows[1].values["姓名"] == "李四"


def test_a_merged_title_above_the_header_is_refused_as_such() -> None:
    made = book(["客户名单", None, None], ["id", "姓名", "手机"], [1, "张三", 13812345670])
    made.active.merge_cells("A1:C1")

    with pytest.raises(HeaderInvalid, match="merged"):
        rows_of(saved(made))


def test_blank_rows_above_the_header_are_skipped() -> None:
    assert dict(rows_of(saved(book([], [None, None], ["id", "a"], [1, "x"])))[0].values) == {"id": "1", "a": "x"}


def test_many_merged_ranges_are_looked_up_in_order() -> None:
    made = book(["id", "a"], *([number, "x"] for number in range(2, 402)))
    for number in range(2, 402, 4):
        made.active.merge_cells(f"A{number}:A{number + 1}")
    faults = faults_of(saved(made))

    assert faults == ["CELLS_MERGED", "CELLS_MERGED", "", ""] * 100


def test_a_formula_without_a_stored_result_is_refused_and_never_evaluated() -> None:
    made = book(["id", "a"], [1, "=1+1"], ['=HYPERLINK("http://x","y")', None], [3, "z"])
    rows = rows_of(saved(made))

    assert [row.fault for row in rows] == ["FORMULA_NOT_CALCULATED", "FORMULA_NOT_CALCULATED", ""]
    assert [row.fault_column for row in rows] == ["a", "id", ""]


def test_a_formula_with_a_stored_result_gives_that_result_whatever_it_would_be_today() -> None:
    cells = '<c r="A2"><f>1+1</f><v>7</v></c><c r="B2" t="str"><f>IF(1,"","x")</f><v></v></c>'
    (row,) = rows_of(with_sheet(sheet_xml(text_row(1, "id", "a"), f'<row r="2">{cells}</row>')))

    assert (row.fault, dict(row.values)) == ("", {"id": "7", "a": ""})


def test_text_that_looks_like_a_formula_stays_text() -> None:
    rows = rows_of(b'id,a\n1,"=1+1"\n2,"@SUM(1)"\n')

    assert [row.values["a"] for row in rows] == ["=1+1", "@SUM(1)"]


def test_a_formula_error_sets_its_row_apart() -> None:
    cells = '<c r="A2" t="str"><v>1</v></c><c r="B2" t="e"><f>1/0</f><v>#DIV/0!</v></c>'

    assert faults_of(with_sheet(sheet_xml(text_row(1, "id", "a"), f'<row r="2">{cells}</row>'))) == ["CELL_ERROR"]


@pytest.mark.parametrize("last", ["XFD1048576", "A1048576"])
def test_a_sheet_that_reaches_further_than_its_cells_never_fills_the_memory(last: str) -> None:
    number = last.lstrip("XFDA")
    content = with_sheet(
        sheet_xml(text_row(1, "id", "a"), f'<row r="{number}"><c r="{last}" t="str"><v>1</v></c></row>')
    )
    if last.startswith("X"):
        with pytest.raises(FileUnreadable, match="unpacks"):
            rows_of(content)
    else:
        assert 1_048_576 * 2 < MAX_CELLS
        assert len(rows_of(content)) == 1


def lying(content: bytes, name: str, size: int) -> bytes:
    """Return a workbook whose directory says that a member unpacks to `size` bytes."""
    at = content.index(b"PK\x01\x02")
    out = bytearray(content)
    while out[at : at + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<HHH", out, at + 28)
        if out[at + 46 : at + 46 + lengths[0]] == name.encode():
            struct.pack_into("<I", out, at + 24, size)
        at += 46 + sum(lengths)
    return bytes(out)


def test_a_workbook_that_lies_about_its_unpacked_size_is_refused() -> None:
    content = with_sheet(sheet_xml(text_row(1, "id", "a"), *(text_row(n, str(n), "x" * 900) for n in range(2, 9000))))

    with pytest.raises(FileUnreadable):
        rows_of(lying(content, "xl/worksheets/sheet1.xml", 1000))


def test_entities_that_multiply_are_refused() -> None:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    xml = sheet_xml(text_row(1, "id", "a"), text_row(2, "1", "&e8;"))
    bomb = xml.replace("<worksheet", f'<!DOCTYPE w [<!ENTITY e0 "{"x" * 100}">{levels}]><worksheet', 1)

    with pytest.raises(FileUnreadable):
        rows_of(with_sheet(bomb))


def zip_of(content: bytes, levels: int) -> bytes:
    for _ in range(levels):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("people.csv", content)
        content = out.getvalue()
    return content


@pytest.mark.parametrize("name", ["people.csv", "people.xlsx", "people.jsonl", ""])
def test_a_zip_bomb_is_refused_unopened_whatever_its_name(name: str) -> None:
    with pytest.raises(FilePacked):
        rows_of(zip_of(b"0" * 30_000_000, 3), file_name=name)


def test_a_deflated_stream_without_a_name_is_no_text() -> None:
    with pytest.raises((FilePacked, FileUnreadable, HeaderInvalid)):
        rows_of(zlib.compress(b"id,name\n1,x\n" * 1000))


def test_an_empty_header_within_and_a_repeated_one_are_refused_in_a_workbook_too() -> None:
    for header in (["id", None, "a"], ["id", "a", "a "]):
        with pytest.raises(HeaderInvalid):
            rows_of(saved(book(header, [1, 2, 3])))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "big5"])
def test_each_encoding_is_found_with_and_without_its_mark(encoding: str) -> None:
    text = "編號,姓名\r\n" + "".join(f"{n},張國榮\r\n" for n in range(40))
    rows = rows_of(text.encode(encoding))

    assert (len(rows), dict(rows[0].values)) == (40, {"編號": "0", "姓名": "張國榮"})


def test_rows_of_another_encoding_in_a_file_put_together_are_set_apart_not_garbled() -> None:
    head, good, other = "id,姓名\n", "1,张三\n2,李四\n3,王五\n", "4,赵六\n"
    mostly_utf8 = (head + good).encode() + other.encode("gb18030")
    mostly_gbk = (head + good).encode("gb18030") + other.encode()

    for content in (mostly_utf8, mostly_gbk):
        rows = rows_of(content)
        assert [row.fault for row in rows] == ["", "", "", "CHARACTERS_UNREADABLE"]
        assert [row.values["姓名"] for row in rows[:3]] == ["张三", "李四", "王五"]


@pytest.mark.parametrize(("written", "stated"), [("utf-8", "gb18030"), ("utf-8", "latin-1"), ("gb18030", "utf-8")])
def test_a_wrongly_stated_encoding_lets_no_garbled_name_in(written: str, stated: str) -> None:
    content = "id,姓名\n1,张三\n2,欧阳小明\n".encode(written)

    try:
        faults = faults_of(content, encoding=stated)
    except HeaderInvalid:
        return
    assert set(faults) == {"CHARACTERS_UNREADABLE"}


@pytest.mark.parametrize("encoding", ["hex", "rot13", "undefined", "idna", "no-such"])
def test_an_encoding_that_is_none_of_text_is_refused(encoding: str) -> None:
    with pytest.raises(FileUnreadable, match="encoding"):
        rows_of(b"id,name\n1,x\n", encoding=encoding)


@pytest.mark.parametrize("times", [[1], [10**18 - 1]])
def test_a_parquet_file_with_times_beyond_ours_is_refused_with_what_to_do(times: list[int]) -> None:
    unit = "ns" if times == [1] else "us"
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "at": pyarrow.array(times, pyarrow.timestamp(unit))}), file)
    file.seek(0)
    with pytest.raises(FileUnreadable, match="time"):
        list(open_parquet(file)[1])


def test_marks_and_headers_within_a_file_put_together_are_seen() -> None:
    part = "\ufeffid,姓名\n{},张三\n"
    rows = rows_of((part.format(1) + part.format(2)).encode())

    assert [row.fault for row in rows] == ["", "HEADER_REPEATED", ""]
    assert [row.values["id"] for row in rows] == ["1", "id", "2"]


def test_a_quote_left_open_costs_its_own_row_only() -> None:
    lines = [f"{number},x" for number in range(1, 1001)]
    lines[499] = '500,"x'
    rows = rows_of(("id,a\n" + "\n".join(lines) + "\n").encode())

    assert [row.number for row in rows if row.fault] == [500]
    assert rows[499].fault == "ROW_UNREADABLE"
    assert [row.values["id"] for row in rows if not row.fault] == [str(n) for n in range(1, 1001) if n != 500]


def test_a_quote_left_open_in_the_last_row_is_no_value() -> None:
    rows = rows_of(b'id,a\n1,x\n2,"y\n')

    assert [row.fault for row in rows] == ["", "ROW_UNREADABLE"]
    assert list(rows[1].values.values()) == ['2,"y']


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_newline_and_quoted_newlines_are_read(newline: str) -> None:
    text = newline.join(["id,a", '1,"x\ny"', '2,"say ""hi"""', "3,z", ""])

    assert [row.values["a"] for row in rows_of(text.encode())] == ["x\ny", 'say "hi"', "z"]


def test_what_csv_writes_is_read_back_whole() -> None:
    values = ["a,b", 'quote " within', "line\nbreak", "  blanks  ", "中文；全角，", "tab\there", "'", ""]
    out = io.StringIO()
    csv.writer(out).writerows([["id", "a"], *([number, value] for number, value in enumerate(values, start=1))])

    assert [row.values["a"] for row in rows_of(out.getvalue().encode())] == values


def test_every_fault_says_what_to_do() -> None:
    assert all(text.endswith(".") and len(text) > 20 for text in FAULTS.values())


READ = """
import io, resource, sys
from services.profiles.intake import FileOptions, open_rows
class Made(io.RawIOBase):
    line = "{:09d},欧阳小明,13812345670,,1990-01-02\\n".encode("gb18030").replace(b"{:09d}", b"%09d")
    def __init__(self, rows):
        self.head = "编号,姓名,手机,证件,生日\\n".encode("gb18030")
        self.width, self.rows, self.at = len(self.line % 0), rows, 0
    readable = seekable = lambda self: True
    def tell(self):
        return self.at
    def seek(self, offset, whence=0):
        self.at = offset
        return offset
    def readinto(self, buffer):
        if self.at < len(self.head):
            part = self.head[self.at :][: len(buffer)]
        else:
            number, offset = divmod(self.at - len(self.head), self.width)
            last = min(self.rows, number + len(buffer) // self.width + 2)
            part = b"".join(self.line % n for n in range(number, last))[offset:][: len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)
rows = int(sys.argv[1])
found = sum(1 for row in open_rows(io.BufferedReader(Made(rows), 65536), FileOptions()).rows if not row.fault)
print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(rows: int) -> int:
    """Return the most memory a process of its own holds while it reads so many rows made as they are read."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", READ, str(rows)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    found, peak = map(int, done.stdout.split())
    assert found == rows, done.stderr
    return peak


def test_memory_does_not_grow_with_the_rows_of_a_file() -> None:
    """400,000 rows more are 18 MB of file; held as rows they would be 250 MB."""
    assert peak_kib(420_000) - peak_kib(20_000) < 8 * 1024


def test_a_line_of_json_nested_however_deep_is_its_own_row_set_apart_and_the_next_is_read() -> None:
    deep = b"".join(b'{"id": "%d", "a": %s1%s}\n' % (depth, b"[" * depth, b"]" * depth) for depth in (3, 4, 900))
    assert faults_of(deep + b'{"id": "2"}\n') == ["", "ROW_NESTED", "ROW_NESTED", ""]


def test_a_header_of_a_hundred_thousand_columns_costs_no_more_than_its_length() -> None:
    started = time.process_time()
    check_header([f"c{number}" for number in range(100_000)])
    assert time.process_time() - started < 5, "it was minutes when each column was compared with all before it"


def test_a_parquet_file_of_some_kilobytes_does_not_unpack_to_gigabytes() -> None:
    texts, rows = pyarrow.array(["汉" * 200_000]), pyarrow.array([0] * 500, pyarrow.int32())
    packed = pyarrow.DictionaryArray.from_arrays(rows, texts)
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": [str(n) for n in range(500)], "note": packed}), content)
    assert content.tell() < 1_000_000
    with pytest.raises(FileUnreadable) as caught:
        rows_of(content.getvalue())
    assert caught.value.metadata["cause"] == "unpacked size"


def test_texts_that_a_parquet_file_keeps_as_bytes_are_read_and_what_is_no_text_is_set_apart() -> None:
    content, names = io.BytesIO(), ["张三".encode(), "张三".encode("gb18030")]
    pyarrow.parquet.write_table(pyarrow.table({"姓名": pyarrow.array(names, pyarrow.binary())}), content)
    first, second = rows_of(content.getvalue())
    assert (first.fault, first.values["姓名"], second.fault) == ("", "张三", "CHARACTERS_UNREADABLE")
