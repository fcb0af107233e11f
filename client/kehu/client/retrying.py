"""When a call is sent again, and how often all calls together may be."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

from kehu.client.errors import NO_ANSWER

NOT_DONE = frozenset({429})
PERHAPS_DONE = frozenset({NO_ANSWER, 429, 502, 503, 504})
PAUSES = (0.1, 0.2, 0.5, 1.0)  # between two tries, or two looks at an operation; the last one for ever

SHARE = 0.2  # repeats, of calls
PER_SECOND = 2.0  # repeats that are always allowed: a client that sends little may go on trying
MOST = 100.0


class RetryBudget:
    """Lets all calls of a client together be repeated for a fifth of them, and twice a second besides.

    Against an outage that every client's repeats prolong; safe to use from several threads.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._left = 10.0
        self._at = now()

    def called(self) -> None:
        """Count a call."""
        with self._lock:
            self._left = min(MOST, self._left + SHARE)

    def take(self) -> bool:
        """Say whether one more repeat is allowed, and count it."""
        with self._lock:
            now = self._now()
            self._left = min(MOST, self._left + (now - self._at) * PER_SECOND)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def pauses() -> Iterator[float]:
    """Yield the seconds between tries, each up to a third shorter, so that clients do not come all at once."""
    for pause in chain(PAUSES, repeat(PAUSES[-1])):
        yield pause * random.uniform(0.67, 1.0)
