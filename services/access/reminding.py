"""Tell holders of roles for a while that they end soon: a fact each, once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from services.access.domain.requests import needs_reminder
from services.access.store.requests import Requests
from services.chassis.errors import Conflict


class Reminder:
    """Looks at what is lent; several processes may, each reminder is told once."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def look(self, now: datetime) -> int:
        """Remind whom it is time to remind; return how many."""
        reminded = 0
        for request in self._requests.lent(now):
            if needs_reminder(request, now):
                with suppress(Conflict):  # another process was first, or it was given back
                    self._requests.save(replace(request, reminded=True))
                    reminded += 1
        return reminded
