"""Compiled comparisons of short texts, and what groups records; machine code that runs without the interpreter's lock.

Texts are slices of one array of character numbers. Each text has a mask of the characters in it, a bit for each
occurrence of each (some share one): what one mask has and the other lacks bounds their likeness from above, so that
most pairs need no closer look.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

_STRIDE = 26  # between the bits of a character's occurrences: apart for digits to the fifth, for letters to the second
LONGEST = 64  # characters of a text that take part in Jaro's comparison


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call and keep the machine code on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # a file system that is only read
        return njit(nogil=True)(function)


@dataclass(frozen=True, slots=True)
class Sets:
    """Several values of a record: codes[starts[r]:starts[r + 1]]."""

    codes: np.ndarray
    starts: np.ndarray


@compiled
def meet(one: np.ndarray, starts: np.ndarray, a: int, other: np.ndarray, other_starts: np.ndarray, b: int) -> bool:
    """Say whether row a of one list of sets has a value of row b of the other."""
    for i in range(starts[a], starts[a + 1]):
        for j in range(other_starts[b], other_starts[b + 1]):
            if one[i] == other[j]:
                return True
    return False


@compiled
def count_bits(word: np.uint64) -> np.int64:
    """Return how many bits are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def masks_of(chars: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the character mask of each text."""
    masks = np.zeros(offsets.size - 1, np.uint64)
    seen = np.zeros(64, np.int64)
    for at in range(masks.size):
        for place in range(offsets[at], offsets[at + 1]):
            number = chars[place] & 63
            masks[at] |= np.uint64(1) << np.uint64((number + _STRIDE * seen[number]) & 63)
            seen[number] += 1
        for place in range(offsets[at], offsets[at + 1]):
            seen[chars[place] & 63] = 0
    return masks


@compiled
def lacks(mask: np.uint64, other: np.uint64) -> np.int64:
    """Return how many characters of a text at least the other one lacks, from their masks."""
    return count_bits(mask & ~other)


@compiled
def _within_none(chars: np.ndarray, a: int, a_end: int, b: int, b_end: int) -> bool:
    if a_end - a != b_end - b:
        return False
    for step in range(a_end - a):  # noqa: SIM110 - compiled: no generators
        if chars[a + step] != chars[b + step]:
            return False
    return True


@compiled
def within_one(chars: np.ndarray, a: int, a_end: int, b: int, b_end: int) -> bool:
    """Say whether at most one edit (replace, drop, add, swap of neighbours) parts two slices."""
    if abs((a_end - a) - (b_end - b)) > 1:
        return False
    while a < a_end and b < b_end and chars[a] == chars[b]:
        a += 1
        b += 1
    if a == a_end or b == b_end:
        return (a_end - a) + (b_end - b) <= 1
    if _within_none(chars, a + 1, a_end, b + 1, b_end):
        return True
    if _within_none(chars, a + 1, a_end, b, b_end) or _within_none(chars, a, a_end, b + 1, b_end):
        return True
    return (
        a_end - a > 1
        and b_end - b > 1
        and chars[a] == chars[b + 1]
        and chars[a + 1] == chars[b]
        and _within_none(chars, a + 2, a_end, b + 2, b_end)
    )


@compiled
def within_two(chars: np.ndarray, a: int, a_end: int, b: int, b_end: int) -> bool:
    """Say whether at most two edits part two slices: one of the four at the first difference, then at most one."""
    if abs((a_end - a) - (b_end - b)) > 2:
        return False
    while a < a_end and b < b_end and chars[a] == chars[b]:
        a += 1
        b += 1
    if a == a_end or b == b_end:
        return (a_end - a) + (b_end - b) <= 2
    if within_one(chars, a + 1, a_end, b + 1, b_end):
        return True
    if within_one(chars, a + 1, a_end, b, b_end) or within_one(chars, a, a_end, b + 1, b_end):
        return True
    return (
        a_end - a > 1
        and b_end - b > 1
        and chars[a] == chars[b + 1]
        and chars[a + 1] == chars[b]
        and within_one(chars, a + 2, a_end, b + 2, b_end)
    )


@compiled
def jaro_winkler(chars: np.ndarray, a: int, a_end: int, b: int, b_end: int) -> float:
    """Return Winkler's similarity, 1 for equal texts: Jaro's, raised by up to four equal first characters."""
    a_size, b_size = min(a_end - a, LONGEST), min(b_end - b, LONGEST)
    if a_size == 0 or b_size == 0:
        return 0.0
    reach = max(max(a_size, b_size) // 2 - 1, 0)
    one, a_seen, b_seen, found = np.uint64(1), np.uint64(0), np.uint64(0), 0
    for i in range(a_size):
        for j in range(max(i - reach, 0), min(i + reach + 1, b_size)):
            if chars[b + j] == chars[a + i] and (b_seen >> np.uint64(j)) & one == 0:
                b_seen |= one << np.uint64(j)
                a_seen |= one << np.uint64(i)
                found += 1
                break
    if found == 0:
        return 0.0
    out_of_order, j = 0, 0
    for i in range(a_size):
        if (a_seen >> np.uint64(i)) & one:
            while (b_seen >> np.uint64(j)) & one == 0:
                j += 1
            out_of_order += chars[a + i] != chars[b + j]
            j += 1
    score = (found / a_size + found / b_size + (found - out_of_order // 2) / found) / 3
    prefix = 0
    while prefix < min(4, a_size, b_size) and chars[a + prefix] == chars[b + prefix]:
        prefix += 1
    return score + prefix * 0.1 * (1 - score) if score > 0.7 else score


@compiled
def jaro_winkler_bound(a_size: int, b_size: int, a_mask: np.uint64, b_mask: np.uint64) -> float:
    """Return a value that jaro_winkler of two texts with these masks cannot exceed."""
    if a_size > LONGEST or b_size > LONGEST:
        return 1.0
    most = min(a_size - lacks(a_mask, b_mask), b_size - lacks(b_mask, a_mask))
    score = (most / a_size + most / b_size + 1) / 3
    return score + 0.4 * (1 - score) if score > 0.7 else score


@compiled
def unite(left: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """Return for each of `count` records the first record it is connected to by edges."""
    parents = np.arange(count, dtype=np.int32)
    for at in range(left.size):
        a, b = left[at], right[at]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        if a < b:
            parents[b] = a
        else:
            parents[a] = b
    for at in range(count):
        root = at
        while parents[root] != root:
            root = parents[root]
        parents[at] = root
    return parents
