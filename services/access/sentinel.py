"""Watch the trail: every ten minutes of it is looked at once by the rules, after its entries have arrived."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from services.access.domain.anomalies import WINDOW, Seen, alerts, has_shown
from services.access.searching import Found, Wanted, search
from services.access.store.alerts import Alerts
from services.access.store.ports import Blocks

LAG = timedelta(minutes=2)  # spools ship every second; what comes later than this is not watched
WINDOWS_AT_ONCE = 6
READ_AT_ONCE = 5_000  # entries: a busy ten minutes have a million
PAGE = 100


class Sentinel:
    """Looks at each window once; several processes may, an alert is the same from each."""

    def __init__(self, blocks: Blocks, store: Alerts) -> None:
        self._blocks, self._store = blocks, store

    def look(self, now: datetime) -> int:
        """Look at the windows that are over; return how many alerts were new."""
        cursor, raised = self._store.cursor(), 0
        if cursor is None:
            self._store.advance(None, _floor(now))
            return 0
        rules = self._store.rules()
        for _ in range(WINDOWS_AT_ONCE):
            following = cursor + WINDOW
            if following + LAG > now:
                break
            found = alerts(rules, self._window(cursor, following), cursor, self)
            raised += sum(self._store.add(alert) for alert in found)
            self._store.advance(cursor, following)
            cursor = following
        return raised

    def _window(self, since: datetime, until: datetime) -> Iterator[Seen]:
        start = None
        while True:
            page, start = search(self._blocks, Wanted({}, since, until), start, READ_AT_ONCE)
            yield from map(_seen, page)
            if start is None:
                return

    def used(self, subject: str, name: str, value: str, since: datetime, until: datetime) -> bool:
        """Tell whether a subject has an entry in a period, with a value when `name` is given."""
        values = {"subject": subject, **({name: value} if name else {})}
        start = None
        while True:
            found, start = search(self._blocks, Wanted(values, since, until), start, 1)
            if found or start is None:
                return bool(found)

    def shown_to(self, subject: str, since: datetime, until: datetime, most: int) -> list[Seen]:
        """Return the entries of a period that showed a subject something, at most so many."""
        shown: list[Seen] = []
        start = None
        while len(shown) < most:
            page, start = search(self._blocks, Wanted({"subject": subject}, since, until), start, PAGE)
            shown += [_seen(found) for found in page if has_shown(found.entry)]
            if start is None:
                break
        return sorted(shown[:most], key=lambda seen: seen.entry.time)


def _seen(found: Found) -> Seen:
    return Seen(f"auditEntries/{found.sequence}-{found.index}", found.entry)


def _floor(now: datetime) -> datetime:
    seconds = int(now.timestamp()) // int(WINDOW.total_seconds()) * int(WINDOW.total_seconds())
    return datetime.fromtimestamp(seconds, UTC)
