"""Which circumstances are over-represented among failing rows: a suspicion with counts, never a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FACTORS = ("batch", "settings", "source", "reason")  # the more telling one first, where two explain the same rows
CAUSES_LIMIT = 10
LEAST_FAILED, LEAST_SHARE, LEAST_LIFT = 3, 0.05, 1.2
Counts = Mapping[str, Mapping[str, tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Cause:
    """A circumstance: how many rows with it failed of how many were measured, and how that compares with all.

    `lift` is P(circumstance | failed) / P(circumstance | measured), 1 where it makes no difference; `excess` are the
    failed rows above what its share of the measured ones would explain.
    """

    factor: str
    value: str
    failed: int
    measured: int
    lift: float
    excess: float


def suspected(failed: int, measured: int, counts: Counts) -> list[Cause]:
    """Return what may have caused `failed` of `measured` rows, the largest excess first.

    `counts` holds (failed, measured) by factor and value. Left out: fewer than 3 failed rows, less than a twentieth of
    them, and a lift below 1.2.
    """
    if not failed:
        return []
    found = []
    for factor, values in counts.items():
        for value, (bad, seen) in values.items():
            lift = (bad / failed) / (seen / measured)
            if value and bad >= max(LEAST_FAILED, LEAST_SHARE * failed) and lift >= LEAST_LIFT:
                found.append(Cause(factor, value, bad, seen, lift, bad - failed * seen / measured))
    found.sort(key=lambda item: (-round(item.excess, 6), FACTORS.index(item.factor), item.value))
    return found[:CAUSES_LIMIT]
