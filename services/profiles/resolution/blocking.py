"""Which pairs of records are compared: those that share a key, each pair once, in parts of bounded size."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from services.profiles.resolution.kernels import compiled

PART_PAIRS = 65_536  # compared at once by one core: what it needs stays in the core's cache


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What records of a key that more than `beyond` have must agree in besides: one column of several.

    `values` has a row for each record, 0 where unknown; `columns[r]` are those that count for rule r, none leaves its
    keys as wide as they are.
    """

    beyond: int
    values: np.ndarray
    columns: Sequence[np.ndarray]


NOT_NARROWED = Narrowing(0, np.zeros((0, 0), np.uint16), ())


@dataclass(frozen=True, slots=True)
class Part:
    """Some keys of one rule: places from `begin` to `end` in its runs, and how many pairs share them at most."""

    rule: int
    begin: int
    end: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all records under all rules, as hashes.

    `table` has a row for each record and a column for each slot, 0 where it has no key; rule r has the slots
    slots[r] to slots[r + 1], more than one if a record may have several keys. `orders[r]` has the rule's keys (as
    slot * records + record) so that equal ones are neighbours; runs[r] begin and end of those that two or more share.
    """

    table: np.ndarray
    slots: np.ndarray
    orders: Sequence[np.ndarray]
    runs: Sequence[np.ndarray]
    narrowing: Narrowing = NOT_NARROWED

    def pairs(self) -> int:
        """Return how many pairs share keys, counted once for each key."""
        return sum(int(_pairs_before(runs)[-1]) for runs in self.runs if runs.size)

    def parts(self, size: int = 0) -> Iterator[Part]:
        """Yield parts of about `size` pairs, PART_PAIRS if none is given."""
        for rule, runs in enumerate(self.runs):
            totals = _pairs_before(runs)
            begin, done = 0, 0
            while begin < totals.size:
                end = max(begin + 1, int(np.searchsorted(totals, done + (size or PART_PAIRS), "right")))
                yield Part(rule, 2 * begin, 2 * end, int(totals[end - 1]) - done)
                begin, done = end, int(totals[end - 1])

    def pairs_of(self, part: Part, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of a part; with `sides` (one for each record, or empty) only pairs across them."""
        own = self.narrowing
        columns = own.columns[part.rule] if own.columns else np.zeros(0, np.int64)
        left, right = np.empty(part.pairs, np.int32), np.empty(part.pairs, np.int32)
        runs = self.runs[part.rule][part.begin : part.end]
        count = _emit(
            self.table, self.slots, part.rule, self.orders[part.rule], runs, sides, own.beyond,
            own.values, columns, left, right
        )  # fmt: skip
        return left[:count], right[:count]


def narrowed(keys: Keys, rules: Sequence[Sequence[str]], codes: Mapping[str, np.ndarray], beyond: int) -> Keys:
    """Return keys whose pairs must agree in one more column where more than `beyond` records have the same.

    `rules` are the names of the keys' columns, one slot each, `codes` the columns that count. A pair that a later rule
    brings together passes: where it has no column of its own to tell, the earlier rule's keys stay as they are.
    """
    names = list(codes)
    values = np.zeros((keys.table.shape[0], len(names)), np.uint16)
    for at, column in enumerate(codes.values()):
        values[:, at] = np.where(column < 0, 0, (column & 0x7FFF) + 1)  # a slip in 32,768 lets a pair through
    columns = []
    for at, rule in enumerate(rules):
        others = [place for place, name in enumerate(names) if name not in rule]
        is_told = all(set(later) & set(codes) - set(rule) for later in rules[at + 1 :])
        columns.append(np.array(others if is_told else [], np.int64))
    return replace(keys, narrowing=Narrowing(beyond, values, columns))


