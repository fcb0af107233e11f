"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

FIRST_DELAY = timedelta(seconds=5)
GROWTH = 4
LONGEST_DELAY = timedelta(hours=6)
GIVE_UP = timedelta(days=3)
LONGEST_REST = timedelta(minutes=5)  # of a whole subscription whose target fails
JITTER = 0.2
GONE = 410


def retry_at(now: datetime, attempts: int, asked: timedelta | None, chance: float) -> datetime:
    """Return when to try again after so many attempts: 5 s, 20 s, 80 s … 6 h, a fifth more or less.

    `asked` is what the target asked for by Retry-After, honoured up to 6 h; `chance` is from 0 to 1.
    """
    grown = min(FIRST_DELAY * GROWTH ** min(attempts - 1, 12), LONGEST_DELAY)
    wait = max(grown * (1 - JITTER + 2 * JITTER * chance), min(asked or timedelta(), LONGEST_DELAY))
    return now + wait


def rest(failures: int, chance: float) -> timedelta:
    """Return how long a subscription rests after so many failures in a row: 1 s, doubled, up to 5 minutes."""
    return min(timedelta(seconds=2 ** min(failures - 1, 10)), LONGEST_REST) * (1 - JITTER + 2 * JITTER * chance)


def is_given_up(now: datetime, since: datetime | None) -> bool:
    """Tell whether something failed for three days."""
    return since is not None and now - since >= GIVE_UP


def retry_after(value: str, now: datetime) -> timedelta | None:
    """Return what a Retry-After header asks for (RFC 9110 §10.2.3), None when it says nothing usable."""
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return timedelta(seconds=int(value))
    try:
        at = parsedate_to_datetime(value)
        return max((at if at.tzinfo else at.replace(tzinfo=UTC)) - now, timedelta())
    except (ValueError, TypeError, OverflowError):
        return None
