"""Who is who after a split: an id stays with the records that it was given for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Parting:
    """Which records leave a profile and which former ids go with them, the oldest first: the first lives again.

    Without ids the records become a profile of a new id. `is_reversed`: the profile's own records were asked to leave,
    so the others do, and it keeps its id.
    """

    leaving: frozenset[str]
    ids: tuple[str, ...]
    is_reversed: bool = False


def part(held: Collection[str], asked: Collection[str], homes: Mapping[str, Collection[str]]) -> Parting:
    """Return how a profile that holds these records parts from those asked to leave.

    `homes` are its former ids, the oldest first, each with the records it had when it was merged. A former id goes
    with its own records, those that no other id had brought to it, when all that are left of them leave.
    """
    held, leaving = frozenset(held), frozenset(asked)
    own = {name: _own(name, homes) & held for name in homes}
    its_own = held.difference(*homes.values())
    is_reversed = bool(its_own) and its_own <= leaving and any(part and not part & leaving for part in own.values())
    if is_reversed:
        leaving = held - leaving
    going = tuple(name for name, records in own.items() if records and records <= leaving)
    return Parting(leaving, going, is_reversed)


def divided(joined: Mapping[str, datetime], leaving: Collection[str]) -> tuple[datetime | None, bool]:
    """Return since when records of both sides were under one id, None if never, and whether those that left were first.

    `joined` says when each record came to be under it.
    """
    went, stayed = ([at for key, at in joined.items() if (key in leaving) is leaves] for leaves in (True, False))
    if not (went and stayed):
        return None, bool(went)
    return max(min(went), min(stayed)), min(went) < min(stayed)


def _own(name: str, homes: Mapping[str, Collection[str]]) -> frozenset[str]:
    mine = frozenset(homes[name])
    return mine.difference(*(records for other, records in homes.items() if mine > frozenset(records)))
