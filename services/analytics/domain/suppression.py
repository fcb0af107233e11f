"""Withhold cells that tell of few customers, and enough others that no sum gives them back.

A line is the cells that differ in one dimension only: its sum is a cell of the query without that dimension, which
anybody may ask. So in each line with a withheld cell either all cells are withheld (the sum is then a small cell
itself, or tells of all), or at least two are, one of them with `least` customers or more: what can be computed
as the rest of the sum then never tells of fewer than `least`. (Complementary cell suppression; Hundepool et al.,
Statistical Disclosure Control, 2012, ch. 4.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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
