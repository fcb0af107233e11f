"""Read a table of a SQL database, what is new since a cursor, as rows; it is only ever read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from services.profiles.errors import PullFailed
from services.profiles.intake.rows import Row, check_header, read_cells

Cursor: TypeAlias = "int | str | datetime | None"
ROWS_AT_ONCE = 500


def read_table(
    url: str, options: Mapping[str, Any], credentials: Mapping[str, str], table: str, column: str, after: Cursor
) -> Iterator[tuple[list[Row], Cursor]]:
    """Yield rows of a table by its cursor column, from `after` on, with the cursor's last value; all without a column.

    Rows that carry the value `after` itself come again: others may have joined them since.

    Raises:
        PullFailed: the cursor column holds something else than numbers, texts or times.
    """
    import sqlalchemy as sql

    address = sql.make_url(url).set(username=credentials.get("username"), password=credentials.get("password"))
    engine = sql.create_engine(address, poolclass=sql.NullPool, connect_args=dict(options))
    schema, _, name = table.rpartition(".")
    query = sql.select(sql.text("*")).select_from(sql.table(name, schema=schema or None))
    key: sql.ColumnClause[Any] = sql.column(column)
    if column:
        query = query.order_by(key) if after is None else query.where(key >= after).order_by(key)
    with engine.connect() as connection:
        found = connection.execution_options(stream_results=True, yield_per=ROWS_AT_ONCE).execute(query)
        columns = check_header(list(found.keys()))
        number = 0
        for part in found.partitions(ROWS_AT_ONCE):
            rows = [read_cells(number + at, columns, list(cells), is_exact=True) for at, cells in enumerate(part, 1)]
            number += len(part)
            yield [row for row in rows if row is not None], _cursor(part[-1]._mapping[column]) if column else None


def _cursor(value: object) -> Cursor:
    if isinstance(value, int | str | datetime):
        return value
    raise PullFailed("the cursor column holds neither numbers, texts nor times", metadata={"cause": "cursor"})


def cursor_to_plain(cursor: Cursor) -> list[object]:
    """Return a cursor as a checkpoint keeps it; the store would lose whether a time has a zone."""
    return ["time", cursor.isoformat()] if isinstance(cursor, datetime) else ["value", cursor]


def cursor_from_plain(plain: object) -> Cursor:
    """Return what `cursor_to_plain` made the form from; None of nothing."""
    if not isinstance(plain, list | tuple):
        return None
    kind, value = plain
    found: Cursor = datetime.fromisoformat(value) if kind == "time" else value
    return found
