"""Which lifecycle stage a customer is in: ordered rules over what was bought and when; the first that holds applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Measure(StrEnum):
    """What a condition measures; days are whole, money in cents, scores 1 to 5."""

    RECENCY_DAYS = "recency_days"
    TENURE_DAYS = "tenure_days"
    BASKETS = "baskets"
    MONETARY_CENTS = "monetary_cents"
    RFM_RECENCY = "rfm_recency"
    RFM_FREQUENCY = "rfm_frequency"
    RFM_MONETARY = "rfm_monetary"
    REGISTERED_DAYS = "registered_days"
    TIER = "tier"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a customer; None is not known, as the days since a purchase that never was."""

    baskets: int = 0
    monetary_cents: int = 0
    recency_days: int | None = None
    tenure_days: int | None = None
    rfm_recency: int | None = None
    rfm_frequency: int | None = None
    rfm_monetary: int | None = None
    registered_days: int | None = None
    tier: str = ""

    def later(self, days: int) -> Figures:
        """Return the figures as they are so many days after they were measured, had nothing happened."""
        recency, tenure = (None if value is None else value + days for value in (self.recency_days, self.tenure_days))
        return replace(self, recency_days=recency, tenure_days=tenure)


def united(parts: Iterable[Figures]) -> Figures:
    """Return the figures of a customer who was measured under several ids: sums, first and last of all, best scores."""
    found = Figures()
    for part in parts:
        found = Figures(
            found.baskets + part.baskets,
            found.monetary_cents + part.monetary_cents,
            _known(min, found.recency_days, part.recency_days),
            _known(max, found.tenure_days, part.tenure_days),
            _known(max, found.rfm_recency, part.rfm_recency),
            _known(max, found.rfm_frequency, part.rfm_frequency),
            _known(max, found.rfm_monetary, part.rfm_monetary),
        )
    return found


def _known(choose: Callable[[Iterable[int]], int], one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return choose(known) if known else None


@dataclass(frozen=True, slots=True)
class Condition:
    """A measure within bounds, both included; or a tier among some."""

    measure: Measure
    at_least: int | None = None
    at_most: int | None = None
    tiers: frozenset[str] = frozenset()

    def holds(self, figures: Figures) -> bool:
        """Tell whether it holds; what is not known is within no bounds."""
        if self.measure is Measure.TIER:
            return figures.tier in self.tiers
        value = getattr(figures, self.measure)
        if value is None:
            return False
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True)
class StageRule:
    """A stage, and the conditions that all hold for who is in it."""

    stage: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One revision of the rules, in their order."""

    revision: int
    rules: tuple[StageRule, ...]
    default: str

    def stage_of(self, figures: Figures) -> str:
        """Return the one stage of a customer."""
        for rule in self.rules:
            if all(condition.holds(figures) for condition in rule.conditions):
                return rule.stage
        return self.default
