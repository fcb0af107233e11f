"""Whom an id of a profile meant, and when: what merges and unmerges told, and under which ids somebody was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

STEPS = 64  # merges of merges that are followed


@dataclass(frozen=True, slots=True)
class Link:
    """From a time on an id meant another profile, itself if `into` is empty; of two links the higher version holds."""

    profile_id: str
    into: str
    version: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Stay:
    """An id under which a person was seen from a time until another, that end excluded."""

    profile_id: str
    since: datetime
    until: datetime


Links = Callable[[Iterable[str]], Sequence[Link]]


def stays(profile_id: str, since: datetime, until: datetime, of: Links, into: Links) -> list[Stay]:
    """Return under which ids the person behind an id was seen in a period.

    That is every id that means the person by now, at any time; and each profile that one of these ids was part of,
    for as long as it was. `of` returns all links of ids, `into` all links that lead to ids.
    """
    family = _family(profile_id, of, into)
    found = {Stay(name, since, until) for name in family}
    waiting = list(found)
    for _ in range(STEPS):
        parts = {part for stay in waiting for part in _within(stay, of([stay.profile_id]))}
        waiting = [part for part in parts if part not in found and part.profile_id not in family]
        found.update(waiting)
        if not waiting:
            break
    return sorted(found, key=lambda stay: (stay.profile_id, stay.since))


def _within(stay: Stay, links: Sequence[Link]) -> Iterable[Stay]:
    """Yield the profiles that an id was part of during a stay."""
    ordered = sorted(links, key=lambda link: link.version)
    for number, link in enumerate(ordered):
        since = max(stay.since, link.time)
        until = min(stay.until, *(following.time for following in ordered[number + 1 : number + 2]), stay.until)
        if link.into and since < until:
            yield Stay(link.into, since, until)


def _latest(links: Iterable[Link]) -> dict[str, str]:
    newest: dict[str, Link] = {}
    for link in links:
        if link.version > newest.get(link.profile_id, Link("", "", -2, link.time)).version:
            newest[link.profile_id] = link
    return {name: link.into for name, link in newest.items()}


def living(profile_id: str, of: Links) -> str:
    """Return the id that the person behind an id has now."""
    found, seen = profile_id, {profile_id}
    for _ in range(STEPS):
        following = _latest(of([found])).get(found, "")
        if not following or following in seen:
            break
        found = following
        seen.add(found)
    return found


def _family(profile_id: str, of: Links, into: Links) -> set[str]:
    now = living(profile_id, of)
    family, waiting = {now}, {now}
    for _ in range(STEPS):
        asked = {link.profile_id for link in into(waiting)} - family
        leading = _latest(of(asked)) if asked else {}
        waiting = {name for name, target in leading.items() if target in family}
        family |= waiting
        if not waiting:
            break
    return family
