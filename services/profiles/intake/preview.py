"""Try a file on its first rows: what would become of them, without writing anything."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from services.profiles.admission import admissible, entry_of
from services.profiles.dictionary import Dictionary
from services.profiles.domain.sources import ColumnMapping, SourceSettings, read_row
from services.profiles.domain.values import Problem, Severity, StandardRecord
from services.profiles.errors import FileTooLarge
from services.profiles.folding import Incoming
from services.profiles.intake import FileOptions, Row, RowSource, open_rows
from services.profiles.intake.formats import tell_format
from services.profiles.intake.neighbours import Neighbours, value_tokens
from services.profiles.intake.suggestions import Suggestion, suggest
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.vault import Vault

PREVIEW_ROWS = 100
PREVIEW_BYTES = 32 * 1024 * 1024  # held in memory, for a preview leaves nothing behind
STREAMED = ("csv", "jsonl")  # formats whose first part can be read alone


@dataclass(frozen=True, slots=True)
class Tried:
    """One row as it would be read; no record when it cannot be."""

    number: int
    record: StandardRecord | None = field(repr=False)
    problems: Sequence[Problem]

    @property
    def is_accepted(self) -> bool:
        """Tell whether an import would take it in."""
        return all(item.severity is not Severity.REJECT for item in self.problems)


@dataclass(frozen=True, slots=True)
class Preview:
    """What the first rows of a file would become under a mapping."""

    format: str
    encoding: str
    columns: Sequence[str]
    settings: SourceSettings
    rows: Sequence[Tried]
    suggestions: Sequence[Suggestion]

    @property
    def rates(self) -> dict[str, float]:
        """Return in which share of the rows each reason was met."""
        counts = Counter(reason for row in self.rows for reason in {item.reason for item in row.problems})
        return {reason: count / len(self.rows) for reason, count in counts.items()}


def gather(parts: Iterable[bytes]) -> tuple[io.BytesIO, bool]:
    """Return the first part of a file, and whether that is all of it; the rest is let pass."""
    kept, is_whole = io.BytesIO(), True
    for part in parts:
        room = PREVIEW_BYTES - kept.tell()
        kept.write(part[:room])
        is_whole = is_whole and len(part) <= room
    return kept, is_whole


def open_first(file: io.BytesIO, is_whole: bool, options: FileOptions) -> RowSource:
    """Open the first part of a file.

    Raises:
        FileTooLarge: a workbook or Parquet file that is not whole.
    """
    if not is_whole and (options.format or tell_format(file, options.file_name)) not in STREAMED:
        limit = str(PREVIEW_BYTES)
        raise FileTooLarge(f"a preview of a table takes {limit} bytes; send a part", metadata={"limit_bytes": limit})
    return open_rows(file, options)


def preview(opened: RowSource, settings: SourceSettings, dictionary: Dictionary, now: datetime) -> Preview:
    """Read the first rows under the settings' mapping, or under what the columns suggest when it has none."""
    rows = list(islice(opened.rows, PREVIEW_ROWS))
    columns = opened.columns or tuple(dict.fromkeys(name for row in rows for name in row.values if name))
    suggestions = suggest(columns, [row.values for row in rows if not row.fault])
    if not settings.mapping:
        settings = replace(settings, mapping=tuple(ColumnMapping(item.column, item.field) for item in suggestions))
    tried = [_try(row, settings, dictionary, now) for row in rows]
    return Preview(opened.format, opened.encoding, columns, settings, tried, suggestions)


def among_others(rows: Sequence[Tried], store: Store, vault: Vault, dictionary: Dictionary) -> list[Tried]:
    """Return the rows with the problems of rules that look at other records, those stored and those before each."""
    neighbours, indexes = Neighbours.now(vault, dictionary), dictionary.indexes()
    records = [row.record for row in rows if row.record and row.is_accepted]
    counted = neighbours.counted(records)
    if not dictionary.cross_rules():
        return list(rows)
    waiting = [Incoming(item, "", vault.tokens(item), value_tokens=value_tokens(item, indexes, vault))
               for item in records]  # fmt: skip
    loaded, _ = load(store, vault, store.by_record_keys([item.key for item in waiting]))
    _, found = neighbours.judge_batch(waiting, loaded, store.holders(counted))
    by_record = {id(item.record): found.get(item.key, ()) for item in waiting}
    return [replace(row, problems=(*row.problems, *by_record.get(id(row.record), ()))) for row in rows]


def _try(row: Row, settings: SourceSettings, dictionary: Dictionary, now: datetime) -> Tried:
    entry = entry_of(row)
    if entry.fault:
        return Tried(row.number, None, (Problem(entry.fault_column, entry.fault, Severity.REJECT),))
    raw = read_row(settings, entry.values, now)
    record = admissible(raw, settings, dictionary)
    return Tried(row.number, record, record.problems)
