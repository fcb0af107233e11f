"""Read texts as the numbers or dates that they are."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

NUMBER, DATE = "number", "date"
_Value: TypeAlias = "Decimal | date | str"


def read(text: str, kind: str) -> Decimal | date | None:
    """Return a text as a finite number or as a day, YYYY-MM-DD; None when it is none."""
    try:
        if kind == DATE:
            return date.fromisoformat(text)
        found = Decimal(text)
    except (ValueError, InvalidOperation):
        return None
    return found if found.is_finite() else None


def alike(one: str, two: str) -> tuple[_Value, _Value]:
    """Return two texts as what both are: dates, numbers, or texts."""
    for kind in (DATE, NUMBER):
        first, second = read(one, kind), read(two, kind)
        if first is not None and second is not None:
            return first, second
    return one, two
