"""Who saw what of a person: the entries of the trail under all the ids the person had, by who, why and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from services.access.domain.names import stays
from services.access.domain.trail import time_of
from services.access.searching import Found, Wanted, search
from services.access.store.names import Names
from services.access.store.ports import Blocks

ENTRIES_READ = 10_000  # per report: of somebody seen more often, ask for a shorter time
PAGES = 100
PAGE = 500


@dataclass(slots=True)
class Disclosure:
    """What one caller was told of a person by one method for one purpose, and how often."""

    subject: str
    department: str
    purpose: str
    method: str
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    shown: set[str] = field(default_factory=set)
    masked: set[str] = field(default_factory=set)
    profiles: set[str] = field(default_factory=set)
    example: str = ""

    def add(self, found: Found, profile_id: str) -> None:
        """Count an entry."""
        at = time_of(found.entry)
        self.count += 1
        self.first = min(self.first or at, at)
        if self.last is None or at >= self.last:
            self.last, self.example = at, f"auditEntries/{found.sequence}-{found.index}"
        self.shown.update(found.entry.shown)
        self.masked.update(found.entry.masked)
        self.profiles.add(profile_id)


@dataclass(frozen=True, slots=True)
class Report:
    """The disclosures, those of the most groups first; `is_whole` is false when the limit was reached."""

    disclosures: list[Disclosure]
    is_whole: bool


def report(blocks: Blocks, names: Names, profile_id: str, since: datetime, until: datetime) -> Report:
    """Return who was told what of the person behind an id, since a time and before another.

    An entry counts once, though it may name several of the person's ids; refused calls told nothing.
    """
    kinds: dict[tuple[str, ...], Disclosure] = {}
    counted: set[tuple[int, int]] = set()
    is_whole = True
    for stay in stays(profile_id, since, until, names.of, names.into):
        wanted = Wanted({"profile": stay.profile_id, "outcome": "allowed"}, stay.since, stay.until)
        for found in _entries(blocks, wanted):
            if found is None or len(counted) >= ENTRIES_READ:
                is_whole = False
                break
            entry, place = found.entry, (found.sequence, found.index)
            if place in counted or not (entry.shown or entry.masked):
                continue
            counted.add(place)
            key = (entry.subject, entry.department, entry.purpose, entry.method)
            kinds.setdefault(key, Disclosure(*key)).add(found, stay.profile_id)
    order = sorted(kinds.values(), key=lambda item: (-len(item.shown), -len(item.masked), item.subject, item.method))
    return Report(order, is_whole)


def _entries(blocks: Blocks, wanted: Wanted) -> Iterator[Found | None]:
    """Yield the entries of a person; None at last when there are more than a report reads."""
    start = None
    for _ in range(PAGES):
        page, start = search(blocks, wanted, start, PAGE)
        yield from page
        if start is None:
            return
    yield None
