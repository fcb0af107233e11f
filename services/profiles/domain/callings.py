"""Who is meant by 张先生 on a phone: the only person known there whom one may call so, of the sex that is said."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import combinations

from services.profiles.domain.comparison import Traits, level_of_names
from services.profiles.domain.values import PersonName

CALLED = ("initial", "nickname")  # levels of names of which one only calls the other's bearer
_ONE_PERSONS = ("exact", "swapped", "sound")  # 王建林 and 王建玲 may be brother and sister
Callings = frozenset[tuple[str, PersonName]]  # identifiers, each with an incomplete name that means one person there


def callings_among(records: Iterable[Traits], known_of: frozenset[str] | None = None) -> Callings:
    """Return what means one person on the identifiers (all if none are named) all of whose holders are given."""
    known = [record for record in records if record.name]
    called = {
        (identifier, record.name): record
        for record in known
        if record.name and not record.name.is_complete
        for identifier in (record.identifiers if known_of is None else record.identifiers & known_of)
    }
    asked = {identifier for identifier, _ in called}
    holders: defaultdict[str, dict[tuple[PersonName | None, str], Traits]] = defaultdict(dict)
    for record in known if asked else ():
        for identifier in record.identifiers & asked:
            holders[identifier][record.name, record.gender] = record
    return frozenset(both for both, record in called.items() if means_one(record, holders[both[0]].values()))


def means_one(called: Traits, holders: Collection[Traits]) -> bool:
    """Say whether one person alone of those whom a phone is known under may be called so, by names and genders.

    Two whole names that fit are two people unless each is said like each other, and a man and a woman who fit are two:
    father and son, or brother and sister, stay a question for a steward.
    """
    fitting = [holder for holder in holders if level_of_names(called, holder) in CALLED]
    whole = [holder for holder in fitting if _is_whole(holder)]
    if not whole or len({holder.gender for holder in fitting if holder.gender}) > 1:
        return False
    return all(level_of_names(one, other) in _ONE_PERSONS for one, other in combinations(whole, 2))


def is_meant(left: Traits, right: Traits, callings: Callings) -> bool:
    """Say whether one of two records calls the person of the other, who has a whole name, by a name that means nobody
    else on a phone of both.

    Two who are both called 张先生 may be father and son: what they are to whom has the whole name decides.
    """
    both = left.identifiers & right.identifiers
    return any(
        (identifier, called.name) in callings
        for called, whole in ((left, right), (right, left))
        if called.name and _is_whole(whole)
        for identifier in both
    )


def _is_whole(record: Traits) -> bool:
    return record.name is not None and record.name.is_complete
