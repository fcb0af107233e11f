"""How stewards answer whether two profiles are one person: what comes first, when a second person must agree."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from math import sqrt
from zlib import crc32

from services.profiles.domain.match import CONFLICTS

CLAIMED_FOR = timedelta(minutes=15)
MANY_RECORDS = 10
CHECKED_ONE_IN = 500  # automatic merges of which one is put before a steward
MERGE_BAND, REVIEW_BAND = "merge", "review"
_SURE = 1.96  # standard deviations of a 95 % interval
_RECORDS_COUNTED, _OF_A_TIER, _OF_A_RECORD, _OF_PROBABILITY = 39, 500, 10, 100


def priority_of(records: int, has_tier: bool, probability: float) -> int:
    """Return how much hangs on a pair, 0 to 990: a customer of a tier, then records of both, then probability."""
    of_records = _OF_A_RECORD * min(records, _RECORDS_COUNTED)
    return _OF_A_TIER * has_tier + of_records + round(_OF_PROBABILITY * probability)


def needs_second_person(records: int, has_tier: bool, vetoes: Collection[str]) -> bool:
    """Say whether a verdict needs two persons: a customer of a tier, many records, or facts that speak against it."""
    return has_tier or records >= MANY_RECORDS or not CONFLICTS.isdisjoint(vetoes)


def is_sampled(keyed_hash: str) -> bool:
    """Say whether an automatic merge is put before a steward, by the record's keyed hash: a repeat says the same."""
    return crc32(keyed_hash.encode()) % CHECKED_ONE_IN == 0


@dataclass(frozen=True, slots=True)
class BandFigures:
    """The verdicts on one band: how many said one person, that share, and its 95 % interval (Wilson)."""

    band: str
    low: float
    high: float
    answered: int
    same_person: int
    precision: float
    at_least: float
    at_most: float


def precision_by_band(verdicts: Iterable[tuple[str, float, bool]]) -> list[BandFigures]:
    """Return figures for the sampled automatic merges and each tenth of probability, from (band, probability, same).

    Bands without a verdict are left out: nothing is known of them.
    """
    counts: Counter[tuple[str, int]] = Counter()
    same: Counter[tuple[str, int]] = Counter()
    for band, probability, is_same in verdicts:
        key = (band, -1 if band == MERGE_BAND else min(int(probability * 10), 9))
        counts[key] += 1
        same[key] += is_same
    return [_figures(*key, counts[key], same[key]) for key in sorted(counts)]


def _figures(band: str, tenth: int, answered: int, same: int) -> BandFigures:
    share, z = same / answered, _SURE
    centre, spread = share + z * z / (2 * answered), z * sqrt((share * (1 - share) + z * z / (4 * answered)) / answered)
    scale = 1 + z * z / answered
    low, high = (0.0, 1.0) if tenth < 0 else (tenth / 10, (tenth + 1) / 10)
    return BandFigures(
        band, low, high, answered, same, share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    )
