"""Withhold cells that tell of few customers, and enough others that no sum or difference gives them back.

A line is the cells that differ in one dimension only: its sum is a cell of the query without that dimension, which
anybody may ask. So in each line with a withheld cell either all cells are withheld (the sum is then a small cell
itself, or tells of all), or at least two are, one of them with `least` customers or more: what can be computed
as the rest of the sum then never tells of fewer than `least`. (Complementary cell suppression; Hundepool et al.,
Statistical Disclosure Control, 2012, ch. 4.)

Periods are sums too: January to March less January to February is March. So cells are judged by month over the whole
history, whatever period is asked, and a period is answered where none of its months is withheld; the whole history
is the sum of a line and judged as such.

Figures follow from figures: refunds are what sales lack of average basket times baskets. So each of these is judged by
the customers of every part it is of, purchases and refunds, and withheld where one of the parts would be.

What this does not cover: combining tables of different dimensions two or more levels apart, and the difference that one
new customer makes between two days; noise would (C10).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LEAST_CUSTOMERS: Final = 5
Cell = tuple[str, ...]


def suppressed(customers: Mapping[Cell, int], least: int = LEAST_CUSTOMERS) -> frozenset[Cell]:
    """Return the cells to withhold, given each cell's number of different customers; all keys have equal length."""
    hidden = {cell for cell, count in customers.items() if count < least}
    lines = _lines(customers)
    changed = True
    while changed:
        changed = False
        for line in lines:
            extra = _unprotected(line, hidden, customers, least)
            if extra is not None:
                hidden.add(extra)
                changed = True
    return frozenset(hidden)


@dataclass(frozen=True, slots=True)
class Period:
    """The asked months, YYYY-MM; empty means unbounded."""

    first: str
    last: str

    def holds(self, month: str) -> bool:
        """Say whether a month is in it."""
        return self.first <= month and (not self.last or month <= self.last)


def withheld(
    customers: Mapping[Cell, int], by_month: Mapping[Cell, int], period: Period, month_at: int
) -> frozenset[Cell]:
    """Return which cells of an answer to withhold.

    `customers` has the answer's cells, with the month at position `month_at` (-1: not asked); `by_month` the same
    cells by month, month last, over the whole history.
    """
    if month_at >= 0:
        hidden = suppressed(by_month)
        return frozenset(
            cell for cell in customers if (*cell[:month_at], *cell[month_at + 1 :], cell[month_at]) in hidden
        )
    if all(period.holds(cell[-1]) for cell in by_month):
        return suppressed(customers)
    risky = {cell[:-1] for cell in suppressed(by_month) if period.holds(cell[-1])}
    return frozenset(cell for cell in customers if cell in risky)


def _lines(customers: Mapping[Cell, int]) -> list[list[Cell]]:
    lines: dict[tuple[int, Cell], list[Cell]] = defaultdict(list)
    for cell in sorted(customers):
        for dimension in range(len(cell)):
            lines[(dimension, cell[:dimension] + cell[dimension + 1 :])].append(cell)
    return list(lines.values())


def _unprotected(line: list[Cell], hidden: set[Cell], customers: Mapping[Cell, int], least: int) -> Cell | None:
    """Return the smallest shown cell that must go too, or None when the line protects its withheld cells."""
    gone = [cell for cell in line if cell in hidden]
    shown = [cell for cell in line if cell not in hidden]
    if not gone or not shown:
        return None
    if len(gone) >= 2 and any(customers[cell] >= least for cell in gone):
        return None
    return min(shown, key=lambda cell: (customers[cell], cell))
