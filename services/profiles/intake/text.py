"""Read CSV in the encodings Chinese systems write, and JSON Lines, line by line."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import charset_normalizer
import orjson

from services.profiles.errors import FileUnreadable
from services.profiles.intake.rows import CellNested, Row, check_header, read_cells, to_text

SAMPLE_BYTES = 64 * 1024
MAX_LINE = 1024 * 1024  # characters; a longer line is no table but something else
DELIMITERS = (",", "\t", ";", "|")
SNIFFED_ROWS = 20
COMMON_SHARE = 0.5  # of the double-byte characters in GB 18030 text, far more than this are common ones
GUESSED = ["big5", "gb18030", "cp932", "euc_kr", "cp1252"]


@dataclass(frozen=True, slots=True)
class OpenCsv:
    """A CSV file with its header read."""

    encoding: str
    columns: tuple[str, ...]
    rows: Iterator[Row]


def open_csv(file: BinaryIO, encoding: str, delimiter: str) -> OpenCsv:
    """Read the header, detecting encoding and delimiter where they are not given.

    Raises:
        FileUnreadable: the encoding is unknown, or the file is no text.
        HeaderInvalid: the header row is missing or ambiguous.
    """
    chosen = _known(encoding) if encoding else detect_encoding(file)
    chosen_delimiter = delimiter or _sniff(file, chosen)
    file.seek(0)
    stream = io.TextIOWrapper(file, encoding=chosen, errors="replace", newline="")
    reader = csv.reader(_lines(stream), delimiter=chosen_delimiter)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise FileUnreadable("the header row cannot be read", metadata={"cause": "header"}) from error
    columns = check_header(header)
    return OpenCsv(chosen, columns, _csv_rows(reader, columns, stream))


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise FileUnreadable("the encoding is unknown; leave it empty to have it detected",
                             metadata={"cause": "encoding"}) from None  # fmt: skip


def _lines(stream: io.TextIOWrapper) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        if len(line) >= MAX_LINE and not line.endswith("\n"):
            raise FileUnreadable("a line is longer than a million characters", metadata={"cause": "line"})
        yield line.replace("\0", "\ufffd")


def _csv_rows(reader: Iterator[list[str]], columns: tuple[str, ...], keep: io.TextIOWrapper) -> Iterator[Row]:
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            number += 1
            yield Row(number, {}, "ROW_UNREADABLE")
            continue
        row = read_cells(number + 1, columns, cells, is_exact=True)
        if row is not None:
            number += 1
            yield row


def detect_encoding(file: BinaryIO) -> str:
    """Return utf-8-sig, utf-16, utf-8, gb18030, or the likeliest of a few others, by the first non-ASCII part.

    Raises:
        FileUnreadable: the bytes are no text in any of them.
    """
    sample = _first_non_ascii(file)
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if sample.startswith(mark):
            return encoding
    if _decodes(sample, "utf-8"):
        return "utf-8"
    if _decodes(sample, "gb18030") and _common_share(sample) >= COMMON_SHARE:
        return "gb18030"
    best = charset_normalizer.from_bytes(sample, cp_isolation=GUESSED).best()
    if best is None or b"\0" in sample:
        raise FileUnreadable("the file is no text in a known encoding; save it as UTF-8",
                             metadata={"cause": "encoding"})  # fmt: skip
    return codecs.lookup(best.encoding).name


def _first_non_ascii(file: BinaryIO) -> bytes:
    """Return the first part of the file that tells its encoding, starting at a line; an ASCII file's end."""
    file.seek(0)
    carry = b""
    while chunk := file.read(SAMPLE_BYTES):
        sample = carry + chunk
        if not sample.isascii():
            return sample
        carry = sample[sample.rfind(b"\n") + 1 :][-SAMPLE_BYTES:]
    return b""


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _common_share(sample: bytes) -> float:
    """Return which share of the non-ASCII characters are of GB 2312 level 1 or its punctuation."""
    text = codecs.getincrementaldecoder("gb18030")().decode(sample)
    codes = [char.encode("gb18030") for char in text if char > "\x7f"]
    common = sum(1 for code in codes if len(code) == 2 and (0xA1 <= code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7))
    return common / len(codes) if codes else 0.0


def _sniff(file: BinaryIO, encoding: str) -> str:
    """Return the delimiter that splits the first rows into the most columns, the same number in each."""
    file.seek(0)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(file.read(SAMPLE_BYTES))
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and not text.endswith("\n"):
        lines.pop()
    best, most = ",", 0.0
    for delimiter in DELIMITERS:
        try:
            widths = [
                len(row)
                for _, row in zip(range(SNIFFED_ROWS), csv.reader(lines, delimiter=delimiter), strict=False)
                if row
            ]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = sum(width == widths[0] for width in widths) / len(widths) + widths[0] / 1000
            best, most = (delimiter, score) if score > most else (best, most)
    return best


def open_json_lines(file: BinaryIO) -> Iterator[Row]:
    """Yield one row for each line that is not blank; objects within an object become dotted columns."""
    number = 0
    while line := file.readline(MAX_LINE):
        if len(line) >= MAX_LINE and not line.endswith(b"\n"):
            raise FileUnreadable("a line is longer than a million bytes", metadata={"cause": "line"})
        line = line.lstrip(b"\xef\xbb\xbf").strip()
        if line:
            number += 1
            yield _json_row(number, line)


def _json_row(number: int, line: bytes) -> Row:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Row(number, {}, "ROW_UNREADABLE")
    if not isinstance(found, dict):
        return Row(number, {}, "ROW_UNREADABLE")
    try:
        values = dict(_flat(found, "", 0))
    except CellNested:
        return Row(number, {}, "ROW_NESTED")
    except ValueError:
        return Row(number, {}, "DIGITS_LOST")
    return Row(number, values)


def _flat(found: Mapping[str, object], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > 3:
        raise CellNested
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield prefix + key, to_text(value)
