"""Values of customer master data: what a source said, what it means, and what is believed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How grave a problem of a value is: REJECT sets the whole row apart, WARNING drops or flags the value."""

    REJECT = "reject"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field; `reason` is a code of `problems.REASONS`, never the value itself."""

    field: str
    reason: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A row of a source after its columns were mapped to standard field names; the texts are untouched.

    `updated_time` (aware, UTC) is the source's own time of change, or the time of receipt when it has none;
    it is the version in (source_id, source_record_id, version).
    """

    source_id: str
    source_record_id: str
    updated_time: datetime
    fields: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


class PersonName(NamedTuple):
    """A person's name in simplified characters without its title.

    `given` is empty in "张先生". `style` is "han" (欧阳娜娜), "latin" (John Smith) or "dotted" (阿依古丽·买买提, own
    name first). `is_surname_first` tells a Chinese name in Latin letters (Wang Wei).
    """

    surname: str
    given: str
    title: str = ""
    style: str = "han"
    is_surname_first: bool = False

    @property
    def full(self) -> str:
        """Return the name as one writes it."""
        if self.style == "han":
            return self.surname + self.given
        separator = " " if self.style == "latin" else "·"
        parts = (self.surname, self.given) if self.is_surname_first else (self.given, self.surname)
        return separator.join(filter(None, parts))

    @property
    def is_complete(self) -> bool:
        """Say whether both surname and given name are known."""
        return bool(self.surname and self.given)


class Phone(NamedTuple):
    """A dialable number in E.164; `kind` is mobile, landline or other."""

    number: str
    kind: str
    extension: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """An identity document that is no resident ID; `kind` is one of papers.parse_document's forms."""

    kind: str
    number: str


class Place(NamedTuple):
    """The parts of an address below the county as they are written; empty where the text does not tell.

    `town` is a town, a street office or a development zone; `street` also a village.
    """

    town: str = ""
    street: str = ""
    number: str = ""
    building: str = ""
    unit: str = ""
    room: str = ""


class Address(NamedTuple):
    """A postal address; codes are GB/T 2260 with six digits, empty where the level is unknown.

    `detail` is all that follows the county as it is written, `place` what was read from it.
    """

    province_code: str = ""
    city_code: str = ""
    district_code: str = ""
    province: str = ""
    city: str = ""
    district: str = ""
    detail: str = ""
    place: Place = Place()

    @property
    def text(self) -> str:
        """Return the address on one line, a municipality's name once."""
        city = "" if self.city == self.province else self.city
        return self.province + city + self.district + self.detail

    @property
    def deepest_code(self) -> str:
        """Return the code of the smallest known division, or an empty string."""
        return self.district_code or self.city_code or self.province_code


@dataclass(frozen=True, slots=True)
class StandardRecord:
    """A source record in standard forms, its original texts kept beside them.

    Empty string, None or empty tuple means unknown. `gender` is "male", "female" or ""; `birth_date` is
    YYYY-MM-DD; `resident_id` has 18 characters and a right check digit. `trust_rank`: 1 is trusted most.
    `birth_years` are the first and last year of birth where the day is unknown.
    """

    source_id: str
    source_record_id: str
    updated_time: datetime
    trust_rank: int = 100
    owner_department: str = ""
    is_unique_in_source: bool = False
    name: PersonName | None = None
    phones: tuple[Phone, ...] = ()
    emails: tuple[str, ...] = ()
    gender: str = ""
    birth_date: str = ""
    resident_id: str = ""
    address: Address | None = None
    originals: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    birth_years: tuple[int, int] | None = None
    documents: tuple[Document, ...] = ()

    @property
    def is_rejected(self) -> bool:
        """Say whether a problem is grave enough to set the row apart."""
        return any(problem.severity is Severity.REJECT for problem in self.problems)

    @property
    def key(self) -> tuple[str, str]:
        """Return (source_id, source_record_id)."""
        return (self.source_id, self.source_record_id)


class Band(StrEnum):
    """What a score means: the same person, a question for a steward, or different people."""

    MERGE = "merge"
    REVIEW = "review"
    APART = "apart"


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """One bar of the waterfall: which comparison reached which level, and its weight in bits (log2)."""

    comparison: str
    level: str
    weight: float


@dataclass(frozen=True, slots=True)
class MatchScore:
    """The outcome of comparing two records.

    `weight` is the sum of the steps in bits, the prior included; `probability` is 2^w / (1 + 2^w); `rule` names
    the deterministic rule that decided, if any; `vetoes` name what forbids an automatic merge.
    """

    band: Band
    weight: float
    probability: float
    steps: tuple[ScoreStep, ...]
    rule: str = ""
    vetoes: tuple[str, ...] = ()
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An existing profile that shares a blocking key with the record, with all its source records."""

    profile_id: str
    created_time: datetime
    records: tuple[StandardRecord, ...]


class AssignmentKind(StrEnum):
    """What happens to a record: it joins a profile, or founds one, with or without a question for a steward."""

    MERGE = "merge"
    REVIEW = "review"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a record belongs.

    MERGE: it joins `profile_id`, and the profiles in `merged_profile_ids` are merged into that (the oldest).
    REVIEW and NEW: it founds a profile. `review_profile_ids` are to be compared by a steward with the profile
    the record ends in; `scores` holds the best score for each candidate that is not apart.
    """

    kind: AssignmentKind
    profile_id: str = ""
    merged_profile_ids: tuple[str, ...] = ()
    review_profile_ids: tuple[str, ...] = ()
    scores: Mapping[str, MatchScore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The records of one person as a batch sees it, by their (source_id, source_record_id) keys."""

    keys: tuple[tuple[str, str], ...]
    review_keys: tuple[tuple[str, str], ...] = ()


class BeatenValue(NamedTuple):
    """A value that lost, and why: `older`, `less trusted`, `less complete`, `less confirmed`,
    `overridden` or `tie`."""

    value: str
    source_id: str
    source_record_id: str
    why: str


class GoldenField(NamedTuple):
    """A believed value with its lineage: the record it came from, the rule and version that chose it, what it beat.

    `reason` and `expire_time` are of a steward's override.
    """

    value: str
    source_id: str
    source_record_id: str
    rule: str
    time: datetime
    beat: tuple[BeatenValue, ...] = ()
    rule_version: int = 0
    reason: str = ""
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ManualOverride:
    """A value set by a steward; it beats every source until it expires or is withdrawn.

    `record` holds it in standard form as if the steward were a source: its id is who set it, its time when.
    """

    field: str
    value: str
    record: StandardRecord
    reason: str = ""
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """What is believed of a person, derived from source records and never edited.

    `fields` has the keys name, title, gender, birth_date, resident_id, phone, email, address, province_code,
    city_code, district_code, owner_department as far as known; `phones` and `emails` hold all known values,
    the believed one first.
    """

    fields: Mapping[str, GoldenField]
    phones: tuple[GoldenField, ...] = ()
    emails: tuple[GoldenField, ...] = ()

    def value(self, name: str) -> str:
        """Return the believed value of a field, or an empty string."""
        found = self.fields.get(name)
        return found.value if found else ""
