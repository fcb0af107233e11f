"""The lake: Delta tables on disk. Rows are added by check-and-append, which no crash can halve or double.

The protocol. 1. Read a snapshot S of the table and the number n of its last check-and-append (a Delta application
transaction). 2. Drop every incoming row that S knows already. 3. Append the rest in one Delta commit that carries
the transaction number n + 1 and is based on S. Killed before 3: nothing happened, the sender's durable copy
(inbox entry, uploaded file) is tried again. Killed after 3: the rows are there, the next try drops them all in
step 2. Two writers at once: the log lets one number n + 1 in only, the other fails and starts again at 1. So an
acknowledged row is in the table exactly once, and the table itself is the only ledger.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from services.analytics.domain.tables import TABLES, Kind, Table
from services.chassis.errors import Unavailable

RECENT: Final = "recent"
BASE: Final = "base"
APPENDS: Final = "kehu-check-and-append"
LABEL: Final = "kehu.label"
LABEL_ROWS: Final = "kehu.labelRows"
LABELS_LOOKED_AT: Final = 200
DELETE_TRIES: Final = 20
ORPHAN_HOURS: Final = 1  # longer than any write takes
ROW_GROUP_ROWS: Final = 122_880  # DuckDB's own unit of parallel work
_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}
_DELTA_TYPES: Final[Mapping[Kind, PrimitiveType]] = {
    "string": PrimitiveType("string"),
    "int64": PrimitiveType("long"),
    "int32": PrimitiveType("integer"),
}
_WRITER: Final = WriterProperties(compression="SNAPPY", max_row_group_size=ROW_GROUP_ROWS)


class VersionGone(Exception):
    """The asked version of a table was cleaned away."""


class WriterRaced(Exception):
    """Another writer changed the table since the snapshot: read it again."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a snapshot, with what the log says of it."""

    path: str
    partition: str
    rows: int
    size_bytes: int
    first_time: datetime | None
    last_time: datetime | None
    written: datetime = datetime.min.replace(tzinfo=UTC)
    is_older: bool = False  # written before its table had all its columns

    def may_hold(self, since: datetime | None, until: datetime | None) -> bool:
        """Say whether an event of this span can be in the file; the log's times may be cut to milliseconds."""
        slack = timedelta(milliseconds=1)
        early = until is not None and self.first_time is not None and self.first_time - slack > until
        late = since is not None and self.last_time is not None and self.last_time + slack < since
        return not early and not late


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table: its files, fixed."""

    table: Table
    version: int
    appends: int  # number of the last check-and-append
    files: tuple[DataFile, ...]

    @property
    def rows(self) -> int:
        """Return how many rows the files hold."""
        return sum(file.rows for file in self.files)

    @property
    def last_time(self) -> datetime | None:
        """Return the newest event time, rounded up to the second, or None when the table is empty."""
        newest = max((file.last_time for file in self.files if file.last_time), default=None)
        return None if newest is None else newest.replace(microsecond=0) + timedelta(seconds=1)

    def within(
        self, since: datetime | None = None, until: datetime | None = None, *, partition: str = ""
    ) -> list[DataFile]:
        """Return the files that can hold events of the span, or those of a partition."""
        return [file for file in self.files if file.may_hold(since, until) and partition in ("", file.partition)]

    def paths(self, since: datetime | None = None, until: datetime | None = None) -> list[str]:
        """Return where the files are that can hold events of the span."""
        return [file.path for file in self.within(since, until)]


def arrow_schema(table: Table) -> pa.Schema:
    """Return the strict schema of a table."""
    return pa.schema([(name, _TYPES[kind]) for name, kind in table.columns.items()])


class Lake:
    """The tables under one directory. Safe for threads and for several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._readers: dict[str, DeltaTable] = {}
        self._snapshots: dict[str, Snapshot] = {}

    def create(self) -> None:
        """Make the tables that are missing; two processes may do so at once."""
        for table in TABLES.values():
            with contextlib.suppress(CommitFailedError):  # the other process made it
                DeltaTable.create(
                    str(self.root / table.name),
                    schema=arrow_schema(table),
                    mode="ignore",
                    partition_by=[table.partition] if table.partition else None,
                    configuration={"delta.deletedFileRetentionDuration": "interval 7 days"},
                )
            self._add_columns(table)

    def _add_columns(self, table: Table) -> None:
        """Add the columns that a table of an earlier release lacks; two processes may do so at once."""
        opened = self._open(table)
        known = {field.name for field in opened.schema().fields}
        missing = [name for name in table.added if name not in known]
        if missing:
            with contextlib.suppress(CommitFailedError):  # the other process added them
                opened.alter.add_columns([Field(name, _DELTA_TYPES[table.columns[name]]) for name in missing])

    def snapshot(self, table: Table, version: int | None = None) -> Snapshot:
        """Return the newest version of a table, or the one asked.

        Raises:
            VersionGone: that version's log or files were cleaned away, or it is still to come.
        """
        newest = self._newest(table)
        if version is None or version == newest.version:
            return newest
        if version > newest.version:  # from an edited page token; the log would be searched for it number by number
            raise VersionGone(table.name)
        return self._past(table, version)

    def _newest(self, table: Table) -> Snapshot:
        with self._lock:
            reader = self._readers.get(table.name)
            if reader is None:
                reader = self._readers[table.name] = self._open(table)
            reader.update_incremental()
            known = self._snapshots.get(table.name)
            if known is None or known.version != reader.version():
                known = self._snapshots[table.name] = _describe(table, reader)
            return known

    def _past(self, table: Table, version: int) -> Snapshot:
        try:
            found = _describe(table, self._open(table, version))
        except (DeltaError, ValueError) as error:
            raise VersionGone(table.name) from error
        if not all(Path(file.path).exists() for file in found.files):
            raise VersionGone(table.name)
        return found

    def _open(self, table: Table, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(str(self.root / table.name), version=version)
        except TableNotFoundError as error:
            raise Unavailable("the lake is not there yet; start the analytics service once") from error

    def append(self, snapshot: Snapshot, rows: pa.Table, label: str = "") -> None:
        """Add rows that the snapshot does not know, as the check-and-append after its last one.

        The commit carries the label and the number of rows, for `labelled_rows`.

        Raises:
            WriterRaced: another check-and-append came first.
        """
        number = snapshot.appends + 1
        notes = {LABEL: label, LABEL_ROWS: str(rows.num_rows)} if label else None
        properties = CommitProperties(custom_metadata=notes, app_transactions=[Transaction(APPENDS, number)])
        target = self._open(snapshot.table, snapshot.version)
        try:
            write_deltalake(
                target,
                rows.cast(arrow_schema(snapshot.table)),
                mode="append",
                writer_properties=_WRITER,
                commit_properties=properties,
            )
        except CommitFailedError as error:
            raise WriterRaced(snapshot.table.name) from error

    def labelled_rows(self, table: Table, label: str) -> int:
        """Return how many rows the appends of this label added, as far as the last commits tell."""
        commits = self._open(table).history(LABELS_LOOKED_AT)
        return sum(int(str(commit[LABEL_ROWS])) for commit in commits if commit.get(LABEL) == label)

    def rewrite(self, snapshot: Snapshot, rows: pa.RecordBatchReader, partition: str = "") -> None:
        """Replace the snapshot's rows, all or those of one partition; rows added since stay.

        Raises:
            WriterRaced: the partition changed since the snapshot.
        """
        table = snapshot.table
        predicate = f"{table.partition} = '{partition}'" if partition else None
        try:
            write_deltalake(
                self._open(table, snapshot.version),
                rows.cast(arrow_schema(table)),
                mode="overwrite",
                predicate=predicate,
                writer_properties=_WRITER,
            )
        except CommitFailedError as error:
            raise WriterRaced(table.name) from error

    def delete(self, table: Table, column: str, values: Iterable[str], only: str = "") -> None:
        """Delete the rows whose column has one of these values; rows that `only`, an SQL condition, excludes stay.

        Raises:
            Unavailable: other writers came first, time after time.
        """
        listed = quoted(values)
        condition = f"{column} IN ({listed})" + (f" AND {only}" if only else "")
        for _ in range(DELETE_TRIES if listed else 0):
            with contextlib.suppress(CommitFailedError):
                self._open(table).delete(condition, writer_properties=_WRITER)
                return
        if listed:
            raise Unavailable("the lake is being written by others; try again")

    def clean(self, table: Table, *, at_once: bool = False) -> None:
        """Delete files that no version of the last seven days needs, or with `at_once` that the newest does not.

        Only files that the log names as removed are deleted, never one that somebody is writing.
        """
        hours = 0 if at_once else None
        self._open(table).vacuum(hours, dry_run=False, enforce_retention_duration=not at_once)

    def sweep(self, table: Table, hours: int = ORPHAN_HOURS) -> int:
        """Delete files that no version ever named: of writers killed, or late in a race, `hours` ago or earlier."""
        opened = self._open(table)
        unnamed = opened.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
        removed = set(opened.vacuum(0, dry_run=True, enforce_retention_duration=False))
        orphans = [path for path in unnamed if path not in removed and path.endswith(".parquet")]
        for path in orphans:
            (self.root / table.name / path).unlink(missing_ok=True)
        return len(orphans)


def quoted(values: Iterable[str]) -> str:
    """Return values as an SQL list of literals."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _describe(table: Table, reader: DeltaTable) -> Snapshot:
    actions = pa.table(reader.get_add_actions(flatten=True))
    names = set(actions.column_names)
    partition = f"partition.{table.partition}"
    root = Path(reader.table_uri.removeprefix("file://"))
    files = tuple(
        DataFile(
            path=str(root / str(row["path"])),
            partition=str(row[partition]) if partition in names else "",
            rows=int(row["num_records"]),
            size_bytes=int(row["size_bytes"]),
            first_time=_time(row.get("min.event_time")),
            last_time=_time(row.get("max.event_time")),
            written=datetime.fromtimestamp(int(row["modification_time"]) / 1000, UTC),
            is_older=any(row.get(f"null_count.{name}") is None for name in table.added),
        )
        for row in actions.to_pylist()
    )
    appends = reader.transaction_version(APPENDS) or 0
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return Snapshot(table, reader.version(), appends, ordered)


def _time(value: object) -> datetime | None:
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def rows_table(table: Table, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return rows as Arrow in the table's strict schema.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column.
    """
    return pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(table))
