"""Learn a model's probabilities from compared pairs: u from random pairs, m by expectation maximization.

The method is Fellegi and Sunter's with the EM of Winkler (1988), run for each kind of blocking key apart and
without the comparisons that the key itself decides, as Linacre et al. describe for splink (IJPDS 2022). Pairs come
as counted patterns of levels (Enamorado, Fifield and Imai 2019): the cost does not grow with their number. Pairs that
a person has judged keep that verdict in every round (Larsen and Rubin, JASA 2001); none are needed.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import log2, prod
from typing import Any

import numpy as np

from services.profiles.domain.model import FLOOR, MatchModel, make_model

EM_ROUNDS = 60
_SETTLED = 1e-5  # largest change of a probability in the last round
_TELLING = 30  # pairs at a level between others: fewer teach chance
_SMOOTHING = 0.5  # pseudo-counts per level


@dataclass(frozen=True, slots=True)
class Patterns:
    """How many pairs had which levels: a row of digits for each pattern, 0 where a value is missing."""

    digits: np.ndarray
    counts: np.ndarray


NOTHING = Patterns(np.zeros((0, 0), np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Lesson:
    """The pairs of one kind of blocking key, the comparisons it decides, and the share of all its pairs seen.

    `equal` are comparisons that the key brings to their first level, one independent of the other: how often one
    person's records have them there tells how many pairs of one person the key does not meet. `one` and `two` are
    those of the pairs that people judged to be one person or two.
    """

    kind: str
    patterns: Patterns
    decided: Sequence[str]
    share: float = 1.0
    equal: Sequence[str] = ()
    one: Patterns = field(default_factory=lambda: NOTHING)
    two: Patterns = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Material:
    """What is learnt from: random pairs, pairs by kind of key, and how many pairs there are at all.

    `same` gives the probability of a comparison's first level for two people where it is known better than from
    random pairs: from the frequencies of the values. `nested` are levels of a comparison of which each includes the
    one before: the finer one weighs at least as much.
    """

    levels: Mapping[str, Sequence[str]]
    random: Patterns
    lessons: Sequence[Lesson]
    pairs: float
    same: Mapping[str, float] = field(default_factory=dict)
    nested: Mapping[str, Sequence[str]] = field(default_factory=dict)


def train(
    material: Material,
    version: str,
    bands: tuple[float, float],
    surnames: Mapping[str, float] | None = None,
    given_names: Mapping[str, float] | None = None,
) -> MatchModel:
    """Return a model learnt from the material, with the report of its training.

    Raises:
        ValueError: a comparison has no pairs to be learnt from.
    """
    names = list(material.levels)
    u_shares = [_shares(material.random, at, len(material.levels[name])) for at, name in enumerate(names)]
    for at, name in enumerate(names):
        if name in material.same:
            rest = u_shares[at][1:]
            same = max(material.same[name], 1e-12)
            u_shares[at] = np.concatenate([[same], rest / rest.sum() * (1 - same)])
    lessons = [lesson for lesson in material.lessons if lesson.patterns.counts.size]
    for name in names:
        if all(name in lesson.decided for lesson in lessons):
            raise ValueError(f"no pairs to learn {name} from")
    learnt = [_learn(lesson, names, u_shares) for lesson in lessons]
    voted = [_voted(name, at, lessons, learnt) for at, name in enumerate(names)]
    m_shares = {name: np.where(_met(material, at) > 0, voted[at], u_shares[at]) for at, name in enumerate(names)}
    present = {name: _present(name, at, lessons, learnt) for at, name in enumerate(names)}
    met = [
        found.matches / lesson.share / prod(m_shares[name][0] * present[name] for name in lesson.equal)
        for found, lesson in zip(learnt, lessons, strict=True)
    ]
    prior = max(met) / material.pairs
    odds = {
        name: _odds(material.levels[name], m_shares[name], u_shares[at], prior, material.same.get(name, FLOOR))
        for at, name in enumerate(names)
    }
    for name, levels in material.nested.items():
        reached = _met(material, names.index(name))
        known = {level for level, count in zip(material.levels[name], reached, strict=True) if count >= _TELLING}
        odds[name] |= _ordered(levels, odds[name], known)
    return make_model(
        version,
        log2(prior / (1 - prior)),
        bands,
        odds,
        surnames or {},
        given_names or {},
        _report(material, lessons, learnt),
    )


@dataclass(frozen=True, slots=True)
class _Learnt:
    m_shares: list[np.ndarray]
    present: list[float]  # share of one person's pairs in which both values are known
    matches: float
    rounds: int
    bits: float  # mean log2 of the likelihood of a pair: what EM makes larger


def _report(material: Material, lessons: Sequence[Lesson], learnt: Sequence[_Learnt]) -> dict[str, Any]:
    """Return what was learnt from, and how well it fits."""
    return {
        "random_pairs": int(material.random.counts.sum()),
        "lessons": [
            {
                "key": lesson.kind,
                "pairs": int(lesson.patterns.counts.sum()),
                "patterns": int(lesson.patterns.counts.size),
                "rounds": found.rounds,
                "matches": round(found.matches),
                "judged": int(lesson.one.counts.sum() + lesson.two.counts.sum()),
                "bits_per_pair": round(found.bits, 4),
            }
            for found, lesson in zip(learnt, lessons, strict=True)
        ],
    }


def _voted(name: str, at: int, lessons: Sequence[Lesson], learnt: Sequence[_Learnt]) -> np.ndarray:
    """Return m averaged over the lessons that do not decide the comparison, by their matches."""
    votes = [found for found, lesson in zip(learnt, lessons, strict=True) if name not in lesson.decided]
    return np.average([found.m_shares[at] for found in votes], axis=0, weights=[found.matches for found in votes])


def _present(name: str, at: int, lessons: Sequence[Lesson], learnt: Sequence[_Learnt]) -> float:
    votes = [found for found, lesson in zip(learnt, lessons, strict=True) if name not in lesson.decided]
    return float(np.average([found.present[at] for found in votes], weights=[found.matches for found in votes]))


def _odds(
    levels: Sequence[str], m_shares: np.ndarray, u_shares: np.ndarray, prior: float, same: float
) -> dict[str, tuple[float, float]]:
    """Return (m, u) per level; u of random pairs is freed of the matches among them."""
    lowest = min(FLOOR, same)
    freed = u_shares if lowest < FLOOR else (u_shares - prior * m_shares) / (1 - prior)
    pairs = zip(np.maximum(m_shares, FLOOR).tolist(), np.maximum(freed, lowest).tolist(), strict=True)
    return dict(zip(levels, pairs, strict=True))


def _ordered(
    levels: Sequence[str], odds: Mapping[str, tuple[float, float]], met: Set[str]
) -> dict[str, tuple[float, float]]:
    """Return odds that do not rise from level to level: neighbours that do share theirs (pool adjacent violators).

    What too few pairs reached lies evenly between the weights of its neighbours.
    """
    pools: list[tuple[float, float, list[str]]] = []
    for level in filter(met.__contains__, levels):
        m, u, own = *odds[level], [level]
        while pools and pools[-1][0] * u < m * pools[-1][1]:
            before = pools.pop()
            m, u, own = m + before[0], u + before[1], before[2] + own
        pools.append((m, u, own))
    known = {level: log2(m / u) for m, u, own in pools for level in own}
    places = [at for at, level in enumerate(levels) if level in known]
    bits = np.interp(range(len(levels)), places, [known[levels[at]] for at in places]).tolist() if places else ()
    return {level: (odds[level][1] * 2**weight, odds[level][1]) for level, weight in zip(levels, bits, strict=False)}


def _learn(lesson: Lesson, names: Sequence[str], u_shares: Sequence[np.ndarray]) -> _Learnt:
    """Return m by EM with u held fixed, and the expected number of matching pairs."""
    digits, counts, known = _with_verdicts(lesson)
    columns = [at for at, name in enumerate(names) if name not in lesson.decided]
    m_shares = [_first_guess(shares.size) for shares in u_shares]
    two_people = np.zeros(counts.size)
    for at in columns:
        two_people += _logs(u_shares[at])[digits[:, at]]
    share, bits = 0.8, 0.0
    for rounds in range(1, EM_ROUNDS + 1):  # noqa: B007 - told in the report
        one_person = np.zeros(counts.size)
        for at in columns:
            one_person += _logs(m_shares[at])[digits[:, at]]
        joint = np.logaddexp2(one_person + log2(share), two_people + log2(1 - share))
        matches = counts * np.where(np.isnan(known), np.exp2(one_person + log2(share) - joint), known)
        bits = float(joint @ counts / counts.sum())
        share = min(0.999, max(1e-6, matches.sum() / counts.sum()))
        last = m_shares
        m_shares = [_shares(Patterns(digits, matches), at, m.size) for at, m in enumerate(m_shares)]
        if max(np.abs(m_shares[at] - last[at]).max() for at in columns) < _SETTLED:
            break
    present = [float(matches[digits[:, at] > 0].sum() / matches.sum()) for at in range(len(names))]
    return _Learnt(m_shares, present, float(matches.sum()), rounds, bits)


def _with_verdicts(lesson: Lesson) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return digits, counts and what is known of each row: 1 for one person, 0 for two, NaN where nobody judged.

    A judged pair is among the lesson's pairs; it is counted once.
    """
    digits, counts = lesson.patterns.digits, lesson.patterns.counts.astype(float)
    judged = [item for item in (lesson.one, lesson.two) if item.counts.size]
    if not judged:
        return digits, counts, np.full(counts.size, np.nan)
    rows = {tuple(row): at for at, row in enumerate(digits.tolist())}
    for item in judged:
        for row, count in zip(item.digits.tolist(), item.counts.tolist(), strict=True):
            if tuple(row) in rows:
                at = rows[tuple(row)]
                counts[at] = max(0.0, counts[at] - count)
    known = [np.full(item.counts.size, value) for item, value in ((lesson.one, 1.0), (lesson.two, 0.0))]
    return (
        np.concatenate([digits, *(item.digits for item in judged)]),
        np.concatenate([counts, *(item.counts for item in judged)]),
        np.concatenate([np.full(counts.size, np.nan), *known]),
    )


def _logs(shares: np.ndarray) -> np.ndarray:
    """Return log2 of the probabilities by digit; a missing value says nothing."""
    return np.concatenate([[0.0], np.log2(np.maximum(shares, 1e-12))])


def _first_guess(size: int) -> np.ndarray:
    weights = 2.0 ** -(3 * np.arange(size))
    return weights / weights.sum()


def _met(material: Material, at: int) -> np.ndarray:
    """Return how many pairs reached each level; one that was never met says nothing, for or against."""
    patterns = (material.random, *(lesson.patterns for lesson in material.lessons))
    size = len(list(material.levels.values())[at])
    return np.sum([_counts(item, at, size) for item in patterns], axis=0)


def _counts(patterns: Patterns, at: int, size: int) -> np.ndarray:
    return np.bincount(patterns.digits[:, at], patterns.counts, size + 1)[1:]


def _shares(patterns: Patterns, at: int, size: int) -> np.ndarray:
    counts = _counts(patterns, at, size) + _SMOOTHING
    return counts / counts.sum()
