"""From rows to profiles: read by the source's mapping, standardize, set apart what is bad, take in the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import orjson

from services.profiles.dictionary import Dictionary
from services.profiles.domain import problems
from services.profiles.domain.dictionary import DEFAULT_BY_NAME
from services.profiles.domain.retention import without
from services.profiles.domain.sources import (
    DELETED,
    SOURCE_RECORD_ID,
    UPDATED_TIME,
    SourceSettings,
    deleted_record,
    heed_mark,
    is_deletion,
    read_row,
)
from services.profiles.domain.standardize import standardize
from services.profiles.domain.validation import RULE
from services.profiles.domain.values import RawRecord, Severity, StandardRecord
from services.profiles.folding import Incoming, Outcome
from services.profiles.intake import FAULTS, FIELD_UNKNOWN, WHOLE_ROW, Row, describe_fault
from services.profiles.intake.mapping import domain_mapping
from services.profiles.intake.neighbours import value_tokens
from services.profiles.intake.rejecting import Admitted, Rejects
from services.profiles.protection.ledger import ledger_of
from services.profiles.relations.columns import ColumnFollower
from services.profiles.sharing import SharedTaker
from services.profiles.store import Store
from services.profiles.taking import Taken, Taker, Tally
from services.profiles.values import Reject, Source, record_key
from services.profiles.vault import Vault

BATCH_ROWS = 500
PARTS_OF_ADDRESS = ("province", "city", "district")
TIER = "tier"
DERIVED = frozenset(("title", "province_code", "city_code", "district_code", "owner_department"))
BUILT_IN = frozenset((*DEFAULT_BY_NAME, *PARTS_OF_ADDRESS, TIER)) - DERIVED  # fields that a source may feed
MAPPABLE = BUILT_IN | {SOURCE_RECORD_ID, UPDATED_TIME, DELETED}


def settings_of(source: Source) -> SourceSettings:
    """Return the source as the domain knows it."""
    return SourceSettings(
        source.id, domain_mapping(source.mapping), source.date_order, source.trust_rank,
        source.owner_department, source.utc_offset_minutes, source.default_region, source.is_unique, source.version,
    )  # fmt: skip


def describe(reason: str) -> str:
    """Return what to do about a reason, of the domain or of the reading."""
    if reason.startswith(RULE):
        return f"The value breaks the rule validationRules/{reason.removeprefix(RULE)}; see there and correct it."
    return describe_fault(reason) if reason in FAULTS else problems.describe(reason)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row or record to admit; `values` are by column when `is_row`, else by field. `fault` is of the reading."""

    number: int
    values: Mapping[str, str] = field(repr=False)
    is_row: bool = True
    source_record_id: str = ""
    updated_time: datetime | None = None
    fault: str = ""
    fault_column: str = ""


@dataclass(slots=True)
class Summary:
    """Sums over rows; see IntakeSummary of the proto."""

    rows_read: int = 0
    rows_accepted: int = 0
    rows_unchanged: int = 0
    rows_stale: int = 0
    rows_rejected: int = 0
    rejects_by_reason: dict[str, int] = field(default_factory=dict)
    profiles_created: int = 0
    profiles_updated: int = 0
    profiles_merged: int = 0
    review_pairs: int = 0
    rows_deleted: int = 0
    records_missing: int = 0
    records_deleted: int = 0
    warnings_by_reason: dict[str, int] = field(default_factory=dict)
    rows_erased: int = 0

    def add(self, admitted: Sequence[Admitted], tally: Tally) -> None:
        """Add what became of a batch."""
        counts = Counter(item.outcome for item in admitted)
        reasons = Counter(reason for item in admitted for _, reason in item.reasons)
        warnings = Counter(reason for item in admitted for reason in {reason for _, reason in item.warnings})
        self.rows_read += len(admitted)
        self.rows_unchanged += counts[Outcome.UNCHANGED]
        self.rows_stale += counts[Outcome.STALE]
        self.rows_rejected += counts[Outcome.REJECTED]
        self.rows_accepted += counts[Outcome.CREATED] + counts[Outcome.UPDATED]
        self.rows_erased += counts[Outcome.ERASED]
        self.rows_deleted += deletions(admitted)
        for reason, count in reasons.items():
            self.rejects_by_reason[reason] = self.rejects_by_reason.get(reason, 0) + count
        for reason, count in warnings.items():
            self.warnings_by_reason[reason] = self.warnings_by_reason.get(reason, 0) + count
        self.profiles_created += tally.profiles_created
        self.profiles_updated += tally.profiles_updated
        self.profiles_merged += tally.profiles_merged
        self.review_pairs += tally.review_pairs


def deletions(admitted: Sequence[Admitted]) -> int:
    """Return how many records were deleted."""
    return sum(item.is_deletion and item.outcome in (Outcome.CREATED, Outcome.UPDATED) for item in admitted)


