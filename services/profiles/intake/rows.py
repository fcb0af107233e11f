"""Rows as read, the faults a row can have, headers, and values as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from services.profiles.errors import HeaderInvalid

FIELD_UNKNOWN = "FIELD_UNKNOWN"
FAULTS = {
    "ROW_WIDTH": "The row has more or fewer cells than the header; look for a stray delimiter or quote.",
    "ROW_UNREADABLE": "The row cannot be read; look for an open quote or broken JSON.",
    "ROW_NESTED": "A value of the row is a list of objects or nested too deep; write one value for each field.",
    "CHARACTERS_UNREADABLE": "The row has bytes that are no characters of the file's encoding; save it as UTF-8.",
    "DIGITS_LOST": "A number has more digits than a spreadsheet keeps; format its column as text and type it again.",
    "CELL_ERROR": "A cell holds a formula error; correct it.",
    "CELLS_MERGED": "The row lies within merged cells; unmerge them and write the value into each row.",
    "FORMULA_NOT_CALCULATED": "A cell holds a formula without a stored result; open the file and save it.",
    "VALUE_NOT_LISTED": "The value is not in the list of the source's mapping; correct it or add it to the list.",
    "DELETE_MARK_UNREADABLE": "The mark of deletion is neither yes nor no; write 1 or 0.",
    "HEADER_REPEATED": "The row repeats the header; remove it, the file was put together of several.",
    "LINE_TOO_LONG": "The line is longer than 65536 bytes; its beginning is kept. Send shorter values.",
    "RECORD_INVALID": "A member of the record is not of the form of records:batchUpsert; see /docs.",
    FIELD_UNKNOWN: "The dictionary has no such field; define it first or leave it out.",
}
MAX_EXACT_NUMBER = 10**15  # a spreadsheet keeps 15 significant digits
MAX_DEPTH = 3  # of lists in one another
MAX_KEPT = 4000  # characters of what cannot be read
WHOLE_ROW = ""  # the column, which no header can be, of a row that has no cells
REPLACEMENT = "\ufffd"


def describe_fault(fault: str) -> str:
    """Return what to do about a fault, in one sentence."""
    return FAULTS[fault]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 1, the header not counted, and its values by column; or the fault it has."""

    number: int
    values: Mapping[str, str] = field(repr=False)
    fault: str = ""
    fault_column: str = ""


class DigitsLost(ValueError):
    """A number cell is too long to be exact."""


class CellNested(ValueError):
    """A value has structure where one text is wanted."""


def check_header(cells: Sequence[str]) -> tuple[str, ...]:
    """Return the columns, trimmed, without empty ones at the end.

    Raises:
        HeaderInvalid: none is left, or one within is empty, repeated or unreadable; told by position, never by content.
    """
    columns = [cell.strip("\ufeff \t\r\n\u3000\xa0") for cell in cells]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise HeaderInvalid("the file has no header row", metadata={"cause": "missing"})
    if any(REPLACEMENT in column for column in columns):
        raise HeaderInvalid("the header is not in the file's encoding; save it as UTF-8",
                            metadata={"cause": "encoding"})  # fmt: skip
    firsts: dict[str, int] = {}
    for position, column in enumerate(columns, start=1):
        if not column:
            raise HeaderInvalid(f"column {position} has no header", metadata={"cause": f"empty {position}"})
        if (first := firsts.setdefault(column, position)) != position:
            raise HeaderInvalid(
                f"columns {first} and {position} have the same header; rename one",
                metadata={"cause": f"repeated {first} {position}"},
            )
    return tuple(columns)


def to_text(value: object, depth: int = 0) -> str:
    """Return a cell's value, `depth` lists deep, as text: whole numbers without a point, dates as YYYY-MM-DD.

    Raises:
        DigitsLost: a number with more digits than are exact.
        CellNested: a value that is neither scalar nor a list of such, MAX_DEPTH lists deep at most.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):  # as some writers of Parquet leave their texts
        return value.decode(errors="replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, Decimal):
        return _decimal_text(value)
    if isinstance(value, list | tuple):
        if depth == MAX_DEPTH:
            raise CellNested
        return ";".join(to_text(item, depth + 1) for item in value)
    return _time_text(value)


def _float_text(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return ""
    if abs(value) >= MAX_EXACT_NUMBER:
        raise DigitsLost
    return str(int(value)) if value == int(value) else repr(value)


def _decimal_text(value: Decimal) -> str:
    """Return an exact number as text, without an exponent or zeros at its end."""
    if not value.is_finite():
        return ""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time_text(value: object) -> str:
    if isinstance(value, datetime):
        if (value.hour, value.minute, value.second, value.tzinfo) == (0, 0, 0, None):
            return value.date().isoformat()
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    raise CellNested


def read_cells(number: int, columns: Sequence[str], cells: Sequence[object], *, is_exact: bool) -> Row | None:
    """Return the row of these cells, or None when all are empty; `is_exact` refuses rows that are too short."""
    try:
        texts = [to_text(cell) for cell in cells]
    except DigitsLost:
        return Row(number, _zip(columns, list(map(_kept, cells))), "DIGITS_LOST", _column_of(columns, cells))
    except CellNested:
        return Row(number, _zip(columns, list(map(_kept, cells))), "ROW_NESTED")
    if not any(text and not text.isspace() for text in texts):
        return None
    extra = texts[len(columns) :]
    if any(extra) or (is_exact and len(texts) < len(columns)):
        return Row(number, _zip(columns, texts), "ROW_WIDTH")
    values = _zip(columns, texts)
    if any(REPLACEMENT in text for text in texts):
        return Row(number, values, "CHARACTERS_UNREADABLE")
    if len(columns) > 1 and texts[0].strip() == columns[0] and tuple(map(str.strip, texts)) == tuple(columns):
        return Row(number, values, "HEADER_REPEATED")
    return Row(number, values)


def _kept(cell: object) -> str:
    """Return what is kept of a cell of a row that is set apart; of rounded digits nothing, a replay would take them."""
    try:
        return to_text(cell)
    except DigitsLost:
        return ""
    except CellNested:
        return str(cell)[:MAX_KEPT]


def _zip(columns: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    return dict(zip(columns, texts, strict=False))


def _column_of(columns: Sequence[str], cells: Sequence[object]) -> str:
    for column, cell in zip(columns, cells, strict=False):
        if isinstance(cell, float) and abs(cell) >= MAX_EXACT_NUMBER:
            return column
    return ""
