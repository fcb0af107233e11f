"""Who has which role in a department, through roles in roles, at a moment: time-boxed links end by themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.chassis.access.tables import Table
from services.chassis.errors import Invalid

ROLE_DEPTH = 9  # steps of role in role: pycasbin 2.8's RoleManager(10) gives up at the tenth, silently
LINK_WORDS = 5  # with start and end

NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Standing:
    """The names of a subject, and the time (seconds since 1970) during which they are these."""

    names: frozenset[str]
    heeded: frozenset[str]
    since: float
    until: float


class RoleClosure:
    """The names a subject answers to within a domain, itself included; kept for subjects with a role."""

    def __init__(self, links: Table, width: int = 3) -> None:
        """Take rows of (member, role) or (member, role, domain), `width` columns, and perhaps start and end.

        Start and end are seconds since 1970 as text, "0" for open. The table is sorted by `link_order`.

        Raises:
            Invalid: a time is no number.
        """
        self.links, self._width = links, width
        numbers = links.used(width) | links.used(width + 1)
        self._times = {number: _time(links.words[number]) for number in numbers - {0}}
        self._closed: dict[tuple[str, str], _Standing] = {}
        self._spoken_of: set[str] = set()
        self._alike: dict[frozenset[str], frozenset[str]] = {}  # one set for all who are treated alike

    def heed(self, names: Iterable[str]) -> None:
        """Take names that a rule or a row filter is about; all of them before the first question."""
        self._spoken_of.update(names)

    @property
    def timed(self) -> bool:
        """Whether any link begins or ends."""
        return bool(self._times)

    def names(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return the subject and every role it reaches now; unknown subjects cost no memory.

        Without a time, links that begin or end do not count.
        """
        known = self._standing(subject, domain, now)
        return known.names if known else frozenset((subject,))

    def heeded(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return those of the names that a rule or a row filter is about: by them alone a request is answered."""
        known = self._standing(subject, domain, now)
        if known:
            return known.heeded
        return frozenset((subject,)) if subject in self._spoken_of else NOBODY

    def _standing(self, subject: str, domain: str, now: float) -> _Standing | None:
        key = (subject, domain)
        known = self._closed.get(key)
        if known is None or (self._times and not known.since <= now < known.until):
            if subject not in self.links.ids or not self._of(subject, domain):
                return None
            known = self._closed[key] = self._walk(subject, domain, now)
        return known

    def above(self, name: str, domain: str, now: float = math.nan) -> list[str]:
        """Return the roles that a name has directly now."""
        return [role for role, start, end in self._of(name, domain) if start == -math.inf or start <= now < end]

    def _of(self, name: str, domain: str) -> list[tuple[str, float, float]]:
        """Return the roles that a name has directly at any time, and from when to when; always is from -inf."""
        spans = self.links.whole
        for column, word in zip(self.links.order, (name, domain), strict=False):
            spans = self.links.narrowed(spans, column, (word,))
        return [self._role(place) for low, high in spans for place in range(low, high)]

    def _role(self, place: int) -> tuple[str, float, float]:
        columns, role = self.links.columns, self.links.words[self.links.columns[1][place]]
        if not self._times or not columns[self._width][place]:
            return role, -math.inf, math.inf
        start, end = (self._times[columns[self._width + more][place]] for more in (0, 1))
        return role, start, end or math.inf

    def _walk(self, subject: str, domain: str, now: float) -> _Standing:
        reached, edge, since, until = {subject}, [subject], -math.inf, math.inf
        for _ in range(ROLE_DEPTH):
            for name in edge if self._times else ():
                for _, *times in self._of(name, domain):
                    since = max([since, *(time for time in times if time <= now)])
                    until = min([until, *(time for time in times if time > now)])
            edge = [role for name in edge for role in self.above(name, domain, now) if role not in reached]
            if not edge:
                break
            reached.update(edge)
        heeded = frozenset(reached & self._spoken_of)
        heeded = self._alike.setdefault(heeded, heeded)
        return _Standing(frozenset(reached), heeded, math.nan if now != now else since, until)


def link_order(width: int) -> tuple[int, ...]:
    """Return the columns that links of so many fields are sorted by: the member, and the domain if there is one."""
    return (0, 2) if width > 2 else (0,)


def _time(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise Invalid("a role link has a start and an end in seconds since 1970, 0 for open")
    return found
