"""Rows of words as sorted columns of numbers: made once where a policy is published, searched as they came.

A process that receives one does nothing for each rule: 100,000 rules are taken over in hundredths of a second, hold a
few bytes each and are freed at once. The digest of a table proves that it is the one that was made.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat, zip_longest
from typing import TypeAlias

import orjson

from services.chassis.errors import Invalid

Row = tuple[str, ...]
Span = tuple[int, int]  # of places in the sorted columns, the second excluded
Column: TypeAlias = "array[int]"
Pause = Callable[[], None]


def no_pause() -> None:
    """Do not pause."""


class Table:
    """Rows, a number for each word, 0 for a field that a row has not; never changed once made."""

    __slots__ = ("words", "ids", "columns", "positions", "order", "digest")

    def __init__(
        self,
        words: Iterable[str],
        columns: Sequence[Column],
        positions: Column,
        order: tuple[int, ...],
        pause: Pause = no_pause,
    ) -> None:
        """Take the columns of rows that are sorted by those in `order`, then by `positions`, their places as given.

        Raises:
            Invalid: the columns differ in length, or a number has no word.
        """
        self.words = tuple(map(sys.intern, words))
        self.ids = dict(zip(self.words, range(len(self.words)), strict=True))
        self.columns, self.positions, self.order = tuple(columns), positions, order
        if not self.words or self.words[0] or len(self.ids) != len(self.words):
            raise Invalid("the words of a table are damaged")
        for column in columns:
            pause()
            if len(column) != len(positions) or max(column, default=0) >= len(self.words):
                raise Invalid("the columns of a table are damaged")
        digest = hashlib.sha256(orjson.dumps((self.words, order, len(columns))))
        for column in (*columns, positions):
            pause()
            digest.update(as_bytes(column))
        self.digest = digest.hexdigest()

    @classmethod
    def of(cls, rows: Iterable[Row], width: int, kind: str = "p") -> Table:
        """Return the rows as they are given, in `width` columns or more; `kind` names them in errors.

        Raises:
            Invalid: a field is empty or no text.
        """
        given = list(rows)
        fields = list(zip_longest(*given, fillvalue=""))
        words = dict.fromkeys(chain(("",), *fields))
        absent = len(fields) * len(given) - sum(map(len, given))
        if sum(field.count("") for field in fields) != absent or not all(map(isinstance, words, repeat(str))):
            position = next(n for n, row in enumerate(given) if not all(isinstance(word, str) and word for word in row))
            raise Invalid(f"rule {kind}[{position}] has a field that is empty or no text")
        ids = dict(zip(words, range(len(words)), strict=True))
        columns = [array("I", map(ids.__getitem__, field)) for field in fields]
        columns += [array("I", bytes(4 * len(given))) for _ in range(width - len(fields))]
        return cls(words, columns, array("I", range(len(given))), ())

    def sorted_by(self, order: tuple[int, ...]) -> Table:
        """Return the same rows sorted by these columns."""
        if order == self.order:
            return self
        places = sorted(range(len(self)), key=self.positions.__getitem__)
        for column in reversed(order):
            places.sort(key=self.columns[column].__getitem__)
        columns = [array("I", map(column.__getitem__, places)) for column in (*self.columns, self.positions)]
        return Table(self.words, columns[:-1], columns[-1], order)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def whole(self) -> list[Span]:
        """All places."""
        return [(0, len(self.positions))]

    def row(self, place: int) -> Row:
        """Return the row at a place."""
        return tuple([self.words[column[place]] for column in self.columns if column[place]])

    def rows(self) -> list[Row]:
        """Return all rows in the order they were given."""
        return [self.row(place) for place in sorted(range(len(self)), key=self.positions.__getitem__)]

    def used(self, column: int) -> set[int]:
        """Return the numbers that stand in a column; none in one that there is not."""
        return set(self.columns[column]) if column < len(self.columns) else set()

    def narrowed(self, spans: Sequence[Span], column: int, words: Iterable[str]) -> list[Span]:
        """Return where in these spans, which the column sorts, it has one of the words."""
        values, ids, found = self.columns[column], self.ids, []
        for word in words:
            number = ids.get(word)
            if number is None:
                continue
            for low, high in spans:
                start = bisect_left(values, number, low, high)
                if start < high and values[start] == number:
                    found.append((start, bisect_right(values, number, start, high)))
        return found


def as_bytes(column: Column) -> bytes:
    """Return numbers as four bytes each, the least first."""
    if sys.byteorder == "little":
        return column.tobytes()
    turned = array("I", column)
    turned.byteswap()
    return turned.tobytes()


def from_bytes(raw: bytes) -> Column:
    """Return the numbers that `as_bytes` wrote.

    Raises:
        ValueError: the length is no multiple of four.
    """
    column = array("I")
    column.frombytes(raw)
    if sys.byteorder == "big":
        column.byteswap()
    return column
