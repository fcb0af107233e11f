"""What the profiles service stores, as plain values; personal data only within sealed bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter

HISTORY_AT_HAND = 200  # revisions kept in the profile itself; older ones are found with the past versions
UNMERGED = "unmerged"  # the kind of a revision that is a split


def record_key(source_id: str, source_record_id: str) -> str:
    """Return the key of a source record, unique over all profiles."""
    return f"{source_id}/{source_record_id}"


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The current version of a source record, sealed under the data key of the customer it first belonged to.

    `number` counts its versions from 1; `content_hash` is keyed, so equal content is seen without opening it;
    `origin` names the import and row that brought it, or the run of retention that took from it, so that a resumed job
    recognizes its own work; `tokens` are its blind blocking keys and identifiers. `retired` marks what retention took
    out of this version, `barred` what no newer version brings back (see domain.retention). `source_version` is that of
    the source's settings it was read by, its mapping among them; 0 where that was not kept.
    """

    source_id: str
    source_record_id: str
    number: int
    content_hash: str
    updated_time: datetime
    received_time: datetime
    key_id: str
    sealed: bytes = field(repr=False)
    origin: str = ""
    tokens: Sequence[str] = ()
    retired: Sequence[str] = ()
    barred: Sequence[str] = ()
    source_version: int = 0

    @property
    def key(self) -> str:
        """Return the key of the record."""
        return record_key(self.source_id, self.source_record_id)


