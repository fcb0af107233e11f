"""Who has which role in a department, through roles in roles, at a moment: time-boxed links end by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from services.chassis.errors import Invalid

ROLE_DEPTH = 9  # steps of role in role: pycasbin 2.8's RoleManager(10) gives up at the tenth, silently
SLICE = 400  # items between two pauses of a build: half a millisecond of work

NOBODY: frozenset[str] = frozenset()

Row = tuple[str, ...]
Item = TypeVar("Item")
Pause = Callable[[], None]


def no_pause() -> None:
    """Do not pause."""


def in_slices(items: Iterable[Item], pause: Pause) -> Iterator[Item]:
    """Yield the items, pausing now and then, so that a build in a thread lets others run."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield from part
        pause()


@dataclass(frozen=True, slots=True)
class _Standing:
    """The names of a subject, and the time (seconds since 1970) during which they are these."""

    names: frozenset[str]
    heeded: frozenset[str]
    since: float
    until: float


class RoleClosure:
    """The names a subject answers to within a domain, itself included; kept for subjects with a role."""

    def __init__(self, links: Iterable[Row], width: int = 3, pause: Pause = no_pause) -> None:
        """Take rows of (member, role) or (member, role, domain), `width` columns, and perhaps start and end.

        Start and end are seconds since 1970 as text, "0" for open.

        Raises:
            Invalid: a time is no number.
        """
        self._direct: dict[tuple[str, str], list[str]] = {}
        self._timed: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
        for link in in_slices(links, pause):
            key = (link[0], link[2] if width > 2 else "")
            if len(link) == width:
                self._direct.setdefault(key, []).append(link[1])
            else:
                self._timed.setdefault(key, []).append((link[1], *_times(link[width:])))
        self._closed: dict[tuple[str, str], _Standing] = {}
        self._spoken_of: set[str] = set()
        self._alike: dict[frozenset[str], frozenset[str]] = {}  # one set for all who are treated alike

    def heed(self, names: Iterable[str]) -> None:
        """Take names that a rule or a row filter is about; all of them before the first question."""
        self._spoken_of.update(names)

    @property
    def parts(self) -> dict[tuple[str, str], list[str]]:
        """The links that neither begin nor end, for who takes this to pieces."""
        return self._direct

    @property
    def timed(self) -> bool:
        """Whether any link begins or ends."""
        return bool(self._timed)

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
        if known is None or (self._timed and not known.since <= now < known.until):
            if key not in self._direct and key not in self._timed:
                return None
            known = self._closed[key] = self._walk(subject, domain, now)
        return known

    def above(self, name: str, domain: str, now: float = math.nan) -> list[str]:
        """Return the roles that a name has directly now."""
        key = (name, domain)
        found = self._direct.get(key, [])
        if key in self._timed:
            found = found + [role for role, start, end in self._timed[key] if start <= now < end]
        return found

    def _walk(self, subject: str, domain: str, now: float) -> _Standing:
        reached, edge, since, until = {subject}, [subject], -math.inf, math.inf
        for _ in range(ROLE_DEPTH):
            for name in edge if self._timed else ():
                for _, *times in self._timed.get((name, domain), ()):
                    since = max([since, *(time for time in times if time <= now)])
                    until = min([until, *(time for time in times if time > now)])
            edge = [role for name in edge for role in self.above(name, domain, now) if role not in reached]
            reached.update(edge)
        heeded = frozenset(reached & self._spoken_of)
        heeded = self._alike.setdefault(heeded, heeded)
        return _Standing(frozenset(reached), heeded, math.nan if now != now else since, until)


def _times(columns: Row) -> tuple[float, float]:
    try:
        start, end = (float(text) for text in columns)
    except ValueError:
        raise Invalid("a role link has a start and an end in seconds since 1970, 0 for open") from None
    if not (0 <= start < math.inf and 0 <= end < math.inf):
        raise Invalid("a role link has a start and an end in seconds since 1970, 0 for open")
    return start, end or math.inf
