"""What is measured of customer data in six dimensions; docs/quality.md defines each, with what is left out.

A finding is one yes or no about one record and one field. All figures are sums of findings, so that those of a source,
of a department and of all of them are exact at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from services.profiles.domain.blocking import IDENTIFIERS
from services.profiles.domain.divisions import is_known_code
from services.profiles.domain.documents import birth_date_of, gender_of
from services.profiles.domain.retention import WHOLE
from services.profiles.domain.standardize import ADDRESS_FIELDS
from services.profiles.domain.validation import texts_of
from services.profiles.domain.values import StandardRecord

RECORD, PERSON, MATCH = "@record", "@person", "@match"  # what is measured and is no field; no field id has an @
STANDARD = ("name", "gender", "birth_date", *IDENTIFIERS, "address")
SIGN_OF_LIFE_DAYS = 365
PLACEHOLDERS = frozenset((
    "NAME_BLOCKED", "PHONE_BLOCKED", "EMAIL_BLOCKED", "RESIDENT_ID_BLOCKED", "DATE_PLACEHOLDER",
))  # fmt: skip
CONFLICTS = {
    "birth_date": "RESIDENT_ID_BIRTH_CONFLICT", "gender": "RESIDENT_ID_GENDER_CONFLICT", "address": "ADDRESS_CONFLICT",
}  # fmt: skip
WRONG_BY_REFERENCE = {
    "resident_id": frozenset(("RESIDENT_ID_CHECK_DIGIT", "RESIDENT_ID_BIRTH", "RESIDENT_ID_REGION")),
    "birth_date": frozenset(("RESIDENT_ID_BIRTH_CONFLICT",)),
    "gender": frozenset(("RESIDENT_ID_GENDER_CONFLICT",)),
    "address": frozenset(("ADDRESS_UNKNOWN", "ADDRESS_CONFLICT")),
}
_NOT_VALIDITY = PLACEHOLDERS | frozenset(CONFLICTS.values())


class Dimension(StrEnum):
    """The dimensions, as DAMA-UK's white paper of 2013 names them, accuracy first."""

    ACCURACY = "accuracy"
    COMPLETENESS = "completeness"
    CONSISTENCY = "consistency"
    VALIDITY = "validity"
    UNIQUENESS = "uniqueness"
    TIMELINESS = "timeliness"


class Finding(NamedTuple):
    """One yes or no; `key` names the source record it is about, `source_id` is empty where it is about a person."""

    dimension: Dimension
    field: str
    source_id: str
    key: str
    passed: bool


@dataclass(frozen=True, slots=True)
class SourceScope:
    """What is expected of a source: the fields it feeds (None: any), and how long a record lives without a sign."""

    fields: frozenset[str] | None = None
    sign_of_life_days: int = SIGN_OF_LIFE_DAYS


@dataclass(frozen=True, slots=True)
class Scope:
    """What is measured: these fields, as of `now`."""

    fields: tuple[str, ...]
    sources: Mapping[str, SourceScope]
    now: datetime

    def source(self, source_id: str) -> SourceScope:
        """Return what is expected of a source."""
        return self.sources.get(source_id, SourceScope())


@dataclass(frozen=True, slots=True)
class Person:
    """A profile's records by key, the stewards' values in force by field, and the identifiers that others hold too.

    `retired` are the fields that retention took from a record, by its key; WHOLE stands for all.
    """

    records: Mapping[str, StandardRecord]
    overrides: Mapping[str, str] = field(default_factory=dict)
    shared: frozenset[tuple[str, str]] = frozenset()
    retired: Mapping[str, AbstractSet[str]] = field(default_factory=dict)

    def living(self) -> dict[str, StandardRecord]:
        """Return the records that their source did not delete and retention did not empty, by key."""
        return {
            key: self.records[key]
            for key in sorted(self.records)
            if self.records[key].originals and WHOLE not in self.retired.get(key, ())
        }


def findings(person: Person, scope: Scope) -> Iterator[Finding]:
    """Yield all findings about a person's records; deleted records and what retention took are left out."""
    living = person.living()
    majorities = {name: _majority(living, name) for name in scope.fields} if len(living) > 1 else {}
    first_of: set[str] = set()
    alive_person = False
    for key, record in living.items():
        judged = _Judged(record, key, person, scope, majorities)
        yield from judged.of_fields()
        alive = judged.is_alive
        alive_person = alive_person or alive
        yield judged.finding(Dimension.VALIDITY, RECORD, not judged.has_invalid)
        yield judged.finding(Dimension.UNIQUENESS, RECORD, record.source_id not in first_of)
        yield judged.finding(Dimension.TIMELINESS, RECORD, alive)
        first_of.add(record.source_id)
    if living:
        newest = max(living, key=lambda key: (living[key].updated_time, key))
        yield Finding(Dimension.TIMELINESS, PERSON, "", newest, alive_person)


def reject_findings(reasons: Iterator[str] | tuple[str, ...], source_id: str, key: str, scope: Scope) -> list[Finding]:
    """Return what a row that is set apart says: its record is not valid, nor are the fields its reasons name."""
    fields = dict.fromkeys("address" if name in ADDRESS_FIELDS else name for name in reasons)
    known = [RECORD, *(name for name in fields if name in scope.fields)]
    return [Finding(Dimension.VALIDITY, name, source_id, key, False) for name in known]


