"""Import a file of interactions in batches: normalize, find the profiles, check and append, note what was set apart."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from services.analytics.domain.importing import APART_SQL, MATCHED_SQL, WRONG_COLUMN_COUNT, FileOptions, normalizing_sql
from services.analytics.domain.rows import AHEAD, EARLIEST, Keyed, record_token
from services.analytics.domain.tables import APART, INTERACTIONS
from services.analytics.files import InteractionFile
from services.analytics.lake import arrow_schema
from services.analytics.warehouse import Warehouse

RESOLVE_LIMIT: Final = 1000  # ResolveSourceRecords documents this maximum
REMEMBERED: Final = 200_000  # resolved ids kept between batches


class Resolver(Protocol):
    """Asks the profiles service; unknown records are left out."""

    def __call__(self, source_id: str, source_record_ids: Sequence[str]) -> Mapping[str, str]:
        """Return source record id → profile id for at most RESOLVE_LIMIT ids."""


@dataclass(slots=True)
class Progress:
    """How far an import is: the next batch, and the rows so far."""

    next_batch: int = 0
    read: int = 0
    written: int = 0
    apart: Counter[str] = field(default_factory=Counter)

    @property
    def duplicates(self) -> int:
        """Return the rows that were in the lake before, or twice in the file."""
        return self.read - self.written - sum(self.apart.values())

    def checkpoint(self) -> dict[str, object]:
        """Return the progress as a job keeps it."""
        return {
            "next_batch": self.next_batch,
            "read": self.read,
            "written": self.written,
            "apart": dict(self.apart),
        }

    @staticmethod
    def of(checkpoint: Mapping[str, object]) -> Progress:
        """Return the progress of a kept checkpoint."""
        apart = checkpoint.get("apart", {})
        assert isinstance(apart, Mapping)
        return Progress(
            int(str(checkpoint.get("next_batch", 0))),
            int(str(checkpoint.get("read", 0))),
            int(str(checkpoint.get("written", 0))),
            Counter({str(name): int(count) for name, count in apart.items()}),
        )


class Importer:
    """Brings one file into the lake; every step may be repeated."""

    def __init__(
        self, warehouse: Warehouse, resolve: Resolver, operation: str, options: FileOptions, keyed: Keyed
    ) -> None:
        self._warehouse = warehouse
        self._resolve = resolve
        self._operation = operation
        self._options = options
        self._keyed = keyed
        self._known: OrderedDict[str, str] = OrderedDict()

    def take(self, file: InteractionFile, batch: pa.Table, progress: Progress, *, resumed: bool) -> None:
        """Import one batch and move the progress on; `resumed` asks whether it was in before a crash."""
        engine = self._warehouse.engine
        normal = engine.table(normalizing_sql(file.columns), self._params(), incoming=_numbered(batch, progress.read))
        pairs = self._resolved(normal)
        matched = engine.table(MATCHED_SQL, {}, incoming=normal, resolved=pairs)
        now = datetime.now(UTC)
        apart = engine.table(APART_SQL, {"operation": self._operation, "now": now}, incoming=normal, resolved=pairs)
        label = f"{self._operation}#{progress.next_batch}"
        before = self._warehouse.lake.labelled_rows(INTERACTIONS, label) if resumed else 0
        written = self._warehouse.add(INTERACTIONS, matched.cast(arrow_schema(INTERACTIONS)), label)
        self._warehouse.add(APART, apart.cast(arrow_schema(APART)))
        progress.written += written + before
        progress.apart.update(apart.column("reason").to_pylist())
        progress.read += batch.num_rows
        progress.next_batch += 1

    def finish(self, file: InteractionFile, progress: Progress) -> None:
        """Count the lines that were no rows, and leave the lake tidy."""
        if file.misfits:
            progress.apart[WRONG_COLUMN_COUNT] = file.misfits
            progress.read += file.misfits
        self._warehouse.tidy()

    def _params(self) -> dict[str, object]:
        options = self._options
        return {
            "offset": options.offset_minutes,
            "event_type": options.event_type,
            "channel": options.channel,
            "earliest": EARLIEST,
            "latest": datetime.now(UTC) + AHEAD,
        }

    def _token(self, source_record_id: str) -> str:
        return record_token(self._keyed, self._options.source_id, source_record_id)

    def _resolved(self, normal: pa.Table) -> pa.Table:
        """Return the known profiles of a batch's rows; ids not seen lately are asked, 1000 at a time."""
        fit = normal.filter(pc.is_null(normal.column("reason")))
        asked = sorted(set(fit.column("source_record_id").to_pylist()))
        missing = [name for name in asked if name not in self._known]
        for start in range(0, len(missing), RESOLVE_LIMIT):
            found = self._resolve(self._options.source_id, missing[start : start + RESOLVE_LIMIT])
            self._known.update(found)
        pairs = [(name, self._known[name]) for name in asked if name in self._known]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return pa.table(
            {
                "source_record_id": pa.array([name for name, _ in pairs], pa.string()),
                "profile_id": pa.array([profile for _, profile in pairs], pa.string()),
                "record": pa.array([self._token(name) for name, _ in pairs], pa.string()),
            }
        )


def _numbered(batch: pa.Table, read: int) -> pa.Table:
    """Return the batch with the file's row numbers, from 1."""
    numbers = pa.array(range(read + 1, read + 1 + batch.num_rows), pa.int64())
    return batch.append_column("row_number", numbers)
