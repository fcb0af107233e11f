"""What a pattern of levels means: its weight, what forbids or decides a merge, and the band of a pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.profiles.domain.model import MatchModel
from services.profiles.resolution.comparing import Comparisons
from services.profiles.resolution.kernels import Sets, compiled, meet

DECIDES, FORBIDS_MERGE, CONFLICT, TWO_PEOPLE, HALF_A_VOTE = 1, 2, 4, 8, 16  # what the rules say of a pattern
OF_THE_CROWD = 64  # nothing agrees that few people share
IF_MEANT = 32  # decides where an incomplete name means one person only on a phone or e-mail of both
APART, REVIEW, MERGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Frequency:
    """Bits to add where a comparison (by its place) reached its first level, by the code of the shared value."""

    place: int
    codes: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True, slots=True)
class Meant:
    """The phones and e-mails of each whole name, and those on which an incomplete one means one person only."""

    identifiers: Sets
    told: Sets


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs with their weights in bits, their bands, and what the rules say of them."""

    left: np.ndarray
    right: np.ndarray
    weights: np.ndarray
    bands: np.ndarray
    flags: np.ndarray

    def where(self, chosen: np.ndarray) -> "Judged":
        """Return the chosen pairs."""
        return Judged(*(getattr(self, name)[chosen] for name in self.__slots__))


def joined(parts: Sequence[Judged]) -> Judged:
    """Return all pairs of several parts."""
    empty = np.zeros(0, np.int32)
    found = parts or [Judged(empty, empty, empty.astype(float), empty.astype(np.int8), empty.astype(np.uint8))]
    return Judged(*(np.concatenate([getattr(part, name) for part in found]) for name in Judged.__slots__))


class Judge:
    """Compares pairs and judges them by a model, and by what the rules say of their patterns."""

    def __init__(
        self,
        comparisons: Comparisons,
        model: MatchModel,
        flags: Callable[[np.ndarray, np.ndarray], np.ndarray],
        frequencies: Sequence[Frequency] = (),
        meant: Meant | None = None,
    ) -> None:
        """Judge with the model's weights; `flags` returns the rules' flags from patterns and their weights."""
        self._comparisons = comparisons
        self._model = model
        self._flags = flags
        self._frequencies = frequencies
        self._meant = meant
        self._bits = np.zeros((len(comparisons.parts), int(comparisons.sizes.max())))
        for row, part in zip(self._bits, comparisons.parts, strict=True):
            row[1 : len(part.levels) + 1] = [model.weights[part.name][level] for level in part.levels]

    def judge(self, left: np.ndarray, right: np.ndarray) -> Judged:
        """Return the pairs with weights and bands."""
        patterns = self._comparisons.compare(left, right)
        weights = _weigh(patterns, self._comparisons.sizes, self._bits, self._model.prior_weight)
        flags = self._flags(patterns, weights)
        for item in self._frequencies:
            radix, size = self._comparisons.radices[item.place], self._comparisons.sizes[item.place]
            _add_bits(patterns, int(radix), int(size), item.codes, left, item.bits, weights)
        if self._model.crowd_weight:
            weights[flags & OF_THE_CROWD > 0] += self._model.crowd_weight
        if self._meant is not None:
            found, told = self._meant.identifiers, self._meant.told
            _decide_meant(flags, left, right, found.codes, found.starts, told.codes, told.starts)
        bands = _bands(weights, flags, self._model.merge_weight, self._model.review_weight)
        return Judged(left, right, weights, bands, flags)


@compiled
def _weigh(patterns: np.ndarray, sizes: np.ndarray, bits: np.ndarray, prior: float) -> np.ndarray:
    """Return the sum of the prior's weight and those of the levels, in the order a single write adds them."""
    weights = np.empty(patterns.size)
    for at in range(patterns.size):
        rest, weight = patterns[at], prior
        for place in range(sizes.size):
            weight += bits[place, rest % sizes[place]]
            rest //= sizes[place]
        weights[at] = weight
    return weights


@compiled
def _add_bits(
    patterns: np.ndarray,
    radix: int,
    size: int,
    codes: np.ndarray,
    left: np.ndarray,
    bits: np.ndarray,
    weights: np.ndarray,
) -> None:
    for at in range(patterns.size):
        if patterns[at] // radix % size == 1:
            weights[at] += bits[codes[left[at]]]


@compiled
def _decide_meant(
    flags: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    codes: np.ndarray,
    starts: np.ndarray,
    told: np.ndarray,
    told_starts: np.ndarray,
) -> None:
    """Let those pairs merge whose incomplete name means one person only on an identifier of both."""
    for at in range(flags.size):
        if not flags[at] & IF_MEANT:
            continue
        a, b = left[at], right[at]
        if meet(told, told_starts, a, codes, starts, b) or meet(told, told_starts, b, codes, starts, a):
            flags[at] = (flags[at] | DECIDES) & ~FORBIDS_MERGE


@compiled
def _bands(weights: np.ndarray, flags: np.ndarray, merge: float, review: float) -> np.ndarray:
    bands = np.zeros(weights.size, np.int8)
    for at in range(weights.size):
        flag, weight = flags[at], weights[at]
        if flag & 8:
            continue
        if flag & 1 or (weight >= merge and not flag & 2):
            bands[at] = 2
        elif weight >= review:
            bands[at] = 1
    return bands
