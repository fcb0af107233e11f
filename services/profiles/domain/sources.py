"""How a source's rows become raw records: its columns, date order and trust, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from services.profiles.domain.dates import parse_timestamp
from services.profiles.domain.mapping import Transform, ValueNotListed, columns_of
from services.profiles.domain.values import Problem, RawRecord, Severity, StandardRecord

SOURCE_RECORD_ID = "source_record_id"
UPDATED_TIME = "updated_time"
RESIDENT_ID = "resident_id"
DELETED = "record_deleted"
_DELETED_WORDS = """
1 true t yes y d delete deleted 是 删除 已删除 注销 已注销
"""
_IS_DELETED = frozenset(_DELETED_WORDS.split())
_THERE_WORDS = """
0 false f no n active 否 正常 有效
"""
_IS_THERE = frozenset(("", *_THERE_WORDS.split()))
CLOCKS_DIFFER = timedelta(days=1)  # between a source and us at most
_ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+?\d{1,2}").fullmatch  # as a spreadsheet exports a long number


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """One column of a source and the standard field its text belongs to; several columns may feed one field."""

    column: str
    field: str
    transforms: tuple[Transform, ...] = ()

    def read(self, row: Mapping[str, str]) -> str:
        """Return the field's text.

        Raises:
            ValueNotListed: a value map refuses it.
        """
        text = row.get(self.column, "")
        for step in self.transforms:
            text = step.apply(text, row)
        return text


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What is known of a source before its first row.

    `date_order` is how an all-numeric date is read when the year is not first: "dmy" or "mdy" ("ymd" refuses
    such dates as ambiguous). `trust_rank`: 1 is trusted most. `utc_offset_minutes` is the zone of its
    timestamps. `is_unique`: the source promises one record for one person. `version` counts the changes
    of these settings.
    """

    source_id: str
    mapping: tuple[ColumnMapping, ...]
    date_order: str = "ymd"
    trust_rank: int = 100
    owner_department: str = ""
    utc_offset_minutes: int = 480
    default_region: str = "CN"
    is_unique: bool = False
    version: int = 0

    @property
    def columns(self) -> frozenset[str]:
        """Return the columns that the mapping reads."""
        return frozenset(name for item in self.mapping for name in columns_of(item.column, item.transforms))


def read_row(source: SourceSettings, row: Mapping[str, str], received_time: datetime) -> RawRecord:
    """Map a row's columns to standard fields; columns that feed one field are joined by a space.

    A missing record id or an unreadable time of change is a problem of the record, not an exception.
    """
    fields: dict[str, str] = {}
    unlisted: list[Problem] = []
    for item in source.mapping:
        try:
            text = item.read(row) if item.transforms else row.get(item.column, "")
        except ValueNotListed:
            unlisted.append(Problem(item.field, "VALUE_NOT_LISTED", Severity.REJECT))
            continue
        if text and text.strip():
            fields[item.field] = f"{fields[item.field]} {text}" if item.field in fields else text
    record_id = fields.pop(SOURCE_RECORD_ID, "").strip()
    stamp = fields.pop(UPDATED_TIME, "")
    problems = unlisted if record_id else [*unlisted, Problem(SOURCE_RECORD_ID, "RECORD_ID_MISSING", Severity.REJECT)]
    exact = {SOURCE_RECORD_ID: record_id, RESIDENT_ID: fields.get(RESIDENT_ID, "").strip()}
    problems += [Problem(name, "DIGITS_LOST", Severity.REJECT) for name, text in exact.items() if _ROUNDED(text)]
    updated_time, reason = _time_of_change(stamp, source, received_time) if stamp else (received_time, "")
    if reason:
        problems.append(Problem(UPDATED_TIME, reason, Severity.REJECT))
    raw = RawRecord(source.source_id, record_id, updated_time.astimezone(UTC), fields, tuple(problems))
    return heed_mark(raw)


def _time_of_change(stamp: str, source: SourceSettings, received: datetime) -> tuple[datetime, str]:
    """Return when a source says that it changed a record, or when we received it and why that cannot be."""
    found = parse_timestamp(stamp, source.date_order, source.utc_offset_minutes, received.year)
    if found is None:
        return received, "TIME_UNREADABLE"
    return (received, "TIME_IN_THE_FUTURE") if found > received + CLOCKS_DIFFER else (found, "")


def heed_mark(raw: RawRecord) -> RawRecord:
    """Return the record without its mark of deletion; of a deleted one nothing but the mark."""
    mark = raw.fields.get(DELETED)
    if mark is None:
        return raw
    word = mark.strip().casefold()
    if word in _IS_DELETED:
        return replace(raw, fields={DELETED: "true"})
    rest = {name: text for name, text in raw.fields.items() if name != DELETED}
    unread = () if word in _IS_THERE else (Problem(DELETED, "DELETE_MARK_UNREADABLE", Severity.REJECT),)
    return replace(raw, fields=rest, problems=(*raw.problems, *unread))


def is_deletion(raw: RawRecord) -> bool:
    """Tell whether the source says that the record is no more."""
    return DELETED in raw.fields


def deleted_record(raw: RawRecord, source: SourceSettings) -> StandardRecord:
    """Return the version of a record that says nothing of anybody: its person keeps what other records say."""
    return StandardRecord(
        raw.source_id, raw.source_record_id, raw.updated_time, source.trust_rank, source.owner_department,
        source.is_unique, problems=raw.problems,
    )  # fmt: skip
