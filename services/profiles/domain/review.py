"""How stewards answer whether two profiles are one person: what comes first, when a second person must agree."""

from collections.abc import Collection
from datetime import timedelta

from services.profiles.domain.match import CONFLICTS

CLAIMED_FOR = timedelta(minutes=15)
MANY_RECORDS = 10
_RECORDS_COUNTED, _OF_A_TIER, _OF_A_RECORD, _OF_PROBABILITY = 39, 500, 10, 100


def priority_of(records: int, has_tier: bool, probability: float) -> int:
    """Return how much hangs on a pair, 0 to 990: a customer of a tier, then records of both, then probability."""
    of_records = _OF_A_RECORD * min(records, _RECORDS_COUNTED)
    return _OF_A_TIER * has_tier + of_records + round(_OF_PROBABILITY * probability)


def needs_second_person(records: int, has_tier: bool, vetoes: Collection[str]) -> bool:
    """Say whether a verdict needs two persons: a customer of a tier, many records, or facts that speak against it."""
    return has_tier or records >= MANY_RECORDS or not CONFLICTS.isdisjoint(vetoes)
