"""Resolve a batch of standard records by the levels, rules and weights that decide single writes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np

from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT
from services.profiles.domain.callings import CALLED
from services.profiles.domain.comparison import EXACT, LEVELS, MISSING, NESTED, SAME
from services.profiles.domain.match import (
    CONFLICTS,
    DIFFERENT_RESIDENT_ID,
    SHARED_LIMIT,
    is_of_the_crowd,
    ruling,
)
from services.profiles.domain.model import MatchModel
from services.profiles.domain.nicknames import callings_of
from services.profiles.domain.similarity import grams_of, sounds_of_name
from services.profiles.domain.training import Lesson, Material, Patterns, train
from services.profiles.domain.values import Cluster, StandardRecord
from services.profiles.resolution.blocking import Keys, keys_of
from services.profiles.resolution.calling import meant_by
from services.profiles.resolution.clusters import clusters_of
from services.profiles.resolution.columns import Column, texts_of
from services.profiles.resolution.comparing import Comparisons, Equal
from services.profiles.resolution.engine import edges_of, patterns_of, random_patterns
from services.profiles.resolution.gathering import Codes, Gathered, Lists
from services.profiles.resolution.judging import (
    CONFLICT,
    DECIDES,
    FORBIDS_MERGE,
    HALF_A_VOTE,
    IF_MEANT,
    OF_THE_CROWD,
    TWO_PEOPLE,
    Frequency,
    Judge,
    Judged,
    Meant,
)
from services.profiles.resolution.kernels import Sets
from services.profiles.resolution.person_levels import (
    Addresses,
    Births,
    Identifiers,
    Names,
    Nicknames,
    Papers,
    Sounds,
)

RANDOM_PAIRS = 1_000_000
_LISTED_NAMES = 400  # of surnames and of given names whose shares a model holds
_LEAST_BEARERS = 5  # records with a name in the model: a rarer one would tell of a person
_DECIDED_BY = {  # kind of blocking key that is learnt from: the comparisons it decides
    "phone": ("phone",),
    "email": ("email",),
    "resident_id": ("resident_id", "birth_date", "gender"),
    "document": ("resident_id",),
    "name_birth": ("name", "birth_date"),
    "name_address": ("name", "address"),
}

_SAID_ALIKE = (EXACT, "swapped", "sound", "near")
_BROUGHT_BY: Mapping[str, Mapping[str, Sequence[str]]] = {  # kind of key: the levels that its pairs have
    "phone": {"phone": (SAME,)},
    "email": {"email": (SAME,)},
    "resident_id": {"resident_id": (SAME,)},
    "document": {"resident_id": ("document",)},
    "name_birth": {"name": _SAID_ALIKE, "birth_date": (SAME,)},
    "name_address": {"name": _SAID_ALIKE, "address": ("detail", "room", "building", "number")},
}
Verdict = tuple[Mapping[str, str], bool]  # levels of a judged pair, and whether it is one person


class People:
    """Records as columns, made once for all that is asked of them."""

    def __init__(
        self, records: Iterable[StandardRecord], *, ignores_shared: bool = True, gathered: Gathered | None = None
    ) -> None:
        """Take records, each key once, beside those gathered; what is known under too many names is no evidence."""
        self.gathered = Gathered() if gathered is None else gathered
        for record in records:
            self.gathered.add(record)
        self._most_names = SHARED_LIMIT if ignores_shared else self.gathered.size

    @cached_property
    def comparisons(self) -> Comparisons:
        """Return the comparisons of these records."""
        own, (phones, emails) = self.gathered, self.shared
        return Comparisons(
            [
                self.names,
                _identifiers("phone", own.phones, own.implied, phones),
                _identifiers("email", own.emails, None, emails),
                Papers(own.column("ids"), *own.papers()),
                self._births(),
                Addresses(own.addresses()),
                Equal("gender", Column(own.column("genders"), texts_of([])), LEVELS["gender"]),
            ]
        )

    @cached_property
    def names(self) -> Names:
        """Return the names."""
        items = self.gathered.bearers
        fulls, styles, surnames, said = Codes(), Codes(), Codes(), Codes()
        parts = np.full((len(items), 4), -1, np.int32)
        heard = [Lists(said) for _ in Sounds.__slots__]
        for row, name in zip(parts, items, strict=True):
            row[:] = fulls.of(name.full), styles.of(name.style), name.is_complete, surnames.of(name.surname)
            found = sounds_of_name(name)
            for kind, texts in zip(Sounds.__slots__, heard, strict=True):
                texts.add(sorted(getattr(found, kind)))
        full, given_texts = texts_of([name.full for name in items]), texts_of([name.given for name in items])
        callings = [callings_of(name) for name in items]
        codes = Codes()
        calls, answers, grams = Lists(codes), Lists(codes), Lists(Codes())
        for name, calling in zip(items, callings, strict=True):
            calls.add(sorted(calling.calls))
            answers.add(sorted(calling.answers))
            grams.add(grams_of(name.full))
        nothing = np.zeros(0, np.int32)
        bare = np.array([calling.is_bare for calling in callings], bool)
        sounds = Sounds(*(texts.sets(nothing) for texts in heard))
        nicknames = Nicknames(calls.sets(nothing), answers.sets(nothing), bare)
        return Names(
            self.gathered.column("names"), full, given_texts, parts, sounds, nicknames, _sorted(grams.sets(nothing))
        )  # fmt: skip

    def _births(self) -> Births:
        parts = Codes()
        dates = [str(date) for date in self.gathered.births.known]
        taken = [[parts.of(part) for part in (date[:4], date[5:7], date[8:])] for date in dates]
        taken_parts = np.array(taken, np.int32).reshape(-1, 3)
        return Births(self.gathered.column("births"), texts_of(dates), taken_parts, self.gathered.years())

    def keys(self, kinds: Sequence[str] = ()) -> Keys:
        """Return the blocking keys, of some kinds or of all."""
        return keys_of(self.gathered.key_rules(kinds), KEY_CANDIDATES_LIMIT)

    def judge(self, model: MatchModel) -> Judge:
        """Return what judges pairs of these records as match.compare does."""
        bits = [model.name_adjustment(name) for name in self.gathered.bearers]
        frequency = Frequency(0, self.names.codes, np.array(bits, float))
        return Judge(self.comparisons, model, lambda patterns, _: _flags()[patterns], [frequency], self.meant)

    @cached_property
    def meant(self) -> Meant:
        """Return whom incomplete names mean."""
        return meant_by(self.gathered, *self.shared)

    @cached_property
    def shared(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of phones and e-mails that are known under too many names."""
        own = self.gathered
        return own.shared(own.phones, self._most_names), own.shared(own.emails, self._most_names)

    def name_shares(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the shares of the most frequent surnames and given names among complete names."""
        codes = self.gathered.column("names")
        counts = np.bincount(codes[codes >= 0], minlength=len(self.gathered.bearers)).tolist()
        named = [(name, n) for name, n in zip(self.gathered.bearers, counts, strict=True) if name.is_complete]
        total = max(1, sum(n for _, n in named))
        found: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for name, n in named:
            found[0][name.surname] += n
            found[1][name.given] += n
        surnames, given = (
            {word: n / total for word, n in counter.most_common(_LISTED_NAMES) if n >= _LEAST_BEARERS}
            for counter in found
        )
        return surnames, given


@lru_cache(maxsize=1)
def _flags() -> np.ndarray:
    """Return what the rules say of every pattern; it depends on the levels alone."""
    choices = [(MISSING, *levels) for levels in LEVELS.values()]
    found = []
    for levels in product(*reversed(choices)):  # the first comparison is the digit that changes fastest
        named = dict(zip(LEVELS, reversed(levels), strict=True))
        rule, vetoes = ruling(named)
        flag = DECIDES if rule else 0
        flag |= FORBIDS_MERGE if vetoes else 0
        flag |= 0 if CONFLICTS.isdisjoint(vetoes) else CONFLICT
        if named["name"] in CALLED:
            flag |= HALF_A_VOTE | (IF_MEANT if vetoes and ruling(named, is_meant=True)[0] else 0)
        flag |= OF_THE_CROWD if is_of_the_crowd(named) else 0
        found.append(flag | (TWO_PEOPLE if DIFFERENT_RESIDENT_ID in vetoes else 0))
    return np.array(found, np.uint8)


def _sorted(sets: Sets) -> Sets:
    """Return the values of each row in the order of their codes."""
    rows = np.repeat(np.arange(sets.starts.size - 1), np.diff(sets.starts))
    return Sets(sets.codes[np.lexsort((sets.codes, rows))], sets.starts)


def _identifiers(name: str, values: Lists, implied: Lists | None, shared: np.ndarray) -> Identifiers:
    own = values.sets(shared)
    other = implied.sets(shared) if implied else Sets(np.zeros(0, np.int32), np.zeros(own.starts.size, np.int64))
    return Identifiers(name, own, other, texts_of([str(text) for text in values.codes.known]))


def newest_versions(records: Iterable[StandardRecord]) -> list[StandardRecord]:
    """Return the newest version of each record; of two with one time the later in order."""
    newest: dict[tuple[str, str], StandardRecord] = {}
    for record in records:
        known = newest.get(record.key)
        if known is None or known.updated_time <= record.updated_time:
            newest[record.key] = record
    return list(newest.values())


def resolve(records: Iterable[StandardRecord], model: MatchModel) -> tuple[Cluster, ...]:
    """Return the clusters of a batch; strongest pairs join first, each join is checked against all members.

    Cost grows with the pairs that share a blocking key, not with the square of the batch.
    """
    chosen = newest_versions(records)
    if not chosen:
        return ()
    people, codes = People(chosen), Codes()
    unique = [codes.of(record.source_id if record.is_unique_in_source else "") for record in chosen]
    return _clusters(chosen, *labels_of(people, model, np.array(unique), [record.key for record in chosen]))


def labels_of(
    people: People, model: MatchModel, unique: np.ndarray, names: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, Judged]:
    """Return each record's cluster, and the pairs that are not apart.

    `unique` is the source of a record if that has one record for one person, else -1. Equal edges join in the order of
    the records' names, so that the clusters do not depend on the order in which records were read.
    """
    judge = people.judge(model)
    edges = edges_of(people.keys(), judge)
    order = np.array(sorted(range(len(names)), key=lambda at: names[at]), np.int32)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size, dtype=np.int32)
    sorted_edges = replace(edges, left=rank[edges.left], right=rank[edges.right])
    labels = clusters_of(sorted_edges, order.size, _Ordered(judge, order), unique[order])
    return order[labels][rank], edges


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A judge of records in another order."""

    own: Judge
    order: np.ndarray

    def judge(self, left: np.ndarray, right: np.ndarray) -> Judged:
        """Return the pairs with weights and bands."""
        return replace(self.own.judge(self.order[left], self.order[right]), left=left, right=right)


def _clusters(records: Sequence[StandardRecord], labels: np.ndarray, edges: Judged) -> tuple[Cluster, ...]:
    members: defaultdict[int, list[int]] = defaultdict(list)
    for at, label in enumerate(labels.tolist()):
        members[label].append(at)
    reviews: defaultdict[int, set[int]] = defaultdict(set)
    apart = edges.where(labels[edges.left] != labels[edges.right])
    for left, right in zip(apart.left.tolist(), apart.right.tolist(), strict=True):
        reviews[labels[left]].add(right)
        reviews[labels[right]].add(left)
    return tuple(
        Cluster(tuple(records[at].key for at in group), tuple(records[at].key for at in sorted(reviews[label])))
        for label, group in members.items()
    )


def train_people(records: Sequence[StandardRecord], version: str, bands: tuple[float, float], seed: int) -> MatchModel:
    """Return a model learnt from records; the same records and seed give the same model."""
    return learn(People(records, ignores_shared=False), version, bands, seed)


def learn(
    people: People, version: str, bands: tuple[float, float], seed: int, verdicts: Sequence[Verdict] = ()
) -> MatchModel:
    """Return a model learnt from records and from pairs that people have judged.

    Raises:
        ValueError: a comparison has no pairs to be learnt from.
    """
    lessons = [
        Lesson(
            kind,
            patterns_of(people.keys([kind]), people.comparisons)[0],
            decided,
            one=_judged(verdicts, kind, is_one=True),
            two=_judged(verdicts, kind, is_one=False),
        )
        for kind, decided in _DECIDED_BY.items()
    ]
    count = people.gathered.size
    random = random_patterns(count, RANDOM_PAIRS, people.comparisons, seed)
    material = Material(LEVELS, random, lessons, count * (count - 1) / 2, nested=NESTED)
    surnames, given_names = people.name_shares()
    return train(material, version, bands, surnames, given_names)


def _judged(verdicts: Sequence[Verdict], kind: str, *, is_one: bool) -> Patterns:
    """Return the patterns of the judged pairs that the kind of key brings together, by their verdict."""
    counts = Counter(
        tuple(list(names).index(level) + 1 if (level := levels.get(name, "")) in names else 0
              for name, names in LEVELS.items())
        for levels, said in verdicts
        if said == is_one and all(levels.get(name) in reached for name, reached in _BROUGHT_BY[kind].items())
    )  # fmt: skip
    digits = np.array(list(counts), np.int64).reshape(-1, len(LEVELS))
    return Patterns(digits, np.array(list(counts.values()), np.int64))
