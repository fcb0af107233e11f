"""From stored profiles to findings: what the domain judges, and the circumstances that a cause is sought in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.profiles.dictionary import Dictionary
from services.profiles.domain.blocking import IDENTIFIERS
from services.profiles.domain.formats import FORMAT_MISMATCH
from services.profiles.domain.quality import (
    SIGN_OF_LIFE_DAYS,
    STANDARD,
    Finding,
    Person,
    Scope,
    SourceScope,
    findings,
)
from services.profiles.domain.standardize import ADDRESS_FIELDS
from services.profiles.domain.validation import RULE, texts_of
from services.profiles.domain.values import Problem, StandardRecord
from services.profiles.folding import Working
from services.profiles.intake.neighbours import Neighbours
from services.profiles.quality.tally import Circumstances
from services.profiles.quality.values import UNASSIGNED
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Profile, Source, StoredRecord
from services.profiles.vault import Ciphers, Vault

SOURCES_PER_READ = 500
OPERATION = "operations/"
OF_RULES = frozenset((FORMAT_MISMATCH,))  # reasons that the dictionary gives beside those of rules


@dataclass(frozen=True, slots=True)
class Examined:
    """A profile's findings, with its department and the circumstances of each of its records by key."""

    profile_id: str
    department: str
    findings: Sequence[Finding]
    circumstances: Mapping[str, Circumstances]


def department_of(profile: Profile) -> str:
    """Return the department that owns a profile."""
    return profile.owner_department or UNASSIGNED


def all_sources(store: Store) -> Iterator[Source]:
    """Yield every source."""
    after = ""
    while page := store.sources.page({}, after, SOURCES_PER_READ):
        yield from page
        after = page[-1].id


def scope_of(store: Store, dictionary: Dictionary, now: datetime) -> Scope:
    """Return what is measured: the standard fields and the dictionary's custom ones, of every source, as of `now`."""
    custom = sorted(item.id for item in dictionary.all().values() if not item.built_in)
    fields = (*STANDARD, *(name for name in custom if name not in STANDARD))
    return Scope(fields, {item.id: source_scope(item) for item in all_sources(store)}, now)


def source_scope(source: Source) -> SourceScope:
    """Return what is expected of a source: the fields its mapping feeds, any without one."""
    fed = {"address" if item[1] in ADDRESS_FIELDS else item[1] for item in source.mapping}
    return SourceScope(frozenset(fed) or None, source.sign_of_life_days or SIGN_OF_LIFE_DAYS)


class Examiner:
    """Examines profiles, all by one scope."""

    def __init__(self, store: Store, vault: Vault, dictionary: Dictionary, now: datetime) -> None:
        """Examine with the fields, sources and validation rules of now, as of `now`."""
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self.scope = scope_of(store, dictionary, now)

    def examine(self, profiles: Sequence[Profile]) -> list[Examined]:
        """Return what is found about profiles; erased ones are left out."""
        opened, ciphers = load(self._store, self._vault, profiles)
        neighbours = Neighbours.now(self._vault, self._dictionary)
        held = self._store.holders(neighbours.counted(record for item in opened for record in item.records.values()))
        for item in opened:
            item.records = {
                key: self._as_of_now(record, neighbours.judge(record, held)) for key, record in item.records.items()
            }
        shared = self._shared(opened)
        return [self._examined(item, ciphers, shared) for item in opened]

    def _examined(self, working: Working, ciphers: Ciphers, shared: frozenset[tuple[str, str, str]]) -> Examined:
        profile = working.profile
        own = frozenset((name, text) for owner, name, text in shared if owner == working.profile_id)
        stored = {item.key: item for item in profile.records}
        retired = {key: _retired(item) for key, item in stored.items() if item.retired}
        person = Person(working.records, self._overrides(profile, ciphers), own, retired)
        circumstances = {key: circumstances_of(stored[key], record) for key, record in working.records.items()}
        found = list(findings(person, self.scope))
        return Examined(working.profile_id, department_of(profile), found, circumstances)

    def _as_of_now(self, record: StandardRecord, around: Sequence[Problem]) -> StandardRecord:
        """Return the record with the problems of the rules in use now, not of those when it was taken in.

        `around` are those of rules that ask who else holds a value; what compares a version with the one before it
        stays as it was noted.
        """
        if not record.originals:
            return record
        of_versions = {rule.reason for rule in self._dictionary.cross_rules() if rule.index is None}
        kept = [
            item
            for item in record.problems
            if item.reason in of_versions or not (item.reason.startswith(RULE) or item.reason in OF_RULES)
        ]
        return replace(record, problems=(*kept, *self._dictionary.broken(record), *around))

    def _overrides(self, profile: Profile, ciphers: Ciphers) -> dict[str, str]:
        """Return the stewards' values in force, by field."""
        if not profile.overrides:
            return {}
        held = self._vault.open_overrides(profile, ciphers)
        in_force = [held[item.id] for item in profile.overrides if item.id in held]
        return {item.field: item.value for item in in_force if item.expire_time and item.expire_time > self.scope.now}

    def _shared(self, opened: Sequence[Working]) -> frozenset[tuple[str, str, str]]:
        """Return (profile, field, value) of the identifiers that another person holds too."""
        held: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for working in opened:
            values = {
                (name, text)
                for record in working.records.values()
                for name in IDENTIFIERS
                for text in texts_of(record, name)
            }
            for name, text in values:
                pair = (self._vault.token(name, text), working.profile_id)
                held.setdefault(pair, []).append((working.profile_id, name, text))
        found = self._store.shared_tokens(list(held))
        return frozenset(item for pair in found for item in held[pair])


def circumstances_of(stored: StoredRecord, record: StandardRecord) -> Circumstances:
    """Return under which circumstances a record came to be what it is."""
    operation = stored.origin.rpartition(":")[0]
    return {
        "source": (f"sources/{stored.source_id}",),
        "batch": (operation,) if operation.startswith(OPERATION) else (),
        "settings": settings_of(stored.source_id, stored.source_version),
        "reason": tuple(dict.fromkeys(item.reason for item in record.problems)),
    }


def _retired(stored: StoredRecord) -> frozenset[str]:
    """Return the fields that retention took from a record."""
    names = (mark.partition(":")[0] for mark in stored.retired)
    return frozenset("address" if name in ADDRESS_FIELDS else name for name in names)


def settings_of(source_id: str, version: int) -> tuple[str, ...]:
    """Return the version of a source's settings as a circumstance; none where it is not known."""
    return (f"sources/{source_id}@{version}",) if version else ()
