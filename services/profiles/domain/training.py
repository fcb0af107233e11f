"""Learn a model's probabilities from records alone: u from random pairs, m by expectation maximization.

The method is Fellegi and Sunter's with the EM of Winkler (1988), run for each kind of blocking key apart and
without the comparisons that the key itself decides, as Linacre et al. describe for splink (IJPDS 2022).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import log2
from random import Random

from services.profiles.domain.blocking import blocking_keys
from services.profiles.domain.comparison import LEVELS, MISSING, Traits, levels_of, traits_of
from services.profiles.domain.model import MatchModel, make_model
from services.profiles.domain.values import StandardRecord

RANDOM_PAIRS = 300_000
EM_ROUNDS = 40
FLOOR = 1e-5  # no level is impossible
_SMOOTHING = 0.5  # pseudo-counts per level
_DECIDED_BY = {  # kind of blocking key: the comparisons it decides
    "phone": ("phone",),
    "email": ("email",),
    "resident_id": ("resident_id", "birth_date", "gender"),
    "name_birth": ("name", "birth_date"),
    "name_address": ("name", "address"),
}
Pattern = tuple[str, ...]
Shares = dict[str, dict[str, float]]


def train(records: Sequence[StandardRecord], version: str, bands: tuple[float, float], seed: int) -> MatchModel:
    """Return a model learnt from records; the same records and seed give the same model."""
    traits = [traits_of(record) for record in records]
    u_shares = _random_shares(traits, Random(seed))
    blocks = _patterns_by_kind(records, traits)
    learnt = [(kind, *_learn(patterns, _DECIDED_BY[kind], u_shares)) for kind, patterns in sorted(blocks.items())]
    matched = max(matches for _, _, matches in learnt)
    prior = matched / (len(records) * (len(records) - 1) / 2)
    odds: dict[str, dict[str, tuple[float, float]]] = {}
    for name in LEVELS:
        votes = [(matches, m[name]) for kind, m, matches in learnt if name not in _DECIDED_BY[kind]]
        odds[name] = _odds(votes, u_shares[name], prior)
    surnames, given_names = _name_shares(traits)
    return make_model(version, log2(prior / (1 - prior)), bands, odds, surnames, given_names)


def _odds(
    votes: Sequence[tuple[float, Mapping[str, float]]], random_shares: Mapping[str, float], prior: float
) -> dict[str, tuple[float, float]]:
    """Return (m, u) per level: m averaged over the votes, u freed of the matches among the random pairs."""
    total = sum(matches for matches, _ in votes)
    odds = {}
    for level, share in random_shares.items():
        m = sum(matches * shares[level] for matches, shares in votes) / total
        odds[level] = (max(FLOOR, m), max(FLOOR, (share - prior * m) / (1 - prior)))
    return odds


def _random_shares(traits: Sequence[Traits], random: Random) -> Shares:
    """Return how often each level occurs among random pairs, nearly all of which are two people."""
    counts: Counter[Pattern] = Counter()
    for _ in range(RANDOM_PAIRS):
        left, right = random.randrange(len(traits)), random.randrange(len(traits))
        if left != right:
            counts[levels_of(traits[left], traits[right])] += 1
    return _shares({pattern: float(count) for pattern, count in counts.items()})


def _patterns_by_kind(records: Sequence[StandardRecord], traits: Sequence[Traits]) -> dict[str, Counter[Pattern]]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        for key in blocking_keys(record):
            members[key].append(at)
    found: defaultdict[str, Counter[Pattern]] = defaultdict(Counter)
    for key, block in members.items():
        kind = key.partition(":")[0]
        if kind in _DECIDED_BY:
            for left, right in combinations(block[:50], 2):
                found[kind][levels_of(traits[left], traits[right])] += 1
    return dict(found)


def _learn(patterns: Mapping[Pattern, int], decided: Sequence[str], u_shares: Shares) -> tuple[Shares, float]:
    """Return m by EM with u held fixed, and the expected number of matching pairs."""
    columns = [(at, name) for at, name in enumerate(LEVELS) if name not in decided]
    m_shares: Shares = {name: _first_guess(levels) for name, levels in LEVELS.items()}
    share = 0.8
    matches: dict[Pattern, float] = {}
    for _ in range(EM_ROUNDS):
        for pattern, count in patterns.items():
            one, two = share, 1 - share
            for at, name in columns:
                if pattern[at] != MISSING:
                    one *= m_shares[name][pattern[at]]
                    two *= max(FLOOR, u_shares[name][pattern[at]])
            matches[pattern] = count * one / (one + two)
        m_shares = _shares(matches)
        share = min(0.999, sum(matches.values()) / sum(patterns.values()))
    return m_shares, sum(matches.values())


def _first_guess(levels: Sequence[str]) -> dict[str, float]:
    weights = [2.0 ** -(3 * at) for at in range(len(levels))]
    return {level: weight / sum(weights) for level, weight in zip(levels, weights, strict=True)}


def _shares(patterns: Mapping[Pattern, float]) -> Shares:
    shares: Shares = {}
    for at, (name, levels) in enumerate(LEVELS.items()):
        counts = dict.fromkeys(levels, _SMOOTHING)
        for pattern, count in patterns.items():
            if pattern[at] != MISSING:
                counts[pattern[at]] += count
        total = sum(counts.values())
        shares[name] = {level: count / total for level, count in counts.items()}
    return shares


def _name_shares(traits: Sequence[Traits], limit: int = 400) -> tuple[dict[str, float], dict[str, float]]:
    """Return the shares of the most frequent surnames and given names."""
    complete = [item.name for item in traits if item.name and item.name.is_complete]
    tables = []
    for counts in (Counter(name.surname for name in complete), Counter(name.given for name in complete)):
        tables.append({word: count / len(complete) for word, count in counts.most_common(limit)})
    return tables[0], tables[1]
