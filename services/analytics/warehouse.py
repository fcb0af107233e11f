"""The lake and the engine together: pinned data versions, check-and-append, tidying up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa

from services.analytics.derived import Derived
from services.analytics.domain.errors import StalePageToken
from services.analytics.domain.tables import (
    ALIASES,
    ERASED,
    INTERACTIONS,
    MOVED,
    PROFILES,
    RESCORED,
    SCORES,
    TABLES,
    Table,
)
from services.analytics.engine import RESOLVED_ALIASES, Engine, Params, Row, joined, relations
from services.analytics.lake import (
    BASE,
    RECENT,
    ROW_GROUP_ROWS,
    Lake,
    Snapshot,
    VersionGone,
    WriterRaced,
    arrow_schema,
    quoted,
)
from services.chassis.errors import Unavailable

RACES: Final = 20  # lost races before an append gives up; each one means that another writer got on
FILES_PER_PARTITION: Final = 12  # more small files than this in a partition are written anew as one
SMALL_FILE_BYTES: Final = 50_000_000  # the writer begins a new file at 100 MB; such files are as they should be
RECENT_ROWS: Final = 20_000  # recent states beyond this, and a tenth of all, are folded into the base
RECENT_FILES: Final = 24
REPLACED_FOR: Final = timedelta(days=1)  # after it, states that newer ones replaced are folded away
EMPTY_CUTOFF: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Versions of some tables that belong together, and the time of the newest event in them."""

    snapshots: Mapping[str, Snapshot]
    cutoff: datetime
    aliases_path: Path | None  # every merged id with its last survivor; None when nobody was ever merged

    @property
    def versions(self) -> dict[str, int]:
        """Return table → version, for a page token."""
        return {name: snapshot.version for name, snapshot in self.snapshots.items()}

    @property
    def has_aliases(self) -> bool:
        """Say whether any profile was ever merged."""
        return self.aliases_path is not None

    @property
    def has_moved(self) -> bool:
        """Say whether a split ever moved source records."""
        return self.snapshots[MOVED.name].rows > 0


