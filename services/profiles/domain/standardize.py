"""From a raw record to a standard record: every field read, cross-checked, its original kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from services.profiles.domain.addresses import parse_address
from services.profiles.domain.ages import parse_birth_years
from services.profiles.domain.contacts import gender_of_title, parse_emails, parse_gender
from services.profiles.domain.dates import day_of_moment, parse_birth_date
from services.profiles.domain.dictionary import DEFAULT_BY_NAME, FieldDefinition, severity_of
from services.profiles.domain.documents import birth_date_of, gender_of, parse_resident_id
from services.profiles.domain.names import parse_name
from services.profiles.domain.papers import parse_document
from services.profiles.domain.phones import parse_phones
from services.profiles.domain.sources import SourceSettings
from services.profiles.domain.text import clean
from services.profiles.domain.values import (
    Address,
    Document,
    PersonName,
    Phone,
    Problem,
    RawRecord,
    Severity,
    StandardRecord,
)

_Value = TypeVar("_Value")
ADDRESS_FIELDS = ("province", "city", "district", "address")  # read in this order as one address


@dataclass(slots=True)
class _Findings:
    """Collects the problems of one record while its fields are read."""

    definitions: Mapping[str, FieldDefinition]
    problems: list[Problem] = field(default_factory=list)

    def one(self, name: str, parsed: tuple[_Value, str]) -> _Value:
        """Note the reason of a parsed value and return the value."""
        if parsed[1]:
            self.add(name, parsed[1])
        return parsed[0]

    def many(self, name: str, parsed: tuple[_Value, tuple[str, ...]]) -> _Value:
        """Note the reasons of parsed values and return the values."""
        if parsed[1]:
            self.add(name, *parsed[1])
        return parsed[0]

    def add(self, name: str, *reasons: str) -> None:
        """Note reasons, each as grave as the dictionary says; empty ones are none."""
        for reason in reasons:
            if reason:
                self.problems.append(Problem(name, reason, severity_of(self.definitions, name, reason)))


def standardize(
    raw: RawRecord,
    source: SourceSettings,
    definitions: Mapping[str, FieldDefinition] = DEFAULT_BY_NAME,
) -> StandardRecord:
    """Return the record in standard forms; raises on no text. `record.is_rejected` sets the row apart.

    A birth date and a gender that are missing are taken from a valid resident ID, the gender also from a title.
    """
    text = raw.fields
    found = _Findings(definitions, list(raw.problems))
    name = found.one("name", parse_name(text.get("name", "")))
    phones = found.many("phone", parse_phones(text.get("phone", ""), source.default_region))
    emails = found.many("email", parse_emails(text.get("email", "")))
    resident_id, documents = _papers(text.get("resident_id", ""), found)
    birth_date, birth_years = _born(text.get("birth_date", ""), source, raw.updated_time.year, found)
    gender = found.one("gender", parse_gender(text.get("gender", "")))
    address = found.one("address", parse_address(" ".join([text[item] for item in ADDRESS_FIELDS if item in text])))
    if resident_id:
        _cross_check(resident_id, birth_date, gender, found)
        birth_date, gender = birth_date or birth_date_of(resident_id), gender or gender_of(resident_id)
    gender = gender or (gender_of_title(name.title) if name else "")
    if not documents and not _is_identifiable(name, phones, emails, resident_id, birth_date, address):
        found.problems.append(Problem("", "IDENTIFIER_MISSING", Severity.REJECT))
    return StandardRecord(
        raw.source_id, raw.source_record_id, raw.updated_time, source.trust_rank, source.owner_department,
        source.is_unique, name, phones, emails, gender, birth_date, resident_id, address, dict(text),
        tuple(found.problems), None if birth_date else birth_years, documents,
    )  # fmt: skip


def _papers(text: str, found: _Findings) -> tuple[str, tuple[Document, ...]]:
    """Return the resident ID, or the other document that the column holds instead of one.

    No region begins with 9, but companies' codes and foreigners' cards do, and they may be of digits alone.
    """
    resident_id, reason = parse_resident_id(text)
    document = None
    if reason == "RESIDENT_ID_UNREADABLE":
        document, reason = parse_document(text)
    elif reason and clean(text).startswith("9"):
        document, _ = parse_document(text)
        reason = "" if document else reason
    found.add("resident_id", reason)
    return resident_id, (document,) if document else ()


def _born(text: str, source: SourceSettings, year: int, found: _Findings) -> tuple[str, tuple[int, int] | None]:
    """Return the date of birth, or the years between which it lies when the text says no more."""
    text = day_of_moment(text, source.utc_offset_minutes)
    birth_date, reason = parse_birth_date(text, source.date_order, year)
    birth_years = parse_birth_years(text, year) if reason == "DATE_UNREADABLE" else None
    found.add("birth_date", "BIRTH_YEARS_ONLY" if birth_years else reason)
    return birth_date, birth_years


def _cross_check(resident_id: str, birth_date: str, gender: str, found: _Findings) -> None:
    if birth_date and birth_date != birth_date_of(resident_id):
        found.add("birth_date", "RESIDENT_ID_BIRTH_CONFLICT")
    if gender and gender != gender_of(resident_id):
        found.add("gender", "RESIDENT_ID_GENDER_CONFLICT")


def _is_identifiable(
    name: PersonName | None,
    phones: tuple[Phone, ...],
    emails: tuple[str, ...],
    resident_id: str,
    birth_date: str,
    address: Address | None,
) -> bool:
    """Say whether anything could ever tell this person from others."""
    if phones or emails or resident_id:
        return True
    has_place = address is not None and bool(address.city_code)
    return name is not None and name.is_complete and (bool(birth_date) or has_place)