def workers() -> ThreadPoolExecutor:
    """Return a pool with a thread for each core; the compiled parts hold no lock."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def _pairs_before(runs: np.ndarray) -> np.ndarray:
    sizes = runs[1::2] - runs[::2]
    return np.cumsum(sizes * (sizes - 1) // 2)


def keys_of(rules: Sequence[Sequence[Sequence[np.ndarray]]], most: int) -> Keys:
    """Return keys under rules; a rule is one or more slots, a slot the columns of codes that must be equal.

    A record without a value in one of the columns has no key there; a key that more than `most` records have is void.
    """
    slots = np.concatenate([[0], np.cumsum([len(rule) for rule in rules])])
    table = np.empty((rules[0][0][0].size, slots[-1]), np.uint64)

    def make(rule: int) -> tuple[np.ndarray, np.ndarray]:
        section = np.full((len(rules[rule]), table.shape[0]), 2 * rule + 1, np.uint64)
        for slot, columns in zip(section, rules[rule], strict=True):
            for codes in columns:
                _mix(slot, codes)
        for one, other in combinations(section, 2):  # the same key twice is one key
            other[other == one] = 0
        keys = section.reshape(-1)
        order = np.empty(np.count_nonzero(keys), np.int32 if keys.size < 2**31 else np.int64)
        runs = _shared_runs(keys, _sort(keys, max(1, int(keys.size).bit_length() - _FINE), order), order, most)
        table[:, slots[rule] : slots[rule + 1]] = section.T
        return order, runs

    with workers() as pool:
        made = list(pool.map(make, range(len(rules))))
    return Keys(table, slots, [order for order, _ in made], [runs for _, runs in made])


@compiled
def _mix(hashes: np.ndarray, codes: np.ndarray) -> None:
    """Mix a column's codes into hashes; a record without a value has no key."""
    for at in range(hashes.size):
        if codes[at] < 0:
            hashes[at] = 0
        elif hashes[at]:
            found = (hashes[at] ^ np.uint64(codes[at] + 1)) * np.uint64(0x9E3779B97F4A7C15)
            found = (found ^ (found >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            hashes[at] = (found ^ (found >> np.uint64(29))) | np.uint64(1)


_FINE = 12  # bits that tell keys of one part from each other; a part of some thousand keys stays in the core's cache


@compiled
def _sort(keys: np.ndarray, bits: int, order: np.ndarray) -> np.ndarray:
    """Write the positions of all keys in the keys' order, and return the keys so: in parts by their first bits."""
    shift, count = np.uint64(64 - bits), order.size
    ends = np.zeros((1 << bits) + 1, np.int64)
    for at in range(keys.size):
        if keys[at]:
            ends[(keys[at] >> shift) + np.uint64(1)] += 1
    for part in range(1, ends.size):
        ends[part] += ends[part - 1]
    moved, places, ordered = np.empty(count, np.uint64), np.empty_like(order), np.empty(count, np.uint64)
    for at in range(keys.size):
        if keys[at]:
            part = keys[at] >> shift
            moved[ends[part]], places[ends[part]] = keys[at], at
            ends[part] += 1
    begin = 0
    for part in range(ends.size - 1):
        end = ends[part]
        _sort_part(moved[begin:end], places[begin:end], bits, ordered[begin:end], order[begin:end])
        begin = end
    return ordered


@compiled
def _sort_part(keys: np.ndarray, places: np.ndarray, bits: int, ordered: np.ndarray, order: np.ndarray) -> None:
    """Write keys and places in the keys' order: counted into buckets by the bits after the first ones."""
    first, shift = np.uint64(bits), np.uint64(64 - _FINE)
    ends = np.zeros((1 << _FINE) + 1, np.int64)
    for at in range(keys.size):
        ends[((keys[at] << first) >> shift) + np.uint64(1)] += 1
    for bucket in range(1, ends.size):
        ends[bucket] += ends[bucket - 1]
    for at in range(keys.size):
        bucket = (keys[at] << first) >> shift
        ordered[ends[bucket]], order[ends[bucket]] = keys[at], places[at]
        ends[bucket] += 1
    begin = 0
    for bucket in range(ends.size - 1):
        end = ends[bucket]
        if end - begin > 24:
            found = np.argsort(ordered[begin:end], kind="mergesort")
            ordered[begin:end], order[begin:end] = ordered[begin:end][found], order[begin:end][found]
        else:
            for at in range(begin + 1, end):
                key, moved, place = ordered[at], order[at], at
                while place > begin and ordered[place - 1] > key:
                    ordered[place], order[place] = ordered[place - 1], order[place - 1]
                    place -= 1
                ordered[place], order[place] = key, moved
        begin = end


@compiled
def _shared_runs(keys: np.ndarray, ordered: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """Return begin and end of each run of two or more equal keys; void keys are taken away."""
    runs = np.empty(order.size + 2, np.int64)
    count, begin = 0, 0
    while begin < order.size:
        end = begin + 1
        while end < order.size and ordered[end] == ordered[begin]:
            end += 1
        if end - begin > most:
            for at in range(begin, end):
                keys[order[at]] = 0
        elif end - begin > 1:
            runs[count], runs[count + 1] = begin, end
            count += 2
        begin = end
    return runs[:count].copy()


@compiled
def _emit(
    table: np.ndarray,
    slots: np.ndarray,
    rule: int,
    order: np.ndarray,
    runs: np.ndarray,
    sides: np.ndarray,
    beyond: int,
    values: np.ndarray,
    columns: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
) -> int:
    records, count = table.shape[0], 0
    is_single = slots[rule + 1] - slots[rule] == 1
    for run in range(0, runs.size, 2):
        is_wide = columns.size > 0 and runs[run + 1] - runs[run] > beyond
        for one in range(runs[run], runs[run + 1]):
            a = order[one] if is_single else order[one] % records
            for other in range(one + 1, runs[run + 1]):
                b = order[other] if is_single else order[other] % records
                if a == b or (sides.size and sides[a] == sides[b]):
                    continue
                if is_wide and not _agree(values, columns, a, b):
                    continue
                key = np.uint64(0) if is_single else table[a, slots[rule] + order[one] // records]
                if _met_before(table, slots, rule, a, b, key):
                    continue
                left[count], right[count] = min(a, b), max(a, b)
                count += 1
    return count


@compiled
def _agree(values: np.ndarray, columns: np.ndarray, a: int, b: int) -> bool:
    for at in columns:  # noqa: SIM110 - compiled: no generators
        if values[a, at] and values[a, at] == values[b, at]:
            return True
    return False


@compiled
def _met_before(table: np.ndarray, slots: np.ndarray, rule: int, a: int, b: int, key: np.uint64) -> bool:
    """Say whether two records share a key of an earlier rule, or a smaller one than `key` of this rule."""
    for earlier in range(rule + (key > 0)):
        for slot in range(slots[earlier], slots[earlier + 1]):
            found = table[a, slot]
            if not found or (earlier == rule and found >= key):
                continue
            for other in range(slots[earlier], slots[earlier + 1]):
                if found == table[b, other]:
                    return True
    return False
