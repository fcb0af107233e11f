"""Let single writes that arrive together share one batch: one set of look-ups and one bulk write for all of them.

While one batch is written the next callers gather; nobody waits for company. Each is told of its own records only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.profiles.folding import Incoming
from services.profiles.taking import Taken, Taker, Tally

GATHERED_RECORDS = 500  # a batch of one call is at most as large


@dataclass(slots=True)
class _Gathering:
    """Callers' records in the order they came, and what became of them."""

    records: list[Incoming] = field(default_factory=list)
    callers: int = 0
    taken: list[Taken] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)


class SharedTaker:
    """Takes records in as `Taker` does, for many threads."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self.merger = taker.merger
        self.dictionary = taker.dictionary
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._open: _Gathering | None = None

    def take(self, batch: Sequence[Incoming]) -> tuple[list[Taken], Tally]:
        """Take records in and return what became of each, in the same order, when all is durably written.

        Raises:
            ProfilesBusy: others kept changing the same profiles; what was written stays, a repeat goes on.
        """
        gathering, start, leads = self._join(batch)
        if leads:
            self._lead(gathering)
        gathering.done.wait()
        if gathering.error is not None:
            raise gathering.error
        own = gathering.taken[start : start + len(batch)]
        if gathering.callers == 1:
            return own, gathering.tally
        return own, gathering.tally.of({taken.profile_id for taken in own})

    def _join(self, batch: Sequence[Incoming]) -> tuple[_Gathering, int, bool]:
        with self._lock:
            found = self._open
            leads = found is None or len(found.records) + len(batch) > GATHERED_RECORDS
            if found is None or leads:
                found = self._open = _Gathering()
            start = len(found.records)
            found.records += batch
            found.callers += 1
            return found, start, leads

    def _lead(self, gathering: _Gathering) -> None:
        with self._turn:
            with self._lock:
                if self._open is gathering:
                    self._open = None
            try:
                gathering.taken, gathering.tally = self._taker.take(gathering.records)
            except Exception as error:
                gathering.error = error
            finally:
                gathering.done.set()
