"""What reading a file of records promises: every format, honest refusals, bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from services.profiles.errors import FilePacked, FileUnreadable, HeaderInvalid
from services.profiles.intake import FileOptions, Row, open_rows

PEOPLE = "编号,姓名,手机\n1,张三,13812345678\n2,李小明,13987654321\n"


def rows_of(content: bytes, **options: str) -> list[Row]:
    return list(open_rows(io.BytesIO(content), FileOptions(**options)).rows)


def values_of(content: bytes, **options: str) -> list[dict[str, str]]:
    return [dict(row.values) for row in rows_of(content, **options)]


def workbook(*rows: list[object]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def parquet(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


EXPECTED = [
    {"编号": "1", "姓名": "张三", "手机": "13812345678"},
    {"编号": "2", "姓名": "李小明", "手机": "13987654321"},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
def test_csv_is_read_in_the_encodings_chinese_systems_write(encoding: str) -> None:
    assert values_of(PEOPLE.encode(encoding)) == EXPECTED


def test_traditional_text_in_big5_is_not_taken_for_gb18030() -> None:
    text = "編號,姓名,地址\n" + "".join(f"{i},張國榮,臺北市中正區重慶南路一段\n" for i in range(40))

    assert values_of(text.encode("big5"))[0]["姓名"] == "張國榮"


def test_the_encoding_is_found_when_the_first_chinese_letter_comes_late() -> None:
    text = "id,name\n" + "".join(f"{i},ann\n" for i in range(30_000)) + "30000,张三\n"

    assert values_of(text.encode("gb18030"))[-1] == {"id": "30000", "name": "张三"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected_even_when_values_hold_commas(delimiter: str) -> None:
    text = delimiter.join(["id", "address"]) + "\n" + delimiter.join(["1", '"a,b,c"']) + "\n"

    assert values_of(text.encode()) == [{"id": "1", "address": "a,b,c"}]


def test_quoted_line_breaks_stay_within_one_row() -> None:
    assert values_of(b'id,a\n1,"x\ny"\n\n2,z\n') == [{"id": "1", "a": "x\ny"}, {"id": "2", "a": "z"}]


def test_a_row_of_another_width_is_set_apart_and_the_next_is_read() -> None:
    rows = rows_of(b"id,a\n1,x,stray\n2\n3,y\n")

    assert [row.fault for row in rows] == ["ROW_WIDTH", "ROW_WIDTH", ""]
    assert rows[2].number == 3


def test_bytes_that_are_no_characters_set_only_their_row_apart() -> None:
    rows = rows_of("id,a\n1,张\n".encode() + b"2,\xff\xfe\n3,x\n", encoding="utf-8")

    assert [row.fault for row in rows] == ["", "CHARACTERS_UNREADABLE", ""]


@pytest.mark.parametrize("header", ["a,,c", "a,b,a", "", " , "])
def test_an_empty_or_repeated_header_is_refused_by_position(header: str) -> None:
    with pytest.raises((HeaderInvalid, FileUnreadable)):
        rows_of(f"{header}\n1,2,3\n".encode())


def test_a_header_refusal_never_repeats_the_header() -> None:
    with pytest.raises(HeaderInvalid) as refusal:
        rows_of(b"13812345678,13812345678\nx,y\n")

    assert "138" not in refusal.value.message + str(refusal.value.metadata)


def test_excel_numbers_come_as_the_text_their_owner_saw() -> None:
    content = workbook(
        ["编号", "手机", "生日", "更新", "金额"],
        [1, 13812345678, date(1990, 1, 2), datetime(2024, 5, 6, 7, 8, 9), 12.5],
    )

    assert values_of(content) == [
        {"编号": "1", "手机": "13812345678", "生日": "1990-01-02", "更新": "2024-05-06 07:08:09", "金额": "12.5"}
    ]


def test_an_excel_number_that_lost_digits_is_refused_with_its_column() -> None:
    row = rows_of(workbook(["id", "证件"], [1, 110101199001011237]))[0]

    assert (row.fault, row.fault_column) == ("DIGITS_LOST", "证件")


def test_empty_excel_rows_and_trailing_empty_headers_are_ignored() -> None:
    assert values_of(workbook(["id", "a", None], [1, "x", None], [None, None, None], [2, "y", None])) == [
        {"id": "1", "a": "x"},
        {"id": "2", "a": "y"},
    ]


def test_json_lines_flatten_objects_and_join_lists() -> None:
    content = b'{"id":1,"contact":{"phones":["1","2"],"vip":true},"x":null}\n\n{broken\n[1]\n'
    rows = rows_of(content)

    assert dict(rows[0].values) == {"id": "1", "contact.phones": "1;2", "contact.vip": "true", "x": ""}
    assert [row.fault for row in rows] == ["", "ROW_UNREADABLE", "ROW_UNREADABLE"]


def test_parquet_is_read_with_dates_and_missing_values() -> None:
    content = parquet({"id": [1, 2], "born": [date(1990, 1, 2), None], "name": ["张三", None]})

    assert values_of(content) == [
        {"id": "1", "born": "1990-01-02", "name": "张三"},
        {"id": "2", "born": "", "name": ""},
    ]


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("people.csv", PEOPLE)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [gzip.compress(PEOPLE.encode()), bz2.compress(PEOPLE.encode()), zipped(), b"7z\xbc\xaf\x27\x1c" + b"0" * 40],
)
def test_archives_and_compressed_files_are_refused(content: bytes) -> None:
    with pytest.raises(FilePacked):
        rows_of(content, file_name="people.csv")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\xd0\xcf\x11\xe0" + b"0" * 600, b"PK\x03\x04cut", workbook(["a"], ["b"])[:-200],
     parquet({"a": [1]})[:-6], bytes(range(256)) * 8],
)  # fmt: skip
def test_damaged_and_unknown_files_are_refused(content: bytes) -> None:
    with pytest.raises((FileUnreadable, HeaderInvalid, FilePacked)):
        rows_of(content)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b'[{"id": 1}, {"id": 2}]', "json"), (b'\xef\xbb\xbf[\n  {"id": 1}]', "json"), (b"[]", "json"),
        (b"<html><body><table><tr><td>id</td></tr></table>", "markup"), (b"<Table border=1>", "markup"),
        (b'\n<?xml version="1.0"?><Workbook>', "markup"),
    ],
)  # fmt: skip
def test_a_page_or_an_array_that_is_called_a_workbook_is_refused_with_what_to_do(content: bytes, cause: str) -> None:
    with pytest.raises(FileUnreadable) as refused:
        rows_of(content, file_name="report.xls")

    assert refused.value.metadata["cause"] == cause


def test_a_header_that_begins_with_a_bracket_is_a_header() -> None:
    assert values_of("[id],name\n1,张三\n".encode()) == [{"[id]": "1", "name": "张三"}]


def test_a_workbook_that_unpacks_to_too_much_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"0" * 60_000_000)

    with pytest.raises(FileUnreadable, match="unpacks"):
        rows_of(out.getvalue())


class Endless(io.RawIOBase):
    """A CSV file of so many bytes that it must not be held."""

    def __init__(self, rows: int) -> None:
        self._rows, self._at, self.read_bytes = rows, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        line = b"id,name\n" if self._at == 0 else b"12345678,abcdefghijklmnopqrstuvwxyz\n"
        if self.read_bytes > self._rows * len(line):
            return 0
        part = (line * (len(buffer) // len(line) or 1))[: len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        self.read_bytes += len(part)
        return len(part)


def test_rows_are_read_as_they_are_asked_for() -> None:
    file = Endless(10_000_000)
    rows: Iterator[Row] = open_rows(io.BufferedReader(file), FileOptions(encoding="utf-8", delimiter=",")).rows
    next(rows)

    assert file.read_bytes < 1_000_000


def test_a_line_without_end_is_refused_instead_of_held() -> None:
    with pytest.raises(FileUnreadable, match="line"):
        rows_of(b"id,name\n1," + b"x" * 3_000_000)
