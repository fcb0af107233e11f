"""A thread of access: signs checkpoints, watches the trail, reminds, has roles confirmed, removes old blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from services.access.chain import Chain
from services.access.recertifying import Recertifier
from services.access.reminding import Reminder
from services.access.sentinel import Sentinel
from services.chassis.repeating import Repeating

EVERY = timedelta(hours=1)
PRUNED_EVERY = timedelta(days=1)
LOOK_SECONDS = 30.0
YEAR = timedelta(days=366)
_log = logging.getLogger("kehu.audit")


class Keeper(Repeating):
    """Keeps the chain; several processes may: a checkpoint's number is taken once."""

    def __init__(
        self,
        chain: Chain,
        years: float,
        sentinel: Sentinel | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        reminder: Reminder | None = None,
        recertifier: Recertifier | None = None,
    ) -> None:
        super().__init__("audit-keeper", LOOK_SECONDS, patience=10)
        self._reminder, self._recertifier = reminder, recertifier
        self._chain, self._kept, self._sentinel, self._now = chain, YEAR * years, sentinel, now
        self._pruned: datetime | None = None

    def turn(self) -> float:
        """Do what is due."""
        self.look()
        return LOOK_SECONDS

    def look(self) -> None:
        """Do what is due."""
        now = self._now()
        last = self._chain.checkpoints.last()
        if last is None or datetime.fromisoformat(last.time) + EVERY <= now:
            made = self._chain.checkpoint(now)
            if made is not None:  # the log is one more place outside the database
                fields = {
                    "number": made.number,
                    "sequence": made.sequence,
                    "head": made.head,
                    "signature": made.signature,
                }
                _log.info("audit checkpoint", extra=fields)
        if self._sentinel is not None:
            raised = self._sentinel.look(now)
            if raised:
                _log.warning("audit alerts", extra={"alerts": raised})
        if self._reminder is not None:
            self._reminder.look(now)
        if self._recertifier is not None:
            self._recertifier.look(now)
        if self._pruned is None or self._pruned + PRUNED_EVERY <= now:
            self._pruned = now
            removed = self._chain.prune(now - self._kept, now)
            if removed:
                _log.info("audit blocks removed", extra={"blocks": removed})
