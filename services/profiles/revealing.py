"""How many values somebody revealed today: counted before a value is opened, so no race gives one more."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.times import CHINA
from services.profiles.errors import RevealsUsedUp
from services.profiles.store import Store
from services.profiles.values import RevealCount

TRIES = 20


def count_reveal(store: Store, subject: str, now: datetime, limit: int) -> int:
    """Count one more of today's and return how many are left.

    Raises:
        RevealsUsedUp: `limit` were counted today already.
        Conflict: the same person reveals so much at once that counting was lost again and again.
    """
    key = f"{subject}/{now.astimezone(CHINA):%Y-%m-%d}"
    for _ in range(TRIES):
        known = store.reveals.get(key) or RevealCount(key)
        if known.count >= limit:
            raise RevealsUsedUp("you revealed as many values today as you may", metadata={"limit": str(limit)})
        more = replace(known, count=known.count + 1)
        try:
            store.reveals.replace(more) if known.version else store.reveals.insert(more)
        except (AlreadyExists, Conflict):
            continue
        return limit - more.count
    raise Conflict("too many values are being revealed at once; try again")
