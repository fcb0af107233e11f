"""Fold the records of a batch into profiles, in memory: who joins whom, what is new, what a steward must see.

Records are taken in order; each sees the profiles the store had and those the batch founded before it, so that the
records of one batch match among themselves. Nothing is written here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT, blocking_keys
from services.profiles.domain.comparison import Traits, traits_of
from services.profiles.domain.match import decide
from services.profiles.domain.model import MatchModel
from services.profiles.domain.review import is_sampled
from services.profiles.domain.values import Assignment, AssignmentKind, Candidate, MatchScore, Problem, StandardRecord
from services.profiles.values import Profile, pair_id, record_key


class Outcome(StrEnum):
    """What became of a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    STALE = "stale"
    REJECTED = "rejected"
    ERASED = "erased"  # of a person who was erased: refused, and nothing of it kept
    DEFERRED = "deferred"  # two stored profiles must become one first; then it is taken again


@dataclass(frozen=True, slots=True)
class Incoming:
    """A standard record on its way in, with its keyed content hash, its blind tokens, and where it came from.

    `tokens` are what it is matched by, `value_tokens` what rules count it by.
    """

    record: StandardRecord
    content_hash: str
    tokens: Sequence[str]
    origin: str = ""
    source_version: int = 0
    value_tokens: Sequence[str] = ()

    @property
    def all_tokens(self) -> list[str]:
        """Return what it is found by once it is stored."""
        return [*self.tokens, *self.value_tokens]

    def noting(self, problems: Sequence[Problem]) -> Incoming:
        """Return it with these problems noted in its record, each once."""
        new = [item for item in problems if item not in self.record.problems]
        return replace(self, record=replace(self.record, problems=(*self.record.problems, *new))) if new else self

    @property
    def key(self) -> str:
        """Return the key of the record."""
        return record_key(self.record.source_id, self.record.source_record_id)


@dataclass(slots=True)
class Working:
    """A profile while a batch is folded: as stored or new, with its records opened."""

    profile: Profile
    records: dict[str, StandardRecord] = field(default_factory=dict)
    incoming: dict[str, Incoming] = field(default_factory=dict)

    @property
    def profile_id(self) -> str:
        """Return the id of the profile."""
        return self.profile.profile_id

    @property
    def is_new(self) -> bool:
        """Tell whether the batch founded it."""
        return self.profile.version == 0

    @property
    def age(self) -> tuple[bool, datetime, str]:
        """Return what orders profiles from the oldest: stored ones come before those of the batch."""
        return (self.is_new, self.profile.create_time, self.profile.profile_id)

    def candidate(self) -> Candidate:
        """Return it as the domain compares it."""
        return Candidate(self.profile_id, self.profile.create_time, tuple(self.records.values()))


def are_apart(one: Profile, other: Profile) -> bool:
    """Tell whether a steward ruled that two profiles are two persons, by the names of now or by former ones."""
    return _names(one, other.apart) or _names(other, one.apart)


def _names(profile: Profile, ids: Sequence[str]) -> bool:
    return profile.profile_id in ids or not set(ids).isdisjoint(profile.aliases)


def _identifiers_of(incoming: Incoming, tokens: Collection[str]) -> frozenset[str]:
    """Return the phones and e-mails of a record that these tokens stand for."""
    keys = zip(blocking_keys(incoming.record), incoming.tokens, strict=True) if tokens else ()
    named = [key.split(":", 1) for key, token in keys if token in tokens]
    return frozenset(value for kind, value in named if kind in ("phone", "email"))