@dataclass(frozen=True, slots=True)
class StoredOverride:
    """A steward's value of the field `name`, sealed; `anchor` is the key of the record whose value it beat.

    When a profile is split the override goes where its anchor goes, so a split undoes a merge for overrides too.
    """

    id: str
    name: str
    anchor: str
    key_id: str
    set_time: datetime
    expire_time: datetime
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of a profile and who made it, if a person did; names of fields only, never values."""

    version: int
    time: datetime
    kind: str
    changed_fields: Sequence[str] = ()
    source_records: Sequence[str] = ()
    other_profile: str = ""
    by: str = ""
    reason: str = ""


def at_hand(revisions: Sequence[Revision]) -> list[Revision]:
    """Return the latest revisions, and before them those older ones that are splits: legal holds follow them."""
    older, latest = revisions[:-HISTORY_AT_HAND], revisions[-HISTORY_AT_HAND:]
    return [*(item for item in older if item.kind == UNMERGED), *latest]


@dataclass(frozen=True, slots=True)
class FormerName:
    """An id that a profile has or had, merged into another since a version of its own; the rest: see its proto."""

    profile_id: str
    merged_into: str
    version: int
    divided_since: datetime | None = None
    went: bool = False


@dataclass(slots=True)
class Profile:
    """A golden record with the source records it is derived from; the stored form.

    `merged_into` makes it an alias; `is_handing_over` says that the survivor may not have its records yet; `parting`
    that it will live, once the records it names are out of the other profile, and `former`
    what other ids they had.
    `apart` are profiles it never merges with. `relinked` are the keys of records that joined or changed, for the next
    write only. `carried` is what the store read beside the state at this version, facts that wait among it, and writes
    back.
    """

    profile_id: str
    create_time: datetime
    update_time: datetime
    version: int = 0
    key_id: str = ""
    golden: bytes = field(default=b"", repr=False)
    records: list[StoredRecord] = field(default_factory=list)
    owner_department: str = ""
    tier: str = ""
    stage: str = ""
    stage_time: datetime | None = None
    stage_revision: int = 0
    merged_into: str = ""
    is_handing_over: bool = False
    parting: Revision | None = None
    former: Sequence[FormerName] = ()
    aliases: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    overrides: list[StoredOverride] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    relinked: list[str] = field(default_factory=list)
    carried: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tokens(self) -> list[str]:
        """Return the tokens of all its records, each once; none for an alias."""
        return [] if self.merged_into else list(dict.fromkeys(t for record in self.records for t in record.tokens))

    @property
    def is_erased(self) -> bool:
        """Tell whether it is the tombstone of an erased person: an id and a version, no more."""
        return not (self.key_id or self.golden or self.records or self.merged_into)

    @property
    def since(self) -> datetime:
        """Return when it became what it is."""
        return self.revisions[-1].time if self.revisions else self.create_time

    @property
    def ended_version(self) -> int:
        """Return the version of an alias since which it leads where it does."""
        return self.revisions[-1].version if self.revisions else self.version

    def past(self) -> Profile:
        """Return it as history keeps it: what was believed, sealed, of which record versions, since which change."""
        named = [
            StoredRecord(r.source_id, r.source_record_id, r.number, "", r.updated_time, r.received_time, "", b"",
                         retired=r.retired, barred=r.barred, source_version=r.source_version)
            for r in self.records
        ]  # fmt: skip
        last, made = self.revisions[-1:], self.copy()
        made.version = last[0].version if last else self.version
        made.records, made.revisions, made.relinked, made.carried = named, last, [], {}
        made.apart, made.overrides, made.parting, made.former = [], [], None, ()
        return made

    def copy(self) -> Profile:
        """Return another one with the same values; `dataclasses.replace` takes five times as long."""
        return Profile(*_values_of(self))

    @property
    def record_keys(self) -> list[str]:
        """Return the keys of its source records; none for an alias, even while it hands over."""
        return [] if self.merged_into else [record.key for record in self.records]


_values_of = attrgetter(*(item.name for item in fields(Profile)))


@dataclass(frozen=True, slots=True)
class Source:
    """A system that sends records; see SourceSettings of the domain for the meaning of its settings."""

    id: str
    owner_department: str
    mapping: Sequence[Sequence[str]] = ()
    display_name: str = ""
    trust_rank: int = 100
    date_order: str = "ymd"
    utc_offset_minutes: int = 480
    default_region: str = "CN"
    is_unique: bool = False
    sign_of_life_days: int = 0
    draft_mapping: Sequence[Sequence[str]] = ()
    relations: Sequence[Sequence[str]] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """An entry of the data dictionary that was added, or that changes a built-in one.

    `rule_version` counts the changes of `survivorship`. `revision` counts all its changes; `author`, `approver`,
    `reason` and `change` (id of the FieldChange, if it was one) are of the last. A deleted entry stays, as its last.
    """

    id: str
    display_name: str = ""
    description: str = ""
    format: int = 0
    classification: int = 0
    group: str = ""
    mask: int = 0
    owner_department: str = ""
    update_rule: str = ""
    survivorship: str = ""
    retention_days: int = 0
    permitted_purposes: Sequence[str] = ()
    built_in: bool = False
    rule_version: int = 0
    revision: int = 0
    author: str = ""
    approver: str = ""
    reason: str = ""
    change: str = ""
    is_deleted: bool = False
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    def permits(self, purpose: str) -> bool:
        """Say whether the field may be used for a purpose; one that names none may be for each."""
        return not self.permitted_purposes or purpose in self.permitted_purposes


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A validation rule: its latest revision and the one in use, as JSON; `trial` is what the latest was found to do.

    `activations` are revision, time, subject and content, oldest first.
    """

    id: str
    latest: str
    revision: int
    active: str = ""
    active_revision: int = 0
    trial: str = ""
    activations: Sequence[Sequence[object]] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unstaged:
    """A profile whose lifecycle stage is to be looked at; its id is the profile's."""

    id: str
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class RevealCount:
    """How many values somebody revealed on a day; the id is `{subject}/{day}`."""

    id: str
    count: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredHold:
    """A legal hold; `scope` is profile, source, rule or everything, `target` the id of what is held."""

    id: str
    scope: str
    target: str
    reason: str
    set_by: str
    expire_time: datetime | None = None
    release_time: datetime | None = None
    released_by: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt of retention: its message without seal as JSON, and its seal; `run` is what it is of."""

    id: str
    run: str
    content: str
    seal: str
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeafPage:
    """The leaf hashes of what a part of a run took, one after the other; ids sort in the order of the parts."""

    id: str
    run: str
    hashes: bytes
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ageing:
    """A stored thing that is no present record, as retention sees it; source and profile as far as it has them."""

    id: str
    time: datetime
    source_id: str = ""
    profile_id: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row set apart, sealed by the uploads key; `reasons` are (field, code) pairs.

    `state` is open, replayed or corrected; `record` is a keyed token of its record, empty when that is not known;
    `attempts` are those to take it in: time, subject, operation, row number, corrected columns, reasons.
    """

    id: str
    source_id: str
    operation: str
    row_number: int
    reasons: Sequence[Sequence[str]]
    row: bytes = field(repr=False)
    state: str = "open"
    record: str = ""
    attempts: Sequence[Sequence[object]] = ()
    source_version: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two profiles that may be one person; `state` open, awaiting_second, confirmed, rejected or obsolete.

    `place` sorts those of one state by priority. `first_state`, `first_by`: the verdict that awaits another person.
    `record` makes it a check of an automatic merge: the key of the record that joined; with `is_doubt` the full pass
    would not have joined it, nor `others`, which leave with it. `month` is that of the verdict, `model` the version of
    the model that compared them.
    """

    id: str
    one: str
    other: str
    weight: float
    probability: float
    steps: Sequence[Sequence[object]] = ()
    vetoes: Sequence[str] = ()
    state: str = "open"
    decided_by: str = ""
    priority: int = 0
    place: str = ""
    needs_second: bool = False
    claimed_by: str = ""
    claim_until: datetime | None = None
    first_state: str = ""
    first_by: str = ""
    reason: str = ""
    record: str = ""
    others: Sequence[str] = ()
    is_doubt: bool = False
    model: str = ""
    month: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """An entry of the erasure ledger; its id is the profile. Nothing in it can be turned back into a person.

    `names` are the profile's ids, `key_ids` the data keys to destroy, `tokens` keyed tokens of its source records,
    which are refused until `expire_time`; `state` is begun or done. `place` sorts by the time of the last change.
    """

    id: str
    names: Sequence[str]
    key_ids: Sequence[str]
    tokens: Sequence[str]
    reason: str
    by: str
    expire_time: datetime
    state: str = "begun"
    place: str = ""
    records: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


def place_of(priority: int, item_id: str) -> str:
    """Return what sorts by priority, the highest first, then by id."""
    return f"{999 - priority:03d}/{item_id}"


def pair_id(one: str, other: str) -> str:
    """Return the one id that a pair of profiles has, in whichever order."""
    return hashlib.sha256("\0".join(sorted((one, other))).encode()).hexdigest()[:32]
