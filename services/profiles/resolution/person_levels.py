"""The comparisons of domain/comparison.py in compiled code: the same levels, of many pairs at once.

Each distinct name and date is taken apart once; pairs are compared by the numbers of the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.profiles.domain.comparison import LEVELS
from services.profiles.resolution.columns import Texts
from services.profiles.resolution.kernels import Sets, compiled, meet, within_one


@dataclass(frozen=True, slots=True)
class Names:
    """Distinct names: a row of numbers each (see the places below)."""

    codes: np.ndarray
    full: Texts
    given: Texts
    parts: np.ndarray
    sounds: "Sounds"
    nicknames: "Nicknames"
    grams: "Sets"
    name: str = "name"
    levels: Sequence[str] = LEVELS["name"]

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        full, given, called, grams, said = self.full, self.given, self.nicknames, self.grams, self.sounds
        _write_names(
            self.codes, self.parts, full.chars, full.offsets, given.chars, given.offsets,
            (said.surnames.codes, said.surnames.starts, said.words.codes, said.words.starts),
            (said.whole.codes, said.whole.starts, said.near.codes, said.near.starts),
            (called.calls.codes, called.calls.starts, called.answers.codes, called.answers.starts, called.is_bare),
            (grams.codes, grams.starts), left, right, radix, patterns,
        )  # fmt: skip


_FULL, _STYLE, _COMPLETE, _SURNAME = range(4)


@dataclass(frozen=True, slots=True)
class Sounds:
    """How distinct names may be read, as domain.similarity.Sounds has it."""

    surnames: Sets
    words: Sets
    whole: Sets
    near: Sets


@dataclass(frozen=True, slots=True)
class Nicknames:
    """What distinct names call their bearers, what those may be called, and which lack the surname."""

    calls: Sets
    answers: Sets
    is_bare: np.ndarray


@dataclass(frozen=True, slots=True)
class Papers:
    """Resident IDs, other documents, and the kind of each of their codes."""

    codes: np.ndarray
    documents: Sets
    kinds: np.ndarray
    name: str = "resident_id"
    levels: Sequence[str] = LEVELS["resident_id"]

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        found = self.documents
        _write_papers(self.codes, found.codes, found.starts, self.kinds, left, right, radix, patterns)


@dataclass(frozen=True, slots=True)
class Identifiers:
    """Phones or e-mails; `implied` are values that another field gives away."""

    name: str
    values: Sets
    implied: Sets
    texts: Texts
    levels: Sequence[str] = LEVELS["phone"]

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        values, implied, texts = self.values, self.implied, self.texts
        _write_identifiers(
            values.codes, values.starts, implied.codes, implied.starts, texts.chars, texts.offsets,
            left, right, radix, patterns,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Births:
    """Birth dates: codes of distinct dates, their texts, the codes of year, month and day; years by record."""

    codes: np.ndarray
    texts: Texts
    parts: np.ndarray
    years: np.ndarray
    name: str = "birth_date"
    levels: Sequence[str] = LEVELS["birth_date"]

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        texts = self.texts
        _write_births(self.codes, self.parts, self.years, texts.chars, texts.offsets, left, right, radix, patterns)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Codes of province, city, district, detail, room, building, number, street by record; -1 is unknown."""

    parts: np.ndarray
    name: str = "address"
    levels: Sequence[str] = LEVELS["address"]

    def write(self, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
        """See Comparison."""
        _write_addresses(self.parts, left, right, radix, patterns)


@compiled
def _is_rotation(chars: np.ndarray, a: int, b: int, size: int, by: int) -> bool:
    """Say whether the text at b with `by` characters moved from its front to its end is the text at a."""
    for at in range(size):  # noqa: SIM110 - compiled: no generators
        if chars[a + at] != chars[b + (at + by) % size]:
            return False
    return True


@compiled
def _starts_with(chars: np.ndarray, a: int, a_end: int, b: int, b_end: int) -> bool:
    """Say whether one text begins with the other."""
    for at in range(min(a_end - a, b_end - b)):  # noqa: SIM110 - compiled: no generators
        if chars[a + at] != chars[b + at]:
            return False
    return True


_TwoSets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@compiled
def _is_initial(words: _TwoSets, shorter: int, longer: int) -> bool:
    surnames, starts, both, both_starts = words
    return meet(surnames, starts, shorter, both, both_starts, longer)


@compiled
def _name_level(
    parts: np.ndarray,
    a_name: int,
    b_name: int,
    full: np.ndarray,
    ends: tuple[int, int, int, int],
    given: np.ndarray,
    given_ends: tuple[int, int, int, int],
    words: _TwoSets,
    sounds: _TwoSets,
) -> int:
    one, other = parts[a_name], parts[b_name]
    a, a_end, b, b_end = ends
    if not (one[_COMPLETE] and other[_COMPLETE]):
        if one[_SURNAME] < 0 or other[_SURNAME] < 0:
            return 10
        if one[_SURNAME] == other[_SURNAME]:
            return 6
        if one[_COMPLETE] < other[_COMPLETE]:
            return 6 if _is_initial(words, a_name, b_name) else 10
        return 6 if _is_initial(words, b_name, a_name) else 10
    if one[_FULL] == other[_FULL]:
        return 1
    size, other_size = a_end - a, b_end - b
    if one[_STYLE] == other[_STYLE] and size == other_size and size > 1:
        for by in (1, 2, size - 1, size - 2):
            if 0 < by < size and _is_rotation(full, a, b, size, by):
                return 2
    whole, whole_starts, near, near_starts = sounds
    if meet(whole, whole_starts, a_name, whole, whole_starts, b_name):
        return 3
    if meet(near, near_starts, a_name, near, near_starts, b_name):
        return 4
    if min(size, other_size) > 2 and within_one(full, a, a_end, b, b_end):
        return 5
    if one[_SURNAME] != other[_SURNAME]:
        return 10
    c, c_end, d, d_end = given_ends
    return 5 if size != other_size and _starts_with(given, c, c_end, d, d_end) else 9


_Called = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_Grams = tuple[np.ndarray, np.ndarray]


@compiled
def _are_nicknames(called: _Called, a: int, b: int, same_surname: bool) -> bool:
    calls, call_starts, answers, answer_starts, is_bare = called
    if not (same_surname or is_bare[a] or is_bare[b]):
        return False
    return meet(calls, call_starts, a, answers, answer_starts, b) or meet(
        calls, call_starts, b, answers, answer_starts, a
    )


@compiled
def _is_alike(grams: _Grams, a: int, b: int) -> bool:
    codes, starts = grams
    i, j, dot = starts[a], starts[b], 0
    norms = np.zeros(2, np.int64)
    for side, row in enumerate((a, b)):
        at = starts[row]
        while at < starts[row + 1]:
            end = at
            while end < starts[row + 1] and codes[end] == codes[at]:
                end += 1
            norms[side] += (end - at) ** 2
            at = end
    while i < starts[a + 1] and j < starts[b + 1]:
        if codes[i] < codes[j]:
            i += 1
        elif codes[i] > codes[j]:
            j += 1
        else:
            code, one, other = codes[i], 0, 0
            while i < starts[a + 1] and codes[i] == code:
                i += 1
                one += 1
            while j < starts[b + 1] and codes[j] == code:
                j += 1
                other += 1
            dot += one * other
    return dot > 0 and 16 * dot * dot >= 9 * norms[0] * norms[1]


@compiled
def _write_names(
    codes: np.ndarray,
    parts: np.ndarray,
    full: np.ndarray,
    full_offsets: np.ndarray,
    given: np.ndarray,
    given_offsets: np.ndarray,
    words: _TwoSets,
    sounds: _TwoSets,
    called: _Called,
    grams: _Grams,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a >= 0 and b >= 0:
            ends = (full_offsets[a], full_offsets[a + 1], full_offsets[b], full_offsets[b + 1])
            givens = (given_offsets[a], given_offsets[a + 1], given_offsets[b], given_offsets[b + 1])
            level = _name_level(parts, a, b, full, ends, given, givens, words, sounds)
            if level > 8:
                same_surname = parts[a, _SURNAME] == parts[b, _SURNAME]
                if _are_nicknames(called, a, b, same_surname):
                    level = 7
                elif parts[a, _STYLE] == parts[b, _STYLE] and _is_alike(grams, a, b):
                    level = 8
            patterns[at] += radix * level


@compiled
def _write_identifiers(
    codes: np.ndarray,
    starts: np.ndarray,
    implied: np.ndarray,
    implied_starts: np.ndarray,
    chars: np.ndarray,
    offsets: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = left[at], right[at]
        if meet(codes, starts, a, implied, implied_starts, b) or meet(codes, starts, b, implied, implied_starts, a):
            patterns[at] += radix
        elif starts[a] == starts[a + 1] or starts[b] == starts[b + 1]:
            continue
        elif meet(codes, starts, a, codes, starts, b):
            patterns[at] += radix
        else:
            level = 3
            for i in range(starts[a], starts[a + 1]):
                for j in range(starts[b], starts[b + 1]):
                    x, y = codes[i], codes[j]
                    if within_one(chars, offsets[x], offsets[x + 1], offsets[y], offsets[y + 1]):
                        level = 2
            patterns[at] += level * radix


@compiled
def _write_births(
    codes: np.ndarray,
    parts: np.ndarray,
    years: np.ndarray,
    chars: np.ndarray,
    offsets: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = codes[left[at]], codes[right[at]]
        if a < 0 or b < 0:
            one, other = years[left[at]], years[right[at]]
            if one[0] and other[0] and (one[0] > other[1] + 1 or other[0] > one[1] + 1):
                patterns[at] += 5 * radix
            continue
        same_year = parts[a, 0] == parts[b, 0]
        if a == b:
            level = 1
        elif same_year and parts[a, 1] == parts[b, 2] and parts[a, 2] == parts[b, 1]:
            level = 2
        elif within_one(chars, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1]):
            level = 3
        else:
            level = 4 if same_year else 5
        patterns[at] += level * radix


@compiled
def _write_addresses(parts: np.ndarray, left: np.ndarray, right: np.ndarray, radix: int, patterns: np.ndarray) -> None:
    for at in range(left.size):
        a, b = parts[left[at]], parts[right[at]]
        if a[0] < 0 or b[0] < 0:
            continue
        if a[3] >= 0 and a[3] == b[3] and a[1] == b[1]:
            level = 1
        elif a[4] >= 0 and a[4] == b[4]:
            level = 2
        elif a[5] >= 0 and a[5] == b[5]:
            level = 3
        elif a[6] >= 0 and a[6] == b[6]:
            level = 4
        elif a[7] >= 0 and a[7] == b[7]:
            level = 5
        elif a[2] >= 0 and a[2] == b[2]:
            level = 6
        elif a[1] >= 0 and a[1] == b[1]:
            level = 8 if a[2] >= 0 and b[2] >= 0 else 7
        else:
            level = 9 if a[0] == b[0] else 10
        patterns[at] += level * radix


@compiled
def _write_papers(
    ids: np.ndarray,
    codes: np.ndarray,
    starts: np.ndarray,
    kinds: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    radix: int,
    patterns: np.ndarray,
) -> None:
    for at in range(left.size):
        a, b = left[at], right[at]
        if ids[a] >= 0 and ids[b] >= 0:
            patterns[at] += radix * (1 if ids[a] == ids[b] else 3)
            continue
        level = 0
        for i in range(starts[a], starts[a + 1]):
            for j in range(starts[b], starts[b + 1]):
                if codes[i] == codes[j]:
                    level = 2
                elif kinds[codes[i]] == kinds[codes[j]] and level != 2:
                    level = 3
        patterns[at] += radix * level