def _majority(living: Mapping[str, StandardRecord], name: str) -> frozenset[str] | None:
    """Return the values told by more than half of the sources that tell the field; None when fewer than two do."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    sources: set[str] = set()
    for record in living.values():
        for text in texts_of(record, name):
            told[text].add(record.source_id)
            sources.add(record.source_id)
    if len(sources) < 2:
        return None
    return frozenset(text for text, by in told.items() if 2 * len(by) > len(sources))


class _Judged:
    """One record being judged."""

    def __init__(
        self,
        record: StandardRecord,
        key: str,
        person: Person,
        scope: Scope,
        majorities: Mapping[str, frozenset[str] | None],
    ) -> None:
        self._record, self._key, self._person, self._scope = record, key, person, scope
        self._majorities = majorities
        self._retired = person.retired.get(key, frozenset())
        expected = scope.source(record.source_id)
        self._expected = expected.fields
        self.is_alive = record.updated_time >= scope.now - timedelta(days=expected.sign_of_life_days)
        self._reasons: defaultdict[str, set[str]] = defaultdict(set)
        for problem in record.problems:
            name = "address" if problem.field in ADDRESS_FIELDS else problem.field
            self._reasons[name].add(problem.reason)
        self.has_invalid = any(reasons - _NOT_VALIDITY for reasons in self._reasons.values())

    def finding(self, dimension: Dimension, name: str, passed: bool) -> Finding:
        return Finding(dimension, name, self._record.source_id, self._key, passed)

    def of_fields(self) -> Iterator[Finding]:
        for name in self._scope.fields:
            if name in self._retired:
                continue
            texts = texts_of(self._record, name)
            reasons: AbstractSet[str] = self._reasons.get(name, frozenset())
            filled = bool(texts) or self._is_given(name, reasons)
            if self._expected is None or name in self._expected:
                yield self.finding(Dimension.COMPLETENESS, name, filled)
            if not filled:
                continue
            yield self.finding(Dimension.VALIDITY, name, not reasons - _NOT_VALIDITY)
            yield self.finding(Dimension.TIMELINESS, name, self.is_alive)
            if name in IDENTIFIERS and texts:
                is_own = not any((name, text) in self._person.shared for text in texts)
                yield self.finding(Dimension.UNIQUENESS, name, is_own)
            for dimension, verdicts in (
                (Dimension.CONSISTENCY, self._consistency(name, texts, reasons)),
                (Dimension.ACCURACY, self._accuracy(name, texts, reasons)),
            ):
                if verdicts:
                    yield self.finding(dimension, name, all(verdicts))

    def _is_given(self, name: str, reasons: AbstractSet[str]) -> bool:
        """Tell whether the source wrote something that is neither a word for nothing nor a placeholder."""
        if name == "resident_id" and self._record.documents:
            return True
        return bool(reasons - PLACEHOLDERS) and self._has_text(name)

    def _has_text(self, name: str) -> bool:
        columns = ADDRESS_FIELDS if name == "address" else (name,)
        return any(self._record.originals.get(column, "").strip() for column in columns)

    def _consistency(self, name: str, texts: tuple[str, ...], reasons: AbstractSet[str]) -> list[bool]:
        """Return whether the record agrees with itself, and with what most sources say of the person."""
        verdicts = []
        contradicts = CONFLICTS.get(name, "") in reasons
        if contradicts or (name in CONFLICTS and texts and self._is_checked_within(name)):
            verdicts.append(not contradicts)
        majority = self._majorities.get(name)
        if majority is not None and texts:
            verdicts.append(not majority.isdisjoint(texts))
        return verdicts

    def _is_checked_within(self, name: str) -> bool:
        """Tell whether the record says the field twice: beside its resident ID, or by levels of an address."""
        if name == "address":
            return True
        return bool(self._record.resident_id) and self._has_text(name)

    def _accuracy(self, name: str, texts: tuple[str, ...], reasons: AbstractSet[str]) -> list[bool]:
        """Return what speaks for or against the value; a steward's word alone where there is one."""
        if name in self._person.overrides:
            return [self._person.overrides[name] in texts]
        verdicts = self._reference(name, reasons)
        majority = self._majorities.get(name)
        if majority and texts:
            verdicts.append(not majority.isdisjoint(texts))
        return verdicts

    def _reference(self, name: str, reasons: AbstractSet[str]) -> list[bool]:
        """Return what the resident ID (GB 11643) and the table of divisions (GB/T 2260) say of the value."""
        if reasons & WRONG_BY_REFERENCE.get(name, frozenset()):
            return [False]
        record = self._record
        if name == "resident_id" and record.resident_id:
            return [True]
        if name == "address" and record.address and record.address.district_code:
            return [is_known_code(record.address.district_code)]
        if not record.resident_id or not self._has_text(name):
            return []
        if name == "birth_date" and record.birth_date:
            return [record.birth_date == birth_date_of(record.resident_id)]
        if name == "gender" and record.gender:
            return [record.gender == gender_of(record.resident_id)]
        return []
