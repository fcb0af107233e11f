"""How long what is stored is kept, and what of a record is left then.

Personal data is kept no longer than its purpose needs (PIPL article 19) and deleted when that time is over (article
47); transaction records are kept three years at least (E-Commerce Law article 31). Which days follow from that is the
owner's rule; here is what a rule does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.profiles.domain.values import Address, StandardRecord

WHOLE = "*"


class RecordType(StrEnum):
    """What a rule is about."""

    SOURCE_RECORDS = "source_records"
    SUPERSEDED_VERSIONS = "superseded_versions"
    PAST_PROFILES = "past_profiles"
    REJECTS = "rejects"
    UPLOADS = "uploads"
    INTERACTIONS = "interactions"


class Action(StrEnum):
    """What happens when the days are over."""

    DELETE = "delete"
    GENERALIZE = "generalize"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One revision of a rule; `field` is WHOLE or one field of source records, `source_id` empty for all.

    `counts_received` measures from the receipt of the version, not from the source's own time of change; `is_final`
    says that no newer version brings back what was taken.
    """

    rule_id: str
    revision: int
    record_type: RecordType
    days: int
    action: Action = Action.DELETE
    field: str = WHOLE
    source_id: str = ""
    counts_received: bool = False
    is_final: bool = False

    @property
    def mark(self) -> str:
        """Return what a record carries once the rule was applied to it."""
        return f"{self.field}:{self.action}"

    def is_about(self, record_type: RecordType, source_id: str) -> bool:
        """Tell whether things of this kind and source fall under the rule."""
        return self.record_type is record_type and self.source_id in ("", source_id)

    def is_due(self, changed: datetime, received: datetime, now: datetime) -> bool:
        """Tell whether the days are over."""
        return (received if self.counts_received else changed) <= now - timedelta(days=self.days)

    def is_done(self, retired: Sequence[str]) -> bool:
        """Tell whether what the rule takes is gone already, by the marks that a record carries."""
        return not {f"{WHOLE}:delete", f"{self.field}:delete", self.mark}.isdisjoint(retired)


def first_things_first(rules: Iterable[RetentionRule]) -> list[RetentionRule]:
    """Return rules in the order they are asked: whole records, deletions, generalizations; then by id."""
    return sorted(rules, key=lambda rule: (rule.field != WHOLE, rule.action is not Action.DELETE, rule.rule_id))


def due_rules(
    rules: Sequence[RetentionRule], record: StandardRecord, received: datetime, retired: Sequence[str], now: datetime
) -> list[RetentionRule]:
    """Return the rules that take something from a record now, at most one for each field.

    A rule for the whole record makes the others needless; one that finds nothing to take is none of them.
    """
    found: list[RetentionRule] = []
    for rule in first_things_first(rules):
        is_open = rule.is_about(RecordType.SOURCE_RECORDS, record.source_id) and not rule.is_done(retired)
        is_first = all(other.field not in (WHOLE, rule.field) for other in found)
        if is_open and is_first and rule.is_due(record.updated_time, received, now):
            found += [rule] if without(record, [rule.mark]) != record else []
    return found


def without(record: StandardRecord, marks: Iterable[str]) -> StandardRecord:
    """Return the record without what these marks say; what is not there is not missed."""
    for mark in marks:
        field, _, action = mark.rpartition(":")
        if field == WHOLE:
            return StandardRecord(
                record.source_id, record.source_record_id, record.updated_time, record.trust_rank,
                record.owner_department, record.is_unique_in_source,
            )  # fmt: skip
        taken = GENERALIZED[field](record) if action == Action.GENERALIZE else _deleted(record, field)
        gone = (field, *_TOLD_WITH.get(field, ()))
        record = replace(
            taken, originals={name: text for name, text in record.originals.items() if name not in gone},
            problems=tuple(item for item in record.problems if item.field not in gone),
        )  # fmt: skip
    return record


def _deleted(record: StandardRecord, field: str) -> StandardRecord:
    return replace(record, **_NOTHING.get(field, {}))  # type: ignore[arg-type]


def _surname_only(record: StandardRecord) -> StandardRecord:
    return replace(record, name=record.name._replace(given="") if record.name and record.name.surname else None)


def _year_only(record: StandardRecord) -> StandardRecord:
    year = int(record.birth_date[:4]) if record.birth_date else 0
    return replace(record, birth_date="", birth_years=(year, year)) if year else record


def _city_only(record: StandardRecord) -> StandardRecord:
    found = record.address
    if found is None:
        return record
    kept = Address(found.province_code, found.city_code, "", found.province, found.city)
    return replace(record, address=kept if kept.text else None)


_NOTHING: Mapping[str, Mapping[str, object]] = {
    "name": {"name": None},
    "gender": {"gender": ""},
    "birth_date": {"birth_date": "", "birth_years": None},
    "resident_id": {"resident_id": "", "documents": ()},
    "phone": {"phones": ()},
    "email": {"emails": ()},
    "address": {"address": None},
}
_TOLD_WITH = {"address": ("province", "city", "district")}  # originals that say the same
GENERALIZED: Mapping[str, Callable[[StandardRecord], StandardRecord]] = {
    "name": _surname_only,
    "birth_date": _year_only,
    "address": _city_only,
}


@dataclass(frozen=True, slots=True)
class Held:
    """What legal holds keep, whatever the rules say."""

    everything: bool = False
    rules: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()

    def keeps(self, rule_id: str, source_id: str = "", profile_ids: Iterable[str] = ()) -> bool:
        """Tell whether a thing of this source and these profiles is kept from a rule."""
        return (
            self.everything or rule_id in self.rules or source_id in self.sources
            or not self.profiles.isdisjoint(profile_ids)
        )  # fmt: skip
