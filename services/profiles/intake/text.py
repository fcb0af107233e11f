"""Read CSV in the encodings Chinese systems write, and JSON Lines, line by line."""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import charset_normalizer
import orjson

from services.profiles.errors import FileUnreadable
from services.profiles.intake.rows import (
    MAX_KEPT,
    REPLACEMENT,
    WHOLE_ROW,
    CellNested,
    Row,
    check_header,
    read_cells,
    to_text,
)

SAMPLE_BYTES = 64 * 1024
MAX_ROW_LINES = 100  # of one row with quoted line breaks; more is a quote that somebody left open
MAX_LINE = 1024 * 1024  # characters; a longer line is no table but something else
DELIMITERS = (",", "\t", ";", "|")
SNIFFED_ROWS = 20
COMMON_SHARE = 0.5  # of the double-byte characters in GB 18030 text, far more than this are common ones
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
COMMON_LEADS = frozenset((*range(0xA1, 0xA4), *range(0xB0, 0xD8)))
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
    records = _Records(stream, chosen_delimiter)
    header = next(records, None) or []
    if isinstance(header, str):
        raise FileUnreadable("the header row cannot be read", metadata={"cause": "header"})
    columns = check_header(header)
    return OpenCsv(chosen, columns, _csv_rows(records, columns, chosen))


def _known(encoding: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(b"a,b\n1,2\n"), encoding=encoding, errors="replace").read()
        return codecs.lookup(encoding).name
    except (LookupError, UnicodeError, AssertionError, TypeError):  # of codecs that are none of text
        raise FileUnreadable("the encoding is unknown; leave it empty to have it detected",
                             metadata={"cause": "encoding"}) from None  # fmt: skip


class _Records:
    """The rows of a CSV file as lists of cells; a fault code for one whose quote stays open.

    What an open quote would swallow is read again as rows of its own.
    """

    def __init__(self, stream: io.TextIOWrapper, delimiter: str) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._again: deque[str] = deque()  # lines to read once more
        self._held: list[str] = []  # lines of the row under way
        self._first = ""
        self._is_open = False  # the reader asked for more and there was none
        self._reader = csv.reader(self._lines(), delimiter=delimiter)

    def __iter__(self) -> _Records:
        return self

    @property
    def line(self) -> str:
        """Return the first line of the unreadable row, cut to a length that is kept."""
        return self._first

    def __next__(self) -> list[str] | str:
        self._held.clear()
        try:
            cells = next(self._reader)
        except csv.Error:
            return self._resume()
        return self._resume() if self._is_open else cells

    def _resume(self) -> str:
        self._first = self._held[0].rstrip("\r\n")[:MAX_KEPT] if self._held else ""
        self._again.extendleft(reversed(self._held[1:]))
        self._is_open = False
        self._reader = csv.reader(self._lines(), delimiter=self._delimiter)
        return "ROW_UNREADABLE"

    def _lines(self) -> Iterator[str]:
        while line := self._again.popleft() if self._again else self._stream.readline(MAX_LINE):
            if len(line) >= MAX_LINE and not line.endswith("\n"):
                raise FileUnreadable("a line is longer than a million characters", metadata={"cause": "line"})
            self._held.append(line)
            if len(self._held) > MAX_ROW_LINES:
                break
            yield line.replace("\0", REPLACEMENT).lstrip("\ufeff")
        self._is_open = bool(self._held)


def _csv_rows(records: _Records, columns: tuple[str, ...], encoding: str) -> Iterator[Row]:
    number = 0
    may_be_mixed = not encoding.startswith("utf")
    for cells in records:
        if isinstance(cells, str):
            number += 1
            yield Row(number, {WHOLE_ROW: records.line}, cells)
            continue
        row = read_cells(number + 1, columns, cells, is_exact=True)
        if row is not None:
            number += 1
            is_mixed = may_be_mixed and not row.fault and any(_is_utf8(cell, encoding) for cell in cells)
            yield Row(number, row.values, "CHARACTERS_UNREADABLE") if is_mixed else row


def _is_utf8(text: str, encoding: str) -> bool:
    """Tell whether a text read in another encoding is Chinese in UTF-8, as in a file put together of two."""
    if text.isascii():
        return False
    try:
        found = text.encode(encoding).decode()
    except UnicodeError:
        return False
    return any("\u4e00" <= char <= "\u9fff" for char in found)


def detect_encoding(file: BinaryIO) -> str:
    """Return utf-8-sig, utf-16, utf-8, gb18030, or the likeliest of a few others, by the first non-ASCII part.

    Raises:
        FileUnreadable: the bytes are no text in any of them.
    """
    sample = _first_non_ascii(file)
    for mark, encoding in MARKS:
        if sample.startswith(mark):
            return encoding
    if wide := _wide(sample):
        return wide
    if _decodes(sample, "utf-8") or _is_mostly_utf8(sample):
        return "utf-8"
    if _decodes(sample, "gb18030") and _common_share(sample) >= COMMON_SHARE:
        return "gb18030"
    best = charset_normalizer.from_bytes(sample, cp_isolation=GUESSED).best()
    if best is None or b"\0" in sample:
        raise FileUnreadable("the file is no text in a known encoding; save it as UTF-8",
                             metadata={"cause": "encoding"})  # fmt: skip
    return codecs.lookup(best.encoding).name


def _wide(sample: bytes) -> str:
    """Return the UTF-16 that lost its mark, told by where the zeros of delimiters and digits are; empty for none."""
    zeros = sample.count(0)
    even = sample[::2].count(0)
    if not zeros or zeros < len(sample) / 10:
        return ""
    found = "utf-16-be" if even > zeros - even else "utf-16-le"
    return found if _decodes(sample, found) else ""


def _is_mostly_utf8(sample: bytes) -> bool:
    """Tell whether most lines that are not ASCII are UTF-8; the others are set apart, not guessed at."""
    lines = [line for line in sample.split(b"\n")[:-1] if not line.isascii()]
    good = sum(1 for line in lines if _decodes_whole(line))
    return good * 2 > len(lines) > 0


def _decodes_whole(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_non_ascii(file: BinaryIO) -> bytes:
    """Return the first part of the file that tells its encoding, starting at a line; an ASCII file's end."""
    file.seek(0)
    carry = b""
    while chunk := file.read(SAMPLE_BYTES):
        sample = carry + chunk
        if not sample.isascii() or b"\0" in sample:
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
    common = sum(1 for code in codes if len(code) == 2 and code[1] >= 0xA1 and code[0] in COMMON_LEADS)
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
        found = None
    if not isinstance(found, dict):
        return Row(number, _whole(line), "ROW_UNREADABLE")
    try:
        values = dict(_flat(found, "", 0))
    except CellNested:
        return Row(number, _whole(line), "ROW_NESTED")
    except ValueError:
        return Row(number, _whole(line), "DIGITS_LOST")
    return Row(number, values)


def _whole(line: bytes) -> dict[str, str]:
    return {WHOLE_ROW: line.decode(errors="replace")[:MAX_KEPT]}


def _flat(found: Mapping[str, object], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > 3:
        raise CellNested
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield prefix + key, to_text(value)