@dataclass(slots=True)
class Prepared:
    """Entries read and standardized, ready to be written."""

    operation: str
    source_id: str
    accepted: list[tuple[Entry, Incoming]] = field(default_factory=list)
    refused: list[tuple[Entry, str, list[tuple[str, str]]]] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)  # numbers of the entries that delete their record
    source_version: int = 0


class Admission:
    """Admits rows of sources."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        taker: Taker | SharedTaker,
        may_feed: Callable[[str], bool] = MAPPABLE.__contains__,
    ) -> None:
        """Admit with these tools; `may_feed` tells which fields a record (not a row) may bring."""
        self._may_feed = may_feed
        self._store = store
        self._vault = vault
        self._taker = taker
        self._rejects = Rejects(store, vault)
        self._ledger = ledger_of(store, vault)

    def read(self, settings: SourceSettings, entries: Sequence[Entry], operation: str, now: datetime) -> Prepared:
        """Read and standardize entries; nothing is written."""
        prepared = Prepared(operation, settings.source_id, source_version=settings.version)
        for entry in entries:
            self._read_one(settings, entry, prepared, now)
        return prepared

    def _read_one(self, settings: SourceSettings, entry: Entry, prepared: Prepared, now: datetime) -> None:
        if entry.fault:
            prepared.refused.append((entry, "", [(entry.fault_column, entry.fault)]))
            return
        unknown = "" if entry.is_row else next((name for name in entry.values if not self._may_feed(name)), "")
        if unknown:
            prepared.refused.append((entry, entry.source_record_id, [(unknown, FIELD_UNKNOWN)]))
            return
        raw = _raw(settings, entry, now)
        record = admissible(raw, settings, self._taker.dictionary)
        if record.is_rejected:
            grave = [(item.field, item.reason) for item in record.problems if item.severity is Severity.REJECT]
            prepared.refused.append((entry, raw.source_record_id, grave))
            return
        origin = f"{prepared.operation}:{entry.number}" if prepared.operation else ""
        counted = value_tokens(record, self._taker.dictionary.indexes(), self._vault)
        content, tokens = self._vault.content_hash(raw), self._vault.tokens(record)
        incoming = Incoming(record, content, tokens, origin, settings.version, counted)
        prepared.accepted.append((entry, incoming))
        prepared.deleted.update((entry.number,) if is_deletion(raw) else ())

    def write(self, prepared: Prepared, *, keep_rejects: bool = True) -> tuple[list[Admitted], Tally]:
        """Take in what was accepted and set apart what was refused, in the order of the entries.

        Records of erased persons are refused, and nothing of them is kept.
        """
        erased = self._without_erased(prepared)
        wanted, idle = self._without_idle(prepared)
        taken, tally = self._taker.take([incoming for _, incoming in wanted])
        wanted, taken = _set_apart(prepared, wanted, taken)
        self._follow_relations([item[1].record for item, found in zip(wanted, taken, strict=True)
                                if found.outcome is not Outcome.STALE])  # fmt: skip
        rejects = [self._reject(prepared, *item) for item in prepared.refused]
        if keep_rejects:
            self._store.rejects.add_missing(rejects)
        admitted = {
            entry.number: _admitted(incoming, found, entry.number in prepared.deleted)
            for (entry, incoming), found in zip(wanted, taken, strict=True)
        }
        admitted.update({number: Admitted(record_id, Outcome.UNCHANGED) for number, record_id in idle.items()})
        if keep_rejects:
            self._rejects.close(prepared.source_id, prepared.operation, admitted, {item.id for item in rejects})
        for (entry, record_id, reasons), reject in zip(prepared.refused, rejects, strict=True):
            admitted[entry.number] = Admitted(record_id, Outcome.REJECTED, reject_id=reject.id, reasons=reasons)
        admitted.update({number: Admitted(record_id, Outcome.ERASED) for number, record_id in erased.items()})
        return [admitted[number] for number in sorted(admitted)], tally

    def _without_erased(self, prepared: Prepared) -> dict[int, str]:
        """Take the records of erased persons out; return their ids by number."""
        ids = {entry.number: incoming.record.source_record_id for entry, incoming in prepared.accepted}
        ids.update({item[0].number: item[1] for item in prepared.refused if item[1]})
        gone = self._ledger.erased([record_key(prepared.source_id, record_id) for record_id in ids.values()])
        if not gone:
            return {}
        found = {number: item for number, item in ids.items() if record_key(prepared.source_id, item) in gone}
        prepared.accepted = [item for item in prepared.accepted if item[0].number not in found]
        prepared.refused = [item for item in prepared.refused if item[0].number not in found]
        return found

    def _follow_relations(self, records: Sequence[StandardRecord]) -> None:
        """Keep what the columns of the records' source say of relationships, but for what retention took of them."""
        columns = self._taker.dictionary.relations()
        source_id = records[0].source_id if records else ""
        if source_id in columns.columns or source_id in columns.code_fields:
            profiles = self._store.by_record_keys([record_key(*item.key) for item in records])
            retired = {item.key: item.retired for profile in profiles for item in profile.records}
            left = [without(item, retired.get(record_key(*item.key), ())) for item in records]
            ColumnFollower(self._store, self._vault).follow(left, columns)

    def _without_idle(self, prepared: Prepared) -> tuple[list[tuple[Entry, Incoming]], dict[int, str]]:
        """Return what is to be written, and by number the ids of records to delete that nobody ever sent."""
        if not prepared.deleted:
            return prepared.accepted, {}
        known: set[str] = set()
        keys = [incoming.key for entry, incoming in prepared.accepted if entry.number in prepared.deleted]
        known.update(key for profile in self._store.by_record_keys(keys) for key in profile.record_keys)
        wanted, idle = [], {}
        for entry, incoming in prepared.accepted:
            if entry.number in prepared.deleted and incoming.key not in known:
                idle[entry.number] = incoming.record.source_record_id
            else:
                known.add(incoming.key)
                wanted.append((entry, incoming))
        return wanted, idle

    def admit(
        self, settings: SourceSettings, entries: Sequence[Entry], operation: str = "", *, keep_rejects: bool = True
    ) -> tuple[list[Admitted], Tally]:
        """Read and write entries in one step."""
        prepared = self.read(settings, entries, operation, datetime.now(UTC))
        return self.write(prepared, keep_rejects=keep_rejects)

    def _reject(self, prepared: Prepared, entry: Entry, record_id: str, reasons: Sequence[tuple[str, str]]) -> Reject:
        told = entry.values.items() if entry.is_row else sorted(entry.values.items())  # a message's map has no order
        content = {
            "is_row": entry.is_row, "values": dict(told), "id": record_id or entry.source_record_id,
            "time": entry.updated_time.isoformat() if entry.updated_time else "",
        }  # fmt: skip
        made = self._rejects.make(prepared.source_id, prepared.operation, entry.number, content, reasons)
        return replace(made, source_version=prepared.source_version)

    def reopen(self, reject: Reject, corrections: Mapping[str, str]) -> Entry:
        """Return the entry of a set-apart row with corrected columns."""
        content = orjson.loads(self._vault.uploads.open(reject.row, f"rejects/{reject.id}".encode()))
        values = {**content["values"], **corrections}
        if corrections:
            values.pop(WHOLE_ROW, None)  # what could not be read is replaced by them
        record_id = values.pop(SOURCE_RECORD_ID, content["id"]) if not content["is_row"] else content["id"]
        time = datetime.fromisoformat(content["time"]) if content["time"] else None
        return Entry(reject.row_number, values, content["is_row"], record_id, time)


