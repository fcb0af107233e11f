"""Make clusters of judged pairs: the strongest join first, and each join is checked against all members."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from services.profiles.resolution.judging import CONFLICT, HALF_A_VOTE, MERGE, TWO_PEOPLE, Judged
from services.profiles.resolution.kernels import compiled, unite

LARGEST = 500  # records whose pairs are all compared; what hangs together beyond that needs stronger edges
RAISE = 2.0  # bits by which the edges of a larger group are raised until it falls apart
_PAIRS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Groups:
    """Records by what they hang together with: those of group g are members[starts[g]:starts[g + 1]], ascending."""

    members: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Return how many records each group has."""
        return np.diff(self.starts)


class Judging(Protocol):
    """What judges pairs, as Judge does."""

    def judge(self, left: np.ndarray, right: np.ndarray) -> Judged:
        """Return the pairs with weights and bands."""


def clusters_of(edges: Judged, count: int, judge: Judging, unique: np.ndarray) -> np.ndarray:
    """Return for each record the number of the first record of its cluster.

    Two groups join over their strongest edge if no pair across them is of two people, and pairs that agree are at
    least as many as pairs that conflict. `unique` gives each record's source if that has one record for one person,
    else -1: two records of such a source never join.
    """
    merges = edges.where(edges.bands == MERGE)
    roots = _bounded(merges, count)
    labels = np.arange(count, dtype=np.int32)
    groups = _groups(roots)
    groups = _without_couples(groups, unique, labels)
    for begin, end in _slices(groups.sizes):
        starts = groups.starts[begin : end + 1]
        left, right = _pairs_within(groups.members, starts)
        judged = judge.judge(left, right)
        _join(groups.members, starts, judged.weights, judged.bands, judged.flags, unique, labels)
    return labels


def _bounded(merges: Judged, count: int) -> np.ndarray:
    """Return what hangs together over merging edges, weak ones left out where it would be too many records."""
    left, right, weights = merges.left, merges.right, merges.weights
    least = float(weights.min(initial=0.0))
    while True:
        roots = unite(left, right, count)
        too_large = np.bincount(roots, minlength=count) > LARGEST
        if not too_large.any():
            return roots
        least += RAISE
        kept = ~too_large[roots[left]] | (weights >= least)
        left, right, weights = left[kept], right[kept], weights[kept]


def _groups(roots: np.ndarray) -> Groups:
    sizes = np.bincount(roots, minlength=roots.size)
    members = np.flatnonzero(sizes[roots] > 1).astype(np.int32)
    members = members[np.argsort(roots[members], kind="stable")]
    return Groups(members, np.concatenate([[0], np.cumsum(sizes[sizes > 1])]))


def _without_couples(groups: Groups, unique: np.ndarray, labels: np.ndarray) -> Groups:
    """Join the groups of two, for which their one edge speaks, and return the others."""
    couples = groups.sizes == 2
    left, right = (groups.members[groups.starts[:-1][couples] + at] for at in (0, 1))
    fits = (unique[left] < 0) | (unique[left] != unique[right])
    labels[right[fits]] = left[fits]
    rest = groups.sizes[~couples]
    members = groups.members[np.repeat(~couples, groups.sizes)]
    return Groups(members, np.concatenate([[0], np.cumsum(rest)]))


def _slices(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Return ranges of groups with about so many pairs that memory stays bounded."""
    totals = np.cumsum(sizes * (sizes - 1) // 2)
    found, begin, done = [], 0, 0
    while begin < sizes.size:
        end = max(begin + 1, int(np.searchsorted(totals, done + _PAIRS_AT_ONCE, "right")))
        found.append((begin, end))
        begin, done = end, int(totals[end - 1])
    return found


@compiled
def _pairs_within(members: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = 0
    for group in range(starts.size - 1):
        size = starts[group + 1] - starts[group]
        total += size * (size - 1) // 2
    left, right, at = np.empty(total, np.int32), np.empty(total, np.int32), 0
    for group in range(starts.size - 1):
        for one in range(starts[group], starts[group + 1]):
            for other in range(one + 1, starts[group + 1]):
                left[at], right[at] = members[one], members[other]
                at += 1
    return left, right


@compiled
def _join(
    members: np.ndarray,
    starts: np.ndarray,
    weights: np.ndarray,
    bands: np.ndarray,
    flags: np.ndarray,
    unique: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Join the members of each group; pairs are in the order of _pairs_within."""
    base = 0
    for group in range(starts.size - 1):
        begin, size = starts[group], starts[group + 1] - starts[group]
        total = size * (size - 1) // 2
        own = np.arange(size)
        for edge in np.argsort(-weights[base : base + total], kind="mergesort"):
            if bands[base + edge] != MERGE:
                continue
            left, right = _places(edge, size)
            one, other = own[left], own[right]
            if one == other or not _fits(own, one, other, members, begin, base, bands, flags, unique):
                continue
            for at in range(size):
                if own[at] == max(one, other):
                    own[at] = min(one, other)
        for at in range(size):
            labels[members[begin + at]] = members[begin + own[at]]
        base += total


@compiled
def _places(edge: int, size: int) -> tuple[int, int]:
    """Return the two members of a pair from its place among all pairs of a group."""
    left = 0
    while edge >= size - 1 - left:
        edge -= size - 1 - left
        left += 1
    return left, left + 1 + edge


@compiled
def _fits(
    own: np.ndarray,
    one: int,
    other: int,
    members: np.ndarray,
    begin: int,
    base: int,
    bands: np.ndarray,
    flags: np.ndarray,
    unique: np.ndarray,
) -> bool:
    votes, conflicts, size = 0, 0, own.size
    for left in range(size):
        if own[left] != one and own[left] != other:
            continue
        source = unique[members[begin + left]]
        for right in range(left + 1, size):
            if own[right] != one + other - own[left]:
                continue
            pair = base + left * (2 * size - left - 1) // 2 + right - left - 1
            if flags[pair] & TWO_PEOPLE or (source >= 0 and source == unique[members[begin + right]]):
                return False
            if bands[pair] == MERGE:
                votes += 1 if flags[pair] & HALF_A_VOTE else 2
            conflicts += (flags[pair] & CONFLICT) != 0
    return votes >= max(1, 2 * conflicts)
