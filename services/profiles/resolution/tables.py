"""Resolve a table of text columns by a scheme: what is compared how, which pairs are met, what is learnt from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.profiles.domain.model import MatchModel
from services.profiles.domain.training import Lesson, Material, train
from services.profiles.resolution.blocking import Keys, keys_of, narrowed, workers
from services.profiles.resolution.clusters import clusters_of
from services.profiles.resolution.columns import Column, codes_there, column_of, side_by_side
from services.profiles.resolution.comparing import Alike, Comparison, Comparisons, Edits, Equal, Turnable, dates_of
from services.profiles.resolution.engine import NO_SIDES, edges_of, patterns_of, random_patterns
from services.profiles.resolution.judging import CONFLICT, FORBIDS_MERGE, Frequency, Judge

KINDS: Mapping[str, Callable[[str, Column], Comparison]] = {
    "words": Alike, "number": Edits, "equal": Equal, "date": dates_of,
}  # fmt: skip
Rule = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a table is resolved.

    `compared` gives the kind of comparison by column, `frequent` the columns whose shared rare values say more;
    `rules` and `lessons` are the columns that must be equal for a pair to be compared, and to be learnt from.
    `turned` are two columns of words that are at times written in each other's place.
    A pair below `conflict_weight` speaks against joining the groups of its records, and so does one whose value of a
    `lasting` column is at the last level: nobody has two dates of birth. Such a pair never joins by itself.
    """

    compared: Mapping[str, str]
    frequent: Sequence[str]
    rules: Sequence[Rule]
    lessons: Sequence[Rule]
    merge_weight: float
    review_weight: float
    conflict_weight: float = -10.0
    turned: Sequence[str] = ()
    lasting: Sequence[str] = ()
    most_of_a_key: int = 2000
    most_of_a_person: int = 30
    random_pairs: int = 200_000
    lesson_pairs: int = 200_000
    seed: int = 1


class Table:
    """The columns of a table as a scheme needs them."""

    def __init__(
        self, scheme: Scheme, column: Callable[[str], pa.Array | pa.ChunkedArray], sides: np.ndarray = NO_SIDES
    ) -> None:
        """Read the columns with `column`; with `sides` only pairs across them are of interest."""
        self.scheme = scheme
        self.sides = sides
        names = [*scheme.compared, *(name for rule in (*scheme.rules, *scheme.lessons) for name in rule)]
        names = list(dict.fromkeys(names))
        with workers() as pool:
            found = pool.map(lambda name: column_of(column(name)), names)
            self.columns = dict(zip(names, side_by_side(list(found)), strict=True))
        self.count = self.columns[names[0]].codes.size
        self.comparisons = Comparisons([self._comparison(name, kind) for name, kind in scheme.compared.items()])

    def _comparison(self, name: str, kind: str) -> Comparison:
        if name not in self.scheme.turned:
            return KINDS[kind](name, self.columns[name])
        own = self.columns[name]
        (other,) = (self.columns[item] for item in self.scheme.turned if item != name)
        return Turnable(Alike(name, own), other.codes, codes_there(own, other), name == self.scheme.turned[0])

    def keys(self, rules: Sequence[Rule]) -> Keys:
        """Return the keys of the records under rules."""
        return keys_of([[[self.columns[name].codes for name in rule]] for rule in rules], self.scheme.most_of_a_key)

    def train(self, version: str) -> MatchModel:
        """Return a model learnt from the table."""
        lessons = []
        for rule in self.scheme.lessons:
            patterns, share = patterns_of(self.keys([rule]), self.comparisons, self.sides, self.scheme.lesson_pairs)
            lessons.append(
                Lesson("+".join(rule), patterns, rule, share, [name for name in rule if name in self.scheme.compared])
            )
        pairs = min(self.scheme.random_pairs, 10 * self.count)
        random = random_patterns(self.count, pairs, self.comparisons, self.scheme.seed, self.sides)
        material = Material(
            {part.name: part.levels for part in self.comparisons.parts},
            random,
            lessons,
            self._pairs(),
            {name: float((self.columns[name].frequencies() ** 2).sum()) for name in self.scheme.compared},
        )
        return train(material, version, (self.scheme.merge_weight, self.scheme.review_weight))

    def resolve(self, model: MatchModel) -> np.ndarray:
        """Return for each record the number of the first record of its cluster."""
        judge = self.judge(model)
        codes = {name: self.columns[name].codes for name in self.scheme.compared}
        edges = edges_of(
            narrowed(self.keys(self.scheme.rules), self.scheme.rules, codes, self.scheme.most_of_a_person),
            judge,
            self.sides,
        )
        unique = self.sides if self.sides.size else np.full(self.count, -1, np.int8)
        return clusters_of(edges, self.count, judge, unique)

    def judge(self, model: MatchModel) -> Judge:
        """Return what judges pairs of this table by a model."""

        places = [list(self.scheme.compared).index(name) for name in self.scheme.lasting]

        def flags(patterns: np.ndarray, weights: np.ndarray) -> np.ndarray:
            found = np.where(weights < self.scheme.conflict_weight, np.uint8(CONFLICT), np.uint8(0))
            for place in places:
                size = self.comparisons.sizes[place]
                differs = patterns // self.comparisons.radices[place] % size == size - 1
                found |= np.where(differs, np.uint8(CONFLICT | FORBIDS_MERGE), np.uint8(0))
            return found

        return Judge(self.comparisons, model, flags, [self._frequency(name, model) for name in self.scheme.frequent])

    def _frequency(self, name: str, model: MatchModel) -> Frequency:
        column = self.columns[name]
        shares = np.maximum(column.frequencies(), 1 / self.count)
        bits = np.log2(model.odds[name]["same"][1] / shares)
        return Frequency(list(self.scheme.compared).index(name), column.codes, bits)

    def _pairs(self) -> float:
        if self.sides.size:
            ones = float(np.count_nonzero(self.sides))
            return ones * (self.count - ones)
        return self.count * (self.count - 1) / 2