class Fold:
    """One batch being folded, each record key once; read its results after the last `take`."""

    def __init__(
        self,
        loaded: Iterable[Working],
        model: MatchModel,
        founded_id: Callable[[str], str],
        now: datetime,
        crowded: frozenset[str] = frozenset(),
    ) -> None:
        """Start from the profiles that hold a record of the batch or share a token with one that is not crowded."""
        self.working: dict[str, Working] = {}
        self.pairs: dict[str, tuple[str, str, MatchScore]] = {}
        self.checks: dict[str, MatchScore] = {}
        self.merges: list[tuple[str, ...]] = []
        self.deferred: list[Incoming] = []
        self.own_work: set[str] = set()  # profiles that this import wrote before a crash
        self._model = model
        self._founded_id = founded_id
        self._now = now
        self._crowded = crowded
        self._homes: dict[str, str] = {}
        self._by_token: defaultdict[str, set[str]] = defaultdict(set)
        self._traits: dict[int, tuple[StandardRecord, Traits]] = {}
        for item in loaded:
            self._add(item)

    def _add(self, item: Working) -> None:
        self.working[item.profile_id] = item
        for token in item.profile.tokens:
            self._by_token[token].add(item.profile_id)
        for key in item.records:
            self._homes[key] = item.profile_id

    def take(self, incoming: Incoming) -> Outcome:
        """Fold one record in and say what became of it."""
        home = self.working.get(self._homes.get(incoming.key, ""))
        if home is not None:
            known = self._known(home, incoming)
            if known is not None:
                return known
        crowded = {token for token in incoming.tokens if self._is_crowded(token)}
        candidates = self._candidates(incoming, home, crowded)
        apart = frozenset(
            item.profile_id
            for item in candidates
            if home and are_apart(home.profile, self.working[item.profile_id].profile)
        )
        shared = _identifiers_of(incoming, crowded)
        assignment = decide(incoming.record, candidates, self._model, apart, self._traits_of, shared)
        joined = self._joined(assignment, home, incoming)
        stored = [item for item in joined if not item.is_new]
        if len(stored) > 1:
            self.merges.append(tuple(item.profile_id for item in sorted(stored, key=lambda item: item.age)))
            self.deferred.append(incoming)
            return Outcome.DEFERRED
        target = self._unite(joined) if joined else self._found(incoming)
        outcome = Outcome.CREATED if target.is_new and not target.records else Outcome.UPDATED
        self._put(target, incoming)
        self._note_pairs(target, assignment)
        if home is None and assignment.kind is AssignmentKind.MERGE and is_sampled(incoming.content_hash):
            self.checks[incoming.key] = assignment.scores[joined[0].profile_id]
        return outcome

    def _traits_of(self, record: StandardRecord) -> Traits:
        """Return the traits of a record, prepared once in a batch."""
        found = self._traits.get(id(record))
        if found is None:
            found = self._traits[id(record)] = record, traits_of(record)  # with it, so that nothing else gets its id
        return found[1]

    def home_of(self, key: str) -> Working:
        """Return the profile that a record is in by now."""
        return self.working[self._homes[key]]

    def _known(self, home: Working, incoming: Incoming) -> Outcome | None:
        """Return UNCHANGED or STALE, or None when the record brings something newer."""
        stored = next(item for item in home.profile.records if item.key == incoming.key)
        if stored.content_hash == incoming.content_hash:
            if not incoming.origin or stored.origin != incoming.origin:
                return Outcome.UNCHANGED
            self.own_work.add(home.profile_id)
            return Outcome.CREATED if home.profile.version == 1 else Outcome.UPDATED
        return Outcome.STALE if incoming.record.updated_time < stored.updated_time else None

    def _is_crowded(self, token: str) -> bool:
        return token in self._crowded or len(self._by_token.get(token, ())) > KEY_CANDIDATES_LIMIT

    def _candidates(self, incoming: Incoming, home: Working | None, crowded: Collection[str]) -> list[Candidate]:
        found: dict[str, None] = {home.profile_id: None} if home else {}
        for token in incoming.tokens:
            if token not in crowded:
                found.update(dict.fromkeys(self._by_token.get(token, ())))
        return [self.working[profile_id].candidate() for profile_id in found]

    def _joined(self, assignment: Assignment, home: Working | None, incoming: Incoming) -> list[Working]:
        """Return the profiles that are one person by this record, its own first, then those that it fits best.

        Of two that a steward ruled apart the first alone is among them.
        """
        ids = [assignment.profile_id, *assignment.merged_profile_ids]
        found = [self.working[item] for item in ids if assignment.kind is AssignmentKind.MERGE]
        found.sort(key=lambda item: -assignment.scores[item.profile_id].weight)
        if home is not None:
            is_alone = set(home.records) == {incoming.key}
            found = [home, *(item for item in found if item is not home)] if home in found or is_alone else [home]
        joined: list[Working] = []
        for item in found:
            if not any(are_apart(item.profile, other.profile) for other in joined):
                joined.append(item)
        return joined

    def _unite(self, joined: Sequence[Working]) -> Working:
        """Move the records of profiles the batch founded into the oldest of the joined ones."""
        target, *others = sorted(joined, key=lambda item: item.age)
        for other in others:
            for incoming in other.incoming.values():
                self._put(target, incoming)
            self._forget(other, target)
        return target

    def _forget(self, gone: Working, target: Working) -> None:
        del self.working[gone.profile_id]
        for token in {token for incoming in gone.incoming.values() for token in incoming.tokens}:
            self._by_token[token].discard(gone.profile_id)
        for key, (one, other, score) in list(self.pairs.items()):
            if gone.profile_id in (one, other):
                del self.pairs[key]
                self._add_pair(target.profile_id, other if one == gone.profile_id else one, score)

    def _found(self, incoming: Incoming) -> Working:
        profile_id = self._founded_id(incoming.key)
        made = Working(Profile(profile_id, self._now, self._now, key_id=profile_id))
        self.working[profile_id] = made
        return made

    def _put(self, target: Working, incoming: Incoming) -> None:
        target.records[incoming.key] = incoming.record
        target.incoming[incoming.key] = incoming
        self._homes[incoming.key] = target.profile_id
        for token in incoming.tokens:
            self._by_token[token].add(target.profile_id)

    def _note_pairs(self, target: Working, assignment: Assignment) -> None:
        for profile_id in assignment.review_profile_ids:
            if profile_id in self.working:
                self._add_pair(target.profile_id, profile_id, assignment.scores[profile_id])

    def _add_pair(self, one: str, other: str, score: MatchScore) -> None:
        if one == other or are_apart(self.working[one].profile, self.working[other].profile):
            return
        key = pair_id(one, other)
        if key not in self.pairs or self.pairs[key][2].weight < score.weight:
            self.pairs[key] = (one, other, score)

    def changed(self) -> list[Working]:
        """Return the profiles the batch founded or changed."""
        return [item for item in self.working.values() if item.incoming]
