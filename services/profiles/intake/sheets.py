"""Look a workbook through before its values are read: what would fill the memory, and cells without a value."""

from __future__ import annotations

import copy
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from services.profiles.errors import FileUnreadable

PART_BYTES = 256 * 1024
MAX_UNPACKED_BYTES = 512 * 1024 * 1024  # a worksheet is held whole while it is read
MAX_XLSX_RATIO = 200  # real worksheets pack 5 to 30 times
MAX_CELLS = 20_000_000  # the reader holds the whole rectangle, cells that are not there too
MAX_INDEX_BYTES = 4 * 1024 * 1024  # the list of sheets, not a sheet
REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
DAMAGED = (zipfile.BadZipFile, zlib.error, expat.ExpatError, OSError, ValueError, RuntimeError, NotImplementedError)


@dataclass(slots=True)
class Survey:
    """How far a sheet reaches, and by row, from 0, a fault of its cells and the column, from 0."""

    last_row: int = -1
    last_column: int = -1
    faults: dict[int, tuple[str, int]] = field(default_factory=dict)


class _Walk:
    """Follows a sheet's XML, element by element."""

    def __init__(self) -> None:
        self.found = Survey()
        self._row = self._column = -1
        self._is_formula = self._has_result = False
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start

    def feed(self, part: bytes, is_last: bool = False) -> None:
        """Take the next part of the XML."""
        self._parser.Parse(part, is_last)
        if is_last:
            self._end_cell()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        kind = name.rpartition(":")[2]
        if kind == "c":
            self._end_cell()
            self._begin_cell(attributes)
        elif kind == "f":
            self._is_formula = True
        elif kind == "v" and self._is_formula and not self._has_result:
            self._parser.CharacterDataHandler = self._text
        elif kind == "row":
            self._end_cell()
            self._row = int(attributes["r"]) - 1 if "r" in attributes else self._row + 1
            self._column = -1

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        match = REFERENCE.fullmatch(attributes.get("r", ""))
        if match:
            self._row, self._column = int(match[2]) - 1, _column_of(match[1])
        else:
            self._column += 1
        self._has_result = attributes.get("t") == "str"  # an empty text is a result too
        if attributes.get("t") == "e":
            self.found.faults.setdefault(self._row, ("CELL_ERROR", self._column))
        self.found.last_row = max(self.found.last_row, self._row)
        self.found.last_column = max(self.found.last_column, self._column)
        if (self.found.last_row + 1) * (self.found.last_column + 1) > MAX_CELLS:
            raise _too_much()

    def _end_cell(self) -> None:
        if self._is_formula and not self._has_result:
            self.found.faults.setdefault(self._row, ("FORMULA_NOT_CALCULATED", self._column))
        self._is_formula = False
        self._parser.CharacterDataHandler = None

    def _text(self, text: str) -> None:
        self._has_result = self._has_result or bool(text.strip())


def _column_of(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _too_much() -> FileUnreadable:
    return FileUnreadable("the workbook unpacks to more than an import takes; send CSV or Parquet",
                          metadata={"cause": "unpacked size"})  # fmt: skip


def survey(file: BinaryIO, sheet: str) -> Survey:
    """Unpack a workbook once, keeping nothing, and return what is to know of a sheet, the first one when empty.

    Raises:
        FileUnreadable: it is damaged, lies about its size, or would fill the memory.
    """
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_sizes(archive.infolist())
            return _walk(archive, _place_of(archive, sheet))
    except DAMAGED as error:
        raise FileUnreadable("the workbook is cut or damaged; save it again as .xlsx",
                             metadata={"cause": "zip"}) from error  # fmt: skip


def _check_sizes(members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES or unpacked > max(packed, 100_000) * MAX_XLSX_RATIO:
        raise _too_much()


def _walk(archive: zipfile.ZipFile, place: str) -> Survey:
    walk = _Walk()
    for member in archive.infolist():
        feed = walk.feed if member.filename == place else None
        for part in _unpacked(archive, member):
            if feed:
                feed(part)
    walk.feed(b"", is_last=True)
    return walk.found


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what a member really unpacks to; the size it states is only believed when it is true."""
    unbelieved = copy.copy(member)
    unbelieved.file_size = MAX_UNPACKED_BYTES + 1
    size = 0
    with archive.open(unbelieved) as opened:
        while part := opened.read(PART_BYTES):
            size += len(part)
            if size > member.file_size:
                raise _too_much()
            yield part


def _place_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """Return the path of a sheet within the workbook; empty when there is none of this name."""
    targets: dict[str, str] = {}
    sheets: list[tuple[str, str]] = []

    def relation(kind: str, attributes: dict[str, str]) -> None:
        if kind == "Relationship":
            targets[attributes.get("Id", "")] = attributes.get("Target", "")

    def listed(kind: str, attributes: dict[str, str]) -> None:
        if kind == "sheet":
            key = next((value for name, value in attributes.items() if name.rpartition(":")[2] == "id"), "")
            sheets.append((attributes.get("name", ""), key))

    _read_index(archive, "xl/_rels/workbook.xml.rels", relation)
    _read_index(archive, "xl/workbook.xml", listed)
    key = next((key for name, key in sheets if not sheet or name == sheet), "")
    return posixpath.normpath(posixpath.join("/xl", targets.get(key, ""))).lstrip("/")


def _read_index(archive: zipfile.ZipFile, place: str, found: Callable[[str, dict[str, str]], None]) -> None:
    if place not in archive.namelist():
        return
    with archive.open(place) as opened:
        content = opened.read(MAX_INDEX_BYTES + 1)
    if len(content) > MAX_INDEX_BYTES:
        raise _too_much()
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: found(name.rpartition(":")[2], attributes)
    parser.Parse(content, True)
