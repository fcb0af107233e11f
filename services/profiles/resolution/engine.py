"""Run the steps over all cores: pairs are met, compared and judged in parts, and only those that matter are kept."""

import os
from collections.abc import Iterable

import numpy as np

from services.profiles.domain.training import Patterns
from services.profiles.resolution.blocking import Keys, Part, workers
from services.profiles.resolution.comparing import Comparisons
from services.profiles.resolution.judging import APART, Judge, Judged, joined

NO_SIDES = np.zeros(0, np.int8)


def edges_of(keys: Keys, judge: Judge, sides: np.ndarray = NO_SIDES, *, keeps_apart: bool = False) -> Judged:
    """Return the pairs that share a key and are not apart; all that share a key with `keeps_apart`."""

    def work(part: Part) -> Judged:
        judged = judge.judge(*keys.pairs_of(part, sides))
        return judged if keeps_apart else judged.where(judged.bands != APART)

    with workers() as pool:
        return joined(list(pool.map(work, keys.parts())))


def patterns_of(
    keys: Keys, comparisons: Comparisons, sides: np.ndarray = NO_SIDES, most: int = 0
) -> tuple[Patterns, float]:
    """Return the counted patterns of the pairs that share a key, or of about `most` of them, and which share it is."""
    parts = list(keys.parts(most // 4))[: 4 if most else None]

    def work(part: Part) -> np.ndarray:
        return comparisons.compare(*keys.pairs_of(part, sides))

    with workers() as pool:
        share = sum(part.pairs for part in parts) / max(1, keys.pairs())
        return counted(pool.map(work, parts), comparisons), share


def counted(found: Iterable[np.ndarray], comparisons: Comparisons) -> Patterns:
    """Return patterns with their counts."""
    patterns = np.sort(np.concatenate([np.zeros(0, np.int32), *found]))
    starts = np.flatnonzero(np.diff(patterns, prepend=-1))
    return Patterns(comparisons.digits(patterns[starts]), np.diff(starts, append=patterns.size))


def random_patterns(
    count: int, pairs: int, comparisons: Comparisons, seed: int, sides: np.ndarray = NO_SIDES
) -> Patterns:
    """Return the patterns of random pairs of different records, across the sides if there are any."""
    dice = np.random.default_rng(seed)
    left, right = (dice.integers(0, count, pairs, dtype=np.int32) for _ in range(2))
    apart = left != right if not sides.size else sides[left] != sides[right]
    left, right = left[apart], right[apart]
    chunks = max(1, len(os.sched_getaffinity(0)))
    with workers() as pool:
        found = pool.map(comparisons.compare, np.array_split(left, chunks), np.array_split(right, chunks))
        return counted(found, comparisons)