def admissible(raw: RawRecord, settings: SourceSettings, dictionary: Dictionary) -> StandardRecord:
    """Return the standard form of a record with all its problems, those of the dictionary and the rules among them."""
    if is_deletion(raw):
        return deleted_record(raw, settings)
    record = standardize(raw, settings)
    found = dictionary.broken(record)
    return replace(record, problems=(*record.problems, *found)) if found else record


def _set_apart(
    prepared: Prepared, wanted: Sequence[tuple[Entry, Incoming]], taken: Sequence[Taken]
) -> tuple[list[tuple[Entry, Incoming]], list[Taken]]:
    """Return what was taken in; what broke a rule that looks at other records is refused."""
    kept = []
    for (entry, incoming), found in zip(wanted, taken, strict=True):
        if found.outcome is not Outcome.REJECTED:
            kept.append(((entry, incoming), found))
            continue
        grave = [(item.field, item.reason) for item in found.problems if item.severity is Severity.REJECT]
        prepared.refused.append((entry, incoming.record.source_record_id, grave))
    return [item for item, _ in kept], [found for _, found in kept]


def entry_of(row: Row) -> Entry:
    """Return the entry of a row of a file."""
    return Entry(row.number, row.values, fault=row.fault, fault_column=row.fault_column)


def _raw(settings: SourceSettings, entry: Entry, now: datetime) -> RawRecord:
    if entry.is_row:
        return read_row(settings, entry.values, now)
    fields = {name: text for name, text in entry.values.items() if text.strip()}
    return heed_mark(RawRecord(settings.source_id, entry.source_record_id, entry.updated_time or now, fields))


def _admitted(incoming: Incoming, taken: Taken, is_deletion: bool) -> Admitted:
    record = incoming.record
    warnings = [(item.field, item.reason) for item in dict.fromkeys((*record.problems, *taken.problems))]
    return Admitted(
        record.source_record_id, taken.outcome, taken.profile_id, is_deletion=is_deletion, warnings=warnings,
        is_clean=taken.is_clean,
    )  # fmt: skip
