"""Read a table of a SQL database, what is new since a cursor, as rows; it is only ever read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from services.profiles.errors import PullFailed
from services.profiles.intake.rows import Row, check_header, read_cells

Cursor: TypeAlias = "int | Decimal | str | date | None"
ROWS_AT_ONCE = 500
PLAIN = (str, int, float, Decimal, date, time, timedelta)
TEXT = "text"  # of a place's options: the encoding of texts that the database takes for Latin-1, or for bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a table, numbered on and on; `known` are those of the cursor's former value that come again.

    `cursor` is its last value, None without a cursor column; `position` the last number, `ties` how many of the last
    rows carry the cursor's value.
    """

    known: list[Row]
    rows: list[Row]
    cursor: Cursor = None
    position: int = 0
    ties: int = 0


def read_table(
    url: str,
    options: Mapping[str, Any],
    credentials: Mapping[str, str],
    table: str,
    column: str,
    start: Page = Page([], []),  # noqa: B008 - immutable in use
) -> Iterator[Page]:
    """Yield rows of a table by its cursor column, from where `start` ended; all without a column.

    Rows that carry the last value itself come again, under their numbers: others may have joined them since. Rows
    without a value are left out: nobody could tell when they change.

    Raises:
        PullFailed: the cursor column holds something else than numbers, texts or times.
    """
    import sqlalchemy as sql

    address = sql.make_url(url).set(username=credentials.get("username"), password=credentials.get("password"))
    given = {name: value for name, value in options.items() if name != TEXT}
    engine = sql.create_engine(address, poolclass=sql.NullPool, connect_args=given)
    schema, _, name = table.rpartition(".")
    query = sql.select(sql.text("*")).select_from(sql.table(name, schema=schema or None))
    key: sql.ColumnClause[Any] = sql.column(column)
    if column:
        query = query.where(key.is_not(None) if start.cursor is None else key >= start.cursor).order_by(key)
    with engine.connect() as connection:
        found = connection.execution_options(stream_results=True, yield_per=ROWS_AT_ONCE).execute(query)
        columns = check_header(list(found.keys()))
        page = replace(start, position=start.position - start.ties, ties=0)
        for part in found.partitions(ROWS_AT_ONCE):
            cells = [[_read(cell, options.get(TEXT, "")) for cell in row] for row in part]
            values = [_cursor(row._mapping[column]) for row in part] if column else []
            page = _next_page(page, columns, cells, values, start)
            yield page


def _next_page(
    page: Page, columns: Sequence[str], cells: Sequence[Sequence[object]], values: Sequence[Cursor], start: Page
) -> Page:
    """Return the page of these rows, which follows another; `values` are the cursor's, none without one.

    Of the rows with the value that `start` ended with, as many come again as it had: the others are new.
    """
    first, last = page.position + 1, values[-1] if values else None
    read = [read_cells(number, columns, row, is_exact=True) for number, row in enumerate(cells, start=first)]
    again = min(sum(value == start.cursor for value in values), max(0, start.position - page.position))
    ties = sum(value == last for value in values)
    if ties == len(values) and page.cursor == last:
        ties += page.ties
    known, rows = ([row for row in part if row is not None] for part in (read[:again], read[again:]))
    return Page(known, rows, last, page.position + len(cells), ties)


def _read(cell: object, encoding: str) -> object:
    """Return a cell with its text read in the encoding that it was written in, as text where it is no plain value."""
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell).decode(encoding or "utf-8", "replace")
    if isinstance(cell, dict):  # of a JSON column
        return json.dumps(cell, ensure_ascii=False, default=str)
    if isinstance(cell, list | tuple):
        return [_read(item, encoding) for item in cell]
    if cell is not None and not isinstance(cell, PLAIN):  # UUIDs, addresses, ranges
        return str(cell)
    if encoding and isinstance(cell, str) and not cell.isascii():
        raw = _latin_bytes(cell)
        return cell if raw is None else raw.decode(encoding, "replace")
    return cell


def _latin_bytes(text: str) -> bytes | None:
    """Return the bytes that a database took for Latin-1 (windows-1252 with its gaps filled); None of other text."""
    try:
        return b"".join(bytes((ord(sign),)) if ord(sign) < 256 else sign.encode("cp1252") for sign in text)
    except UnicodeEncodeError:
        return None


def _cursor(value: object) -> Cursor:
    if isinstance(value, int | Decimal | str | date):
        return value
    raise PullFailed("the cursor column holds neither numbers, texts nor times", metadata={"cause": "cursor"})


def cursor_to_plain(cursor: Cursor) -> list[object]:
    """Return a cursor as a checkpoint keeps it; the store would lose whether a time has a zone."""
    if isinstance(cursor, date):
        return ["time" if isinstance(cursor, datetime) else "date", cursor.isoformat()]
    return ["number", str(cursor)] if isinstance(cursor, Decimal) else ["value", cursor]


def cursor_from_plain(plain: object) -> Cursor:
    """Return what `cursor_to_plain` made the form from; None of nothing."""
    if not isinstance(plain, list | tuple):
        return None
    kind, value = plain
    readers: Mapping[str, Callable[[str], Cursor]] = {
        "time": datetime.fromisoformat, "date": date.fromisoformat, "number": Decimal,
    }  # fmt: skip
    found: Cursor = readers[kind](value) if kind in readers else value
    return found
