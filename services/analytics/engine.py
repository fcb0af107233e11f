"""DuckDB over a fixed version of the lake: bounded memory, bound parameters, files taken from the Delta log.

DuckDB's own delta extension is a download; reading the files that the log names is as right (we never write
deletion vectors) and lets the log's partition values and statistics choose the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from services.analytics.domain.tables import Kind, Table
from services.analytics.lake import RECENT, DataFile, Snapshot
from services.chassis.errors import Unavailable

MEMORY_LIMIT: Final = "192MB"  # sorting and grouping spill beyond it
THREADS: Final = 2
_TYPES: Final[Mapping[Kind, str]] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}
Params = dict[str, object]
Row = tuple[object, ...]


class Engine:
    """One in-memory database per process; each query has a cursor of its own, all share the memory limit."""

    def __init__(self, spill_dir: Path, memory_limit: str = MEMORY_LIMIT, threads: int = THREADS) -> None:
        spill_dir.mkdir(parents=True, exist_ok=True)
        self._database = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": memory_limit,
                "threads": threads,
                "temp_directory": str(spill_dir),
                "preserve_insertion_order": False,
                "allocator_background_threads": True,  # what a query freed goes back to the system in a second
                "allocator_flush_threshold": "16MB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._database.execute("SET TimeZone = 'UTC'")
        self._database.execute("SET parquet_metadata_cache = true")

    def close(self) -> None:
        """Free the memory; running queries fail."""
        self._database.close()

    @contextmanager
    def _cursor(self, **tables: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor.

        Raises:
            Unavailable: files of the version that is read were deleted meanwhile, by retention or an erasure.
        """
        cursor = self._database.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            yield cursor
        except duckdb.IOException as error:
            raise Unavailable("the lake changed while it was read; try again") from error
        finally:
            cursor.close()

    def rows(self, statement: str, params: Params) -> list[Row]:
        """Return all rows of a small result."""
        with self._cursor() as cursor:
            return cursor.execute(statement, params).fetchall()

    def table(self, statement: str, params: Params, **tables: pa.Table) -> pa.Table:
        """Return a result of moderate size; the statement may read the given tables by their names."""
        with self._cursor(**tables) as cursor:
            return cursor.sql(statement, params=params).to_arrow_table()

    @contextmanager
    def batches(self, statement: str, params: Params, batch_rows: int) -> Iterator[pa.RecordBatchReader]:
        """Stream a large result; read it to its end or leave the block."""
        with self._cursor() as cursor:
            yield cursor.sql(statement, params=params).to_arrow_reader(batch_rows)

    def copy(self, statement: str, params: Params, path: Path, row_group_rows: int) -> int:
        """Write a result to a Parquet file and return its number of rows; `path` is our own, never a caller's."""
        target = str(path).replace("'", "''")
        options = f"(FORMAT parquet, ROW_GROUP_SIZE {row_group_rows})"
        (row,) = self.rows(f"COPY ({statement}) TO '{target}' {options}", params)
        return int(str(row[0]))


def relations(
    snapshots: Sequence[Snapshot], since: datetime | None = None, until: datetime | None = None
) -> tuple[list[str], Params]:
    """Return `name AS (…)` for tables of the lake, and the parameters that hold their files.

    Of logs only files that can hold events from `since` to `until` are named.
    """
    parts: list[str] = []
    params: Params = {}
    for snapshot in snapshots:
        if snapshot.table.order:
            parts += _state(snapshot, params)
        else:
            files = snapshot.within(since, until)
            parts.append(f"{snapshot.table.name} AS ({_scan(snapshot.table, files, 'files', params)})")
    return parts, params


def joined(parts: Sequence[str], body: str) -> str:
    """Return the statement of relations and a body, which may begin with relations of its own."""
    joint = " " if body.startswith("SELECT") else ", "
    return f"WITH {', '.join(parts)}{joint}{body}"


def _resolved_aliases(rounds: int) -> str:
    """Return the relation of merged ids with their last survivors: each round doubles the steps looked ahead."""
    parts = ["alias_0 AS MATERIALIZED (SELECT profile_id, survivor_id FROM aliases WHERE survivor_id IS NOT NULL)"]
    parts += [
        f"alias_{step + 1} AS MATERIALIZED (SELECT a.profile_id, coalesce(b.survivor_id, a.survivor_id) AS survivor_id"
        f" FROM alias_{step} a LEFT JOIN alias_{step} b ON b.profile_id = a.survivor_id)"
        for step in range(rounds)
    ]
    return f"{', '.join(parts)} SELECT * FROM alias_{rounds}"


RESOLVED_ALIASES: Final = _resolved_aliases(5)  # A into B, B into C, …: chains of up to 32 merges


def _columns(table: Table) -> str:
    return ", ".join(name for name in table.columns if name != table.partition)


def _scan(table: Table, files: Sequence[DataFile], suffix: str, params: Params) -> str:
    """Return the statement that reads files of a table; what earlier releases wrote lacks some columns."""
    parts = []
    for is_older, added in ((False, ()), (True, table.added)):
        paths = [file.path for file in files if file.is_older is is_older]
        if paths:
            name = f"{table.name}_{suffix}{'_older' if is_older else ''}"
            params[name] = paths
            columns = ", ".join(
                f"NULL::{_TYPES[table.columns[column]]} AS {column}" if column in added else column
                for column in table.columns if column != table.partition
            )  # fmt: skip
            parts.append(f"SELECT {columns} FROM read_parquet(${name}, hive_partitioning = false)")
    if parts:
        return " UNION ALL ".join(parts)
    empty = ", ".join(f"NULL::{_TYPES[kind]} AS {name}" for name, kind in table.columns.items()
                      if name != table.partition)  # fmt: skip
    return f"SELECT {empty} WHERE false"


def _state(snapshot: Snapshot, params: Params) -> list[str]:
    """Return the relation of latest states: recent rows, and base rows that no recent one replaces."""
    table = snapshot.table
    name = table.name
    recent = snapshot.within(partition=RECENT)
    base = _scan(table, [file for file in snapshot.files if file not in recent], "base", params)
    if not recent:
        return [f"{name} AS ({base})"]
    keys = ", ".join(table.key)
    latest = f"row_number() OVER (PARTITION BY {keys} ORDER BY {table.order} DESC) = 1"
    read = _scan(table, recent, "recent", params)
    return [
        f"{name}_recent AS MATERIALIZED (SELECT * FROM ({read}) QUALIFY {latest})",
        f"{name} AS (SELECT {_columns(table)} FROM ({base}) b ANTI JOIN {name}_recent USING ({keys})"
        f" UNION ALL SELECT {_columns(table)} FROM {name}_recent)",
    ]
