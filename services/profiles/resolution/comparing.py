"""Compare pairs column by column: each comparison writes its level as one digit of the pair's pattern.

Digit 0 is a value that is missing on either side; the levels of a comparison follow from the best (1) to the last.
There are few patterns and many pairs: learning, scoring and the rules work on patterns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from services.profiles.resolution.columns import Column
from services.profiles.resolution.kernels import (
    compiled,
    jaro_winkler,
    jaro_winkler_bound,
    lacks,
    within_one,
    within_two,
)

TURNED = "turned"  # level of two columns that stand in each other's place
EQUAL_LEVELS = ("same", "other")
EDIT_LEVELS = ("same", "one", "two", "other")
DATE_LEVELS = ("same", "one", "year", "decade", "other")
ALIKE_LEVELS = ("same", "close", "alike", "loose", "other")
ALIKE_DEGREES = (0.92, 0.88, 0.7)  # least Jaro-Winkler similarity of close, alike and loose


_AT_ONCE = 4096  # pairs whose records stay in the core's cache from one comparison to the next


class Comparison(Protocol):
    """One digit of the pattern."""

    @property
    def name(self) -> str:
        """Return what is compared."""

    @property
    def levels(self) -> Sequence[str]:
        """Return the names of the levels, the best first."""

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """Add radix times each pair's level to the patterns."""


class Comparisons:
    """All comparisons of a model, in its order."""

    def __init__(self, parts: Sequence[Comparison]) -> None:
        self.parts = tuple(parts)
        self.sizes = np.array([len(part.levels) + 1 for part in parts], np.int32)
        self.radices = np.concatenate([[1], np.cumprod(self.sizes, dtype=np.int64)[:-1]])
        if float(np.prod(self.sizes.astype(float))) >= 2**31:
            raise ValueError("too many comparisons for one pattern")

    def compare(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the pattern of each pair."""
        found = np.zeros(left.size, np.int32)
        for begin in range(0, left.size, _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            for part, radix in zip(self.parts, self.radices, strict=True):
                part.write(left[some], right[some], int(radix), found[some])
        return found

    def digits(self, patterns: np.ndarray) -> np.ndarray:
        """Return the levels of each pattern as a row of digits."""
        return patterns[:, None] // self.radices % self.sizes


@dataclass(frozen=True, slots=True)
class Equal:
    """The same value or another."""

    name: str
    column: Column
    levels: Sequence[str] = EQUAL_LEVELS

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        _write_equal(self.column.codes, left, right, radix, patterns)


@dataclass(frozen=True, slots=True)
class Edits:
    """Numbers and dates: the same, one or two slips of the hand apart, or another."""

    name: str
    column: Column
    levels: Sequence[str] = EDIT_LEVELS

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        texts = self.column.texts
        _write_edits(self.column.codes, texts.chars, texts.offsets, texts.masks, left, right, radix, patterns)


@dataclass(frozen=True, slots=True)
class Dates:
    """Dates as YYYYMMDD: the same, one slip apart, of one year, ten years apart at most, or another."""

    name: str
    column: Column
    years: np.ndarray
    levels: Sequence[str] = DATE_LEVELS

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        texts = self.column.texts
        _write_dates(self.column.codes, texts.chars, texts.offsets, self.years, left, right, radix, patterns)


def dates_of(name: str, column: Column) -> Dates:
    """Return the comparison of a column of dates; a text that begins with no year has none in common with another."""
    texts = [str(value) for value in column.values or ()]
    years = [int(text[:4]) if text[:4].isdecimal() else -(10**6) - 100 * at for at, text in enumerate(texts)]
    return Dates(name, column, np.array(years, np.int64))


@dataclass(frozen=True, slots=True)
class Alike:
    """Words: the same, or alike by Jaro and Winkler to one of three degrees, or another."""

    name: str
    column: Column
    degrees: tuple[float, float, float] = ALIKE_DEGREES
    levels: Sequence[str] = ALIKE_LEVELS

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        texts = self.column.texts
        _write_alike(
            self.column.codes, texts.chars, texts.offsets, texts.masks, self.degrees, left, right, radix, patterns
        )


@dataclass(frozen=True, slots=True)
class Turnable:
    """Words of a column that is at times written in another's place, as given name and surname are.

    `others` are the other column's codes of each record, `turned` the code there of each text here, -1 if it has none.
    The comparison that leads has a level for two records whose columns are turned; the other one then says nothing.
    """

    words: Alike
    others: np.ndarray
    turned: np.ndarray
    leads: bool

    @property
    def name(self) -> str:
        """See Comparison."""
        return self.words.name

    @property
    def levels(self) -> Sequence[str]:
        """See Comparison."""
        return (*self.words.levels, TURNED) if self.leads else self.words.levels

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        self.words.write(left, right, radix, patterns)
        level = len(self.levels) if self.leads else 0
        codes, size = self.words.column.codes, len(self.levels) + 1
        _write_turned(codes, self.turned, self.others, left, right, level, size, radix, patterns)


@compiled
def _write_turned(
    codes: np.ndarray,
    turned: np.ndarray,
    others: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    level: int,
    size: int,
    radix: int,
    patterns: np.ndarray,
) -> None:
    """Give pairs whose two columns are turned the level instead of the one they have."""
    for at in range(left.size):
        i, j = left[at], right[at]
        a, b = codes[i], codes[j]
        if a < 0 or b < 0 or a == b or others[i] < 0 or others[j] < 0:
            continue
        if turned[a] == others[j] and turned[b] == others[i]:
            patterns[at] += (level - patterns[at] // radix % size) * radix


@compiled
def _write_equal(codes: np.ndarray, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
    """Write 1 for equal codes, 2 for others."""
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a >= 0 and b >= 0:
            patterns[at] += radix if a == b else 2 * radix


@compiled
def _write_edits(
    codes: np.ndarray,
    chars: np.ndarray,
    offsets: np.ndarray,
    masks: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    """Write the level; an edit takes away one character at most and brings one."""
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a < 0 or b < 0:
            continue
        level = 4
        if a == b:
            level = 1
        elif lacks(masks[a], masks[b]) > 2 or lacks(masks[b], masks[a]) > 2:
            pass
        elif within_two(chars, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1]):
            one = within_one(chars, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1])
            level = 2 if one else 3
        patterns[at] += level * radix


@compiled
def _write_dates(
    codes: np.ndarray,
    chars: np.ndarray,
    offsets: np.ndarray,
    years: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a < 0 or b < 0:
            continue
        apart = abs(years[a] - years[b])
        level = 5 if apart > 10 else 4 if apart > 0 else 3
        if a == b:
            level = 1
        elif within_one(chars, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1]):
            level = 2
        patterns[at] += level * radix


@compiled
def _write_alike(
    codes: np.ndarray,
    chars: np.ndarray,
    offsets: np.ndarray,
    masks: np.ndarray,
    degrees: tuple[float, float, float],
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a < 0 or b < 0:
            continue
        level = 5
        if a == b:
            level = 1
        else:
            a_size, b_size = offsets[a + 1] - offsets[a], offsets[b + 1] - offsets[b]
            if a_size and b_size and jaro_winkler_bound(a_size, b_size, masks[a], masks[b]) >= degrees[2]:
                found = jaro_winkler(chars, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1])
                for degree in degrees[::-1]:
                    level -= found >= degree
        patterns[at] += level * radix
