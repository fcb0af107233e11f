"""Resolve a batch of standard records by the levels, rules and weights that decide single writes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, product

import numpy as np

from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT, blocking_keys
from services.profiles.domain.comparison import LEVELS, MISSING, Traits, traits_of, without_identifiers
from services.profiles.domain.match import CONFLICTS, DIFFERENT_RESIDENT_ID, SHARED_LIMIT, ruling
from services.profiles.domain.model import MatchModel
from services.profiles.domain.training import Lesson, Material, train
from services.profiles.domain.values import Address, Cluster, StandardRecord
from services.profiles.resolution.blocking import Keys, keys_of
from services.profiles.resolution.clusters import clusters_of
from services.profiles.resolution.columns import Column, texts_of
from services.profiles.resolution.comparing import Comparisons, Equal
from services.profiles.resolution.engine import edges_of, patterns_of, random_patterns
from services.profiles.resolution.judging import (
    CONFLICT,
    DECIDES,
    FORBIDS_MERGE,
    TWO_PEOPLE,
    Frequency,
    Judge,
    Judged,
)
from services.profiles.resolution.person_levels import Addresses, Births, Identifiers, Names, Sets

RANDOM_PAIRS = 1_000_000
_LISTED_NAMES = 400  # of surnames and of given names whose shares a model holds
_DECIDED_BY = {  # kind of blocking key that is learnt from: the comparisons it decides
    "phone": ("phone",),
    "email": ("email",),
    "resident_id": ("resident_id", "birth_date", "gender"),
    "name_birth": ("name", "birth_date"),
    "name_address": ("name", "address"),
}


class Codes:
    """Numbers for values in the order they are first met; an empty value has -1."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        """Return the number of a value."""
        return self.known.setdefault(value, len(self.known)) if value else -1

    def all(self, values: Iterable[Hashable]) -> np.ndarray:
        """Return the numbers of values."""
        return np.fromiter(map(self.of, values), np.int32)

    def sets(self, values: Sequence[Iterable[Hashable]]) -> Sets:
        """Return the numbers of several values for each record."""
        rows = [list(map(self.of, row)) for row in values]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return Sets(np.fromiter(chain.from_iterable(rows), np.int32), starts)


class People:
    """Records as columns, made once for all that is asked of them."""

    def __init__(self, records: Sequence[StandardRecord], *, ignores_shared: bool = True) -> None:
        """Take records, each key once; phones and e-mails known under too many names are no evidence."""
        self.records = records
        traits = [traits_of(record) for record in records]
        self.traits = _without_shared(traits) if ignores_shared else traits
        self._names = self._name_column()
        self.comparisons = Comparisons(
            [
                self._names,
                self._identifiers("phone", lambda item: item.phones, lambda item: item.implied_phones),
                self._identifiers("email", lambda item: item.emails, lambda item: ()),
                self._equal("resident_id", lambda item: item.resident_id),
                self._births(),
                self._addresses(),
                self._equal("gender", lambda item: item.gender),
            ]
        )

    def _name_column(self) -> Names:
        codes = Codes()
        first: dict[int, Traits] = {}
        found = codes.all(item.name and (item.name.surname, item.name.given, item.name.style) for item in self.traits)
        for code, item in zip(found.tolist(), self.traits, strict=True):
            first.setdefault(code, item)
        items = [first[code] for code in range(len(codes.known))]
        fulls, styles, surnames, sounds = Codes(), Codes(), Codes(), Codes()
        parts = np.full((len(items), 8), -1, np.int32)
        for row, item in zip(parts, items, strict=True):
            name, (surname, given) = item.name, item.sounds
            if name is not None:
                row[:4] = fulls.of(item.full_name), styles.of(name.style), name.is_complete, surnames.of(name.surname)
                row[4:] = [sounds.of(sound) for sound in (surname, given, surname + given, given + surname)]
        givens = [item.name.given if item.name else "" for item in items]
        return Names(found, texts_of([item.full_name for item in items]), texts_of(givens), parts, items)

    def _identifiers(
        self, name: str, values: Callable[[Traits], Iterable[str]], implied: Callable[[Traits], Iterable[str]]
    ) -> Identifiers:
        codes = Codes()
        own = codes.sets([sorted(values(item)) for item in self.traits])
        other = codes.sets([sorted(implied(item)) for item in self.traits])
        return Identifiers(name, own, other, texts_of([str(text) for text in codes.known]))

    def _equal(self, name: str, value: Callable[[Traits], str]) -> Equal:
        return Equal(name, Column(Codes().all(map(value, self.traits)), texts_of([])), LEVELS[name])

    def _births(self) -> Births:
        codes, parts = Codes(), Codes()
        found = codes.all(item.birth_date for item in self.traits)
        dates = [str(date) for date in codes.known]
        taken = [[parts.of(part) for part in (date[:4], date[5:7], date[8:])] for date in dates]
        return Births(found, texts_of(dates), np.array(taken, np.int32).reshape(-1, 3))

    def _addresses(self) -> Addresses:
        codes = Codes()
        places = [item.address or Address() for item in self.traits]
        rows = [(p.province_code, p.city_code, p.district_code, p.detail and (p.detail,)) for p in places]
        return Addresses(np.array([[codes.of(part) for part in row] for row in rows], np.int32).reshape(-1, 4))

    def keys(self, kinds: Sequence[str] = ()) -> Keys:
        """Return the blocking keys, of some kinds or of all."""
        codes = Codes()
        rows: list[defaultdict[str, list[int]]] = []
        for record in self.records:
            row: defaultdict[str, list[int]] = defaultdict(list)
            for key in blocking_keys(record):
                row[key.partition(":")[0]].append(codes.of(key))
            rows.append(row)
        rules = []
        for kind in kinds or sorted({kind for row in rows for kind in row}):
            slots = max((len(row[kind]) for row in rows if kind in row), default=1)
            table = np.full((slots, len(rows)), -1, np.int32)
            for at, row in enumerate(rows):
                if kind in row:
                    table[: len(row[kind]), at] = row[kind]
            rules.append([[slot] for slot in table])
        return keys_of(rules, KEY_CANDIDATES_LIMIT)

    def judge(self, model: MatchModel) -> Judge:
        """Return what judges pairs of these records as match.compare does."""
        bits = [model.name_adjustment(item.name) for item in self._names.items if item.name]
        frequency = Frequency(0, self._names.codes, np.array(bits, float))
        return Judge(self.comparisons, model, lambda patterns, _: _flags()[patterns], [frequency])


@lru_cache(maxsize=1)
def _flags() -> np.ndarray:
    """Return what the rules say of every pattern; it depends on the levels alone."""
    choices = [(MISSING, *levels) for levels in LEVELS.values()]
    found = []
    for levels in product(*reversed(choices)):  # the first comparison is the digit that changes fastest
        rule, vetoes = ruling(dict(zip(LEVELS, reversed(levels), strict=True)))
        flag = DECIDES if rule else 0
        flag |= FORBIDS_MERGE if vetoes else 0
        flag |= 0 if CONFLICTS.isdisjoint(vetoes) else CONFLICT
        found.append(flag | (TWO_PEOPLE if DIFFERENT_RESIDENT_ID in vetoes else 0))
    return np.array(found, np.uint8)


def _without_shared(traits: Sequence[Traits]) -> list[Traits]:
    """Return the traits without phones and e-mails under which too many names are known."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for item in traits:
        for identifier in (*item.phones, *item.emails):
            names[identifier].add(item.full_name)
    shared = frozenset(identifier for identifier, known in names.items() if len(known) > SHARED_LIMIT)
    return [without_identifiers(item, shared) for item in traits]


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
    people = People(chosen)
    judge = people.judge(model)
    edges = edges_of(people.keys(), judge)
    sources = Codes()
    unique = sources.all(record.source_id if record.is_unique_in_source else "" for record in chosen)
    labels = clusters_of(edges, len(chosen), judge, unique)
    return _clusters(chosen, labels, edges)


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
    people = People(records, ignores_shared=False)
    lessons = [
        Lesson(kind, patterns_of(people.keys([kind]), people.comparisons)[0], decided)
        for kind, decided in _DECIDED_BY.items()
    ]
    random = random_patterns(len(records), RANDOM_PAIRS, people.comparisons, seed)
    material = Material(LEVELS, random, lessons, len(records) * (len(records) - 1) / 2)
    complete = [item.name for item in people.traits if item.name and item.name.is_complete]
    surnames, given_names = (
        {word: count / len(complete) for word, count in Counter(words).most_common(_LISTED_NAMES)}
        for words in ((name.surname for name in complete), (name.given for name in complete))
    )
    return train(material, version, bands, surnames, given_names)