class Warehouse:
    """What the servicer and the jobs ask for: queries over a pinned version, and changes of the tables."""

    def __init__(self, lake: Lake, engine: Engine) -> None:
        self.lake = lake
        self.engine = engine
        self.derived = Derived(lake.root / "_derived")
        self._cleaned: dict[str, datetime] = {}

    def pin(self, tables: Sequence[Table], versions: Mapping[str, int] | None = None) -> Pinned:
        """Fix tables at their newest or the given versions; profiles' aliases and the cut-off are always in.

        Raises:
            StalePageToken: a given version is gone.
        """
        scored = [RESCORED] if SCORES in tables else []
        wanted = {table.name: table for table in (INTERACTIONS, PROFILES, ALIASES, MOVED, *tables, *scored)}
        try:
            snapshots = {name: self.lake.snapshot(table, (versions or {}).get(name)) for name, table in wanted.items()}
        except VersionGone as error:
            raise StalePageToken("the data version of this page token is gone; start again") from error
        newest = snapshots["interactions"].last_time
        return Pinned(snapshots, newest or EMPTY_CUTOFF, self._resolved(snapshots["aliases"]))

    def _resolved(self, snapshot: Snapshot) -> Path | None:
        """Return the file of resolved aliases of a version, made when it is asked for the first time."""
        if snapshot.rows == 0:
            return None
        parts, params = relations([snapshot])
        statement = joined(parts, RESOLVED_ALIASES)
        return self.derived.file(
            f"aliases-{snapshot.version}", lambda path: self.engine.copy(statement, params, path, ROW_GROUP_ROWS)
        )

    def rows(
        self,
        pinned: Pinned,
        tables: Sequence[str],
        body: str,
        params: Mapping[str, object],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Row]:
        """Run a statement (what follows the relations) over the pinned tables."""
        statement, merged = self.statement(pinned, tables, body, params, since, until)
        return self.engine.rows(statement, merged)

    def statement(
        self,
        pinned: Pinned,
        tables: Sequence[str],
        body: str,
        params: Mapping[str, object],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[str, Params]:
        """Return the whole statement with its parameters.

        `interactions` are whose they are by now, `told_interactions` as they were recorded; `scores` are the latest.
        """
        snapshots, overlays = self._overlaid(pinned, set(tables) - {"aliases"})
        parts, files = relations(snapshots, since, until)
        for name, told, overlay in overlays:
            place = next(index for index, part in enumerate(parts) if part.startswith(f"{name} AS"))
            parts[place] = told + parts[place].removeprefix(name)
            parts.append(f"{name} AS ({overlay})")
        if "aliases" in tables:
            parts.append("aliases AS (FROM read_parquet($aliases_path))")
            files["aliases_path"] = [str(pinned.aliases_path)]
        return joined(parts, body), {**files, **params}

    def _overlaid(self, pinned: Pinned, names: set[str]) -> tuple[list[Snapshot], list[tuple[str, str, str]]]:
        """Return the tables to read and, for those that splits changed rows of, name, name as told, and overlay."""
        overlays = []
        if "interactions" in names and pinned.has_moved:
            names = names | {MOVED.name}
            overlays.append(("interactions", "told_interactions", _WHOSE))
        if "scores" in names and pinned.snapshots[RESCORED.name].rows:
            names = names | {RESCORED.name}
            overlays.append(("scores", "told_scores", _LATEST_SCORES))
        return [pinned.snapshots[name] for name in sorted(names)], overlays

    def add(self, table: Table, rows: pa.Table, label: str = "") -> int:
        """Check and append; return how many rows were new (see the protocol in lake.py).

        Raises:
            Unavailable: other writers came first, time after time.
        """
        added = self._append(table, rows, label)
        if late := self._erased_among(table, rows):
            self.erase(late)
        return added

    def _append(self, table: Table, rows: pa.Table, label: str) -> int:
        for _ in range(RACES):
            snapshot = self.lake.snapshot(table)
            fresh = self._unknown(snapshot, rows)
            if fresh.num_rows == 0:
                return 0
            try:
                self.lake.append(snapshot, fresh, label)
            except WriterRaced:
                continue
            return fresh.num_rows
        raise Unavailable("the lake is being written by others; try again")

    def _erased_among(self, table: Table, rows: pa.Table) -> list[str]:
        """Return the erased people whose rows these are; looked for when the rows are in, so that none slips by."""
        snapshot = self.lake.snapshot(ERASED)
        if not snapshot.rows or "profile_id" not in table.columns or table in (PROFILES, ERASED):
            return []
        parts, params = relations([snapshot])
        body = "SELECT DISTINCT profile_id FROM incoming SEMI JOIN erased USING (profile_id)"
        return list(map(str, self.engine.table(joined(parts, body), params, incoming=rows).column(0).to_pylist()))

    def _unknown(self, snapshot: Snapshot, rows: pa.Table) -> pa.Table:
        """Return the rows that the snapshot does not know, in the table's order, one per key."""
        table = snapshot.table
        body = (_NEWER if table.order else _UNSEEN).replace("{fit}", _FITTING if table is ALIASES else "")
        beside = [self.lake.snapshot(PROFILES)] if table is ALIASES else []
        partitions = set(rows.column(table.partition).to_pylist()) if table.partition else {""}
        if not table.order:
            files = tuple(file for file in snapshot.files if file.partition in partitions)
            snapshot = Snapshot(table, snapshot.version, snapshot.appends, files)
        parts, params = relations([*beside, snapshot])
        body = body.format(
            table=table.name,
            keys=", ".join(table.key),
            first=table.key[0],
            order=table.order,
            same=" AND ".join(f"k.{key} IS NOT DISTINCT FROM n.{key}" for key in table.key),
            sort=", ".join([name for name in (table.partition, *table.sort) if name] or ["1"]),
        )
        return self.engine.table(joined(parts, body), params, incoming=rows).cast(arrow_schema(table))

    def sweep(self) -> int:
        """Delete the files of writers who were killed or lost a race, rows of erased people perhaps among theirs."""
        return sum(self.lake.sweep(table) for table in TABLES.values())

    def tidy(self) -> int:
        """Write small files anew as sorted ones, and fold recent states into the base; return how many times."""
        done = 0
        for table in TABLES.values():
            snapshot = self.lake.snapshot(table)
            for partition in _untidy(snapshot):
                try:
                    self._rewrite(snapshot, partition)
                except WriterRaced:
                    continue
                done += 1
                snapshot = self.lake.snapshot(table)
            if self._is_to_be_cleaned(table):
                self.lake.clean(table)
        return done

    def _is_to_be_cleaned(self, table: Table) -> bool:
        """Tell, once a day and table, so that what was replaced is gone a week later though nothing else changes."""
        now = datetime.now(UTC)
        if now - self._cleaned.get(table.name, EMPTY_CUTOFF) < REPLACED_FOR:
            return False
        self._cleaned[table.name] = now
        return True

    def _rewrite(self, snapshot: Snapshot, partition: str) -> None:
        """Write a partition anew; BASE of a state takes the recent rows in and so replaces the whole table."""
        table = snapshot.table
        folds = bool(table.order) and partition == BASE
        files = tuple(file for file in snapshot.files if folds or file.partition == partition)
        parts, params = relations([Snapshot(table, snapshot.version, snapshot.appends, files)])
        column = f", $value AS {table.partition}" if table.partition else ""
        extra: Params = {"value": partition} if table.partition else {}
        order = f" ORDER BY {', '.join(table.sort)}" if table.sort else ""
        statement = joined(parts, f"SELECT *{column} FROM {table.name}{order}")
        with self.engine.batches(statement, {**params, **extra}, 16_384) as reader:
            self.lake.rewrite(snapshot, reader, "" if folds else partition)
        self.lake.clean(table)

    def erase(self, profile_ids: Sequence[str]) -> None:
        """Remove all rows of erased people, and the files that held them; tombstones stay. A repeat changes nothing.

        Interactions go with the person who has their source record now. Whoever reads an older version at this moment,
        or pages through one, is told to start again.
        """
        whose = self._whose(profile_ids)
        self.lake.delete(INTERACTIONS, "record", [record for record, erased in whose.items() if erased])
        others = quoted(record for record, erased in whose.items() if not erased)
        only = {
            PROFILES.name: "NOT deleted",
            INTERACTIONS.name: f"(record IS NULL OR record NOT IN ({others}))" if others else "",
        }
        for table in (table for table in TABLES.values() if table is not ERASED):
            columns = [name for name in ("profile_id", "survivor_id") if name in table.columns]
            for column in columns:
                self.lake.delete(table, column, profile_ids, only.get(table.name, ""))
            if columns:
                self.lake.clean(table, at_once=True)
        self.derived.forget_all()

    def _whose(self, profile_ids: Sequence[str]) -> dict[str, bool]:
        """Return source records that splits moved to or from these people, and whether theirs they are now."""
        pinned = self.pin([])
        if not pinned.has_moved:
            return {}
        body = (
            "SELECT record, profile_id IN (SELECT unnest($ids::VARCHAR[])) FROM moved_records"
            " WHERE profile_id IN (SELECT unnest($ids::VARCHAR[])) OR record IN"
            " (SELECT record FROM told_interactions WHERE profile_id IN (SELECT unnest($ids::VARCHAR[])))"
        )
        rows = self.rows(pinned, ["interactions"], body, {"ids": list(profile_ids)})
        return {str(record): bool(erased) for record, erased in rows}

    def replace(self, snapshot: Snapshot, statement: str, params: Params) -> None:
        """Replace a snapshot's rows by those of a statement, people erased since it was read left out.

        Take the snapshot before what the statement reads is looked up.

        Raises:
            Unavailable: another writer changed these rows meanwhile, an erasure perhaps.
        """
        try:
            with self.engine.batches(statement, params, 16_384) as reader:
                self.lake.rewrite(snapshot, reader)
        except WriterRaced as error:
            raise Unavailable("the lake is being written by others; try again") from error
        if late := self._erased_in(snapshot.table):
            self.erase(late)

    def _erased_in(self, table: Table) -> list[str]:
        """Return the erased people who have rows in a table."""
        parts, params = relations([self.lake.snapshot(ERASED), self.lake.snapshot(table)])
        body = f"SELECT DISTINCT profile_id FROM {table.name} SEMI JOIN erased USING (profile_id)"
        return [str(row[0]) for row in self.engine.rows(joined(parts, body), params)]


_UNSEEN: Final = (
    "seen AS MATERIALIZED (SELECT {keys} FROM {table} SEMI JOIN incoming USING ({keys}))"
    " SELECT * FROM (SELECT * FROM incoming QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {first}) = 1)"
    " ANTI JOIN seen USING ({keys}) ORDER BY {sort}"
)
_NEWER: Final = (
    "latest AS MATERIALIZED (SELECT * FROM incoming"
    " QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order} DESC) = 1),"
    " known AS MATERIALIZED (SELECT {keys}, {order} FROM {table} SEMI JOIN latest USING ({keys}))"
    " SELECT n.* FROM latest n LEFT JOIN known k ON {same}"
    " WHERE (k.{order} IS NULL OR n.{order} > k.{order}){fit} ORDER BY {sort}"
)
# The end of a merge matters where one is known; a merge does not matter where its end came before it.
_FITTING: Final = (
    " AND (n.survivor_id IS NOT NULL OR k.{first} IS NOT NULL)"
    " AND (n.survivor_id IS NULL OR NOT EXISTS (SELECT 1 FROM profiles p WHERE p.profile_id = n.profile_id"
    " AND NOT p.deleted AND p.merged_into IS NULL AND p.version > n.version))"
)
_WHOSE: Final = (
    "SELECT i.* REPLACE (coalesce(m.profile_id, i.profile_id) AS profile_id)"
    " FROM told_interactions i LEFT JOIN moved_records m ON m.record = i.record"
)
_LATEST_SCORES: Final = (
    f"SELECT {', '.join(SCORES.columns)} FROM told_scores ANTI JOIN rescored USING (profile_id)"
    f" UNION ALL SELECT {', '.join(SCORES.columns)} FROM rescored WHERE rfm_segment IS NOT NULL"
)


def _untidy(snapshot: Snapshot) -> list[str]:
    """Return the partitions to write anew; a state is folded when its recent rows are many or a day is over."""
    table = snapshot.table
    if table.order:
        recent = [file for file in snapshot.files if file.partition == RECENT]
        base = [file for file in snapshot.files if file.partition == BASE]
        folded = min((file.written for file in base or recent), default=datetime.now(UTC))
        is_old = bool(recent) and folded < datetime.now(UTC) - REPLACED_FOR
        if is_old or sum(file.rows for file in recent) > max(RECENT_ROWS, snapshot.rows // 10):
            return [BASE]
        return [RECENT if base else BASE] if len(recent) > RECENT_FILES else []
    counts: dict[str, int] = {}
    for file in snapshot.files:
        if file.size_bytes < SMALL_FILE_BYTES:
            counts[file.partition] = counts.get(file.partition, 0) + 1
    return sorted(partition for partition, count in counts.items() if count > FILES_PER_PARTITION)
