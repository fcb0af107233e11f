"""Tell a file's format by its first bytes, refuse what is packed, and open the right reader."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from services.profiles.errors import FilePacked, FileUnreadable
from services.profiles.intake.rows import Row
from services.profiles.intake.tables import open_parquet, open_xlsx
from services.profiles.intake.text import open_csv, open_json_lines

PACKED = (
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07",
    b"\x04\x22\x4d\x18",
)  # fmt: skip
ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0"
PARQUET = b"PAR1"
_JSON_ARRAY = re.compile(rb"\[\s*(?:[{\]]|$)")
_MARKUP = re.compile(rb"<(?:[?!]|html|head|table|body|div|style|workbook)", re.IGNORECASE)
ENDINGS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".xlsx": "xlsx", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the sender says of a file; empty means detect."""

    file_name: str = ""
    format: str = ""
    encoding: str = ""
    delimiter: str = ""
    sheet: str = ""


@dataclass(frozen=True, slots=True)
class RowSource:
    """An opened file: what it is, its columns (empty for JSON Lines, whose rows name their own) and its rows."""

    format: str
    encoding: str
    columns: tuple[str, ...]
    rows: Iterator[Row]


def open_rows(file: BinaryIO, options: FileOptions) -> RowSource:
    """Open a seekable file of records.

    Raises:
        FilePacked: an archive or a compressed file.
        FileUnreadable: no known format, damaged, or not of the format stated.
        HeaderInvalid: the header row is missing or ambiguous.
    """
    found = tell_format(file, options.file_name)
    if options.format and options.format != found and not _both_text(options.format, found):
        raise FileUnreadable(f"the file is not {options.format} but {found}", metadata={"cause": "format"})
    wanted = options.format or found
    file.seek(0)
    if wanted == "xlsx":
        columns, rows = open_xlsx(file, options.sheet)
        return RowSource("xlsx", "", columns, rows)
    if wanted == "parquet":
        columns, rows = open_parquet(file)
        return RowSource("parquet", "", columns, rows)
    if wanted == "jsonl":
        return RowSource("jsonl", "utf-8", (), open_json_lines(file))
    opened = open_csv(file, options.encoding, options.delimiter)
    return RowSource("csv", opened.encoding, opened.columns, opened.rows)


def _both_text(one: str, other: str) -> bool:
    return {one, other} <= {"csv", "jsonl"}


def tell_format(file: BinaryIO, file_name: str) -> str:
    """Return csv, xlsx, jsonl or parquet by the file's content, and by its name where content leaves it open."""
    file.seek(0)
    head = file.read(512)
    if not head.strip():
        raise FileUnreadable("the file is empty", metadata={"cause": "empty"})
    if head.startswith(PACKED) or head[257:262] == b"ustar":
        raise FilePacked("unpack the file first and send what is in it", metadata={"cause": "compressed"})
    if head.startswith(OLE):
        raise FileUnreadable("this is an old or encrypted Excel file; save it as .xlsx without a password",
                             metadata={"cause": "xls"})  # fmt: skip
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith(ZIP):
        return _check_xlsx(file)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"{"):
        return "jsonl"
    if _JSON_ARRAY.match(start):
        raise FileUnreadable("this is one JSON array; write each of its objects on a line of its own (JSON Lines)",
                             metadata={"cause": "json"})  # fmt: skip
    if _MARKUP.match(start):
        raise FileUnreadable("this is a page or XML, whatever its name; open it in Excel and save it as .xlsx or CSV",
                             metadata={"cause": "markup"})  # fmt: skip
    ending = file_name[file_name.rfind(".") :].lower() if "." in file_name else ""
    found = ENDINGS.get(ending, "csv")
    if found == "xlsx" or ending == ".parquet":
        raise FileUnreadable(f"the content is not what {ending} files hold", metadata={"cause": "content"})
    return found


def _check_xlsx(file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FileUnreadable("the file is cut or damaged; send it again", metadata={"cause": "zip"}) from error
    if "xl/workbook.xml" not in names:
        raise FilePacked("unpack the archive first and send what is in it", metadata={"cause": "zip"})
    return "xlsx"
