"""Which rows of a resource a caller reaches: what its rules grant, together; less what its rules deny.

A row filter narrows whatever is reached through its subject. A caller that holds several roles reaches the rows of
each: a filter of one role never narrows what another grants. A filter of the person itself narrows all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.chassis.access.roles import ROLE_DEPTH, RoleClosure
from services.chassis.access.shares import LENT_BY, SHARED
from services.chassis.access.values import Caller, Clause, Condition, Either, Except, RowFilter
from services.chassis.access.verdicts import Match

WAYS = 64  # to one role, each with other filters; more are left out, which shows less
DEPARTMENT_FIELDS = ("owner_department", "department")

Way = frozenset[int]
Lent = Callable[[], Sequence[tuple[Condition, ...]]]
UNFILTERED: Way = frozenset()


@dataclass(frozen=True, slots=True)
class Organization:
    """Departments with the one each belongs to, empty for none; teams with their members."""

    parents: Mapping[str, str] = field(default_factory=dict)
    teams: tuple[frozenset[str], ...] = ()

    def tree(self, department: str) -> tuple[str, ...]:
        """Return a department and all that belong to it, however deep; sorted."""
        found, edge = {department}, {department}
        while edge:
            edge = {name for name, parent in self.parents.items() if parent in edge} - found
            found |= edge
        return tuple(sorted(found))

    def mates(self, subject: str) -> tuple[str, ...]:
        """Return a subject and the members of its teams, sorted."""
        return tuple(sorted({subject}.union(*(team for team in self.teams if subject in team))))

    def bound(self, values: Iterable[str], caller: Caller) -> tuple[str, ...]:
        """Return the values with `$subject`, `$team`, `$department` and `$departmentTree` filled in."""
        found: list[str] = []
        for value in values:
            if value == "$subject":
                found.append(caller.subject)
            elif value == "$team":
                found += self.mates(caller.subject)
            elif value == "$department":
                found.append(caller.department)
            elif value == "$departmentTree":
                found += self.tree(caller.department)
            else:
                found.append(value)
        return tuple(dict.fromkeys(found))


NO_ORGANIZATION = Organization()


def clauses(
    caller: Caller,
    resource: str,
    matches: Sequence[Match],
    filters: Sequence[RowFilter],
    closure: RoleClosure,
    organization: Organization,
    now: float,
    lent: Lent = tuple,
) -> tuple[Clause, ...]:
    """Return what must hold of a row, all of it; nothing means that every row is in reach.

    `matches` are the rules that answer the request, `filters` the row filters of its resource and department. When no
    rule allows it, the rows are shown by another right, such as search: then all filters hold. `lent` returns what
    takes the place of a condition by `$shared`.
    """
    ways = _ways(caller, filters, closure, now)
    bound = [Condition(each.field, organization.bound(each.values, caller), each.resource) for each in filters]
    granted: list[tuple[Condition, ...]] = []
    denied: list[Clause] = []
    for match in matches:
        records = tuple(
            Condition(each.field, organization.bound(each.values, caller), resource) for each in match.records
        )
        if match.allows:
            for way in ways.get(match.row[0], ()):
                granted.append((*(bound[index] for index in sorted(way)), *records))
        else:
            denied += [_without(each, organization) for each in records]
    if not any(match.allows for match in matches):
        return (*(each for one in bound for each in _reached([(one,)], resource, lent)), *denied)
    return (*_reached(granted, resource, lent), *denied)


def _reached(granted: Sequence[tuple[Condition, ...]], resource: str, lent: Lent) -> tuple[Clause, ...]:
    """Return one clause for what is granted, with what is lent in the place of `$shared`."""
    if not any(_is_shared(each) for way in granted for each in way):
        return _either(granted, resource)
    ways = list(_with_lent(granted, lent()))
    return _either(ways, resource) if ways else (Condition(LENT_BY.get(resource, ""), (), resource),)


def _with_lent(
    granted: Sequence[tuple[Condition, ...]], lent: Sequence[tuple[Condition, ...]]
) -> Iterator[tuple[Condition, ...]]:
    for way in granted:
        others = tuple(each for each in way if not _is_shared(each))
        if len(others) == len(way):
            yield way
        else:
            yield from ((*borrowed, *others) for borrowed in lent)


def _is_shared(condition: Condition) -> bool:
    return SHARED in condition.values


def _without(condition: Condition, organization: Organization) -> Clause:
    """Return the opposite; of departments, which are all known, as the departments that remain."""
    if _is_shared(condition):  # which the policy's checks refuse
        return Condition(condition.field, (), condition.resource)
    if condition.field in DEPARTMENT_FIELDS and organization.parents:
        others = tuple(sorted(set(organization.parents) - set(condition.values)))
        return Condition(condition.field, others, condition.resource)
    return Except(condition.field, condition.values, condition.resource)


def _ways(caller: Caller, filters: Sequence[RowFilter], closure: RoleClosure, now: float) -> dict[str, set[Way]]:
    """Return for each name the caller answers to the sets of filters on the ways to it, the widest sets only."""
    own: dict[str, Way] = {}
    for index, each in enumerate(filters):
        own[each.subject] = own.get(each.subject, UNFILTERED) | {index}
    found: dict[str, set[Way]] = {caller.subject: {own.get(caller.subject, UNFILTERED)}}
    edge = {caller.subject}
    for _ in range(ROLE_DEPTH):
        fresh: set[str] = set()
        for name in edge:
            for role in closure.above(name, caller.department, now):
                through = {way | own.get(role, UNFILTERED) for way in found[name]}
                widest = _widest(found.get(role, set()) | through)
                if widest != found.get(role):
                    found[role] = widest
                    fresh.add(role)
        edge = fresh
    return found


def _widest(ways: set[Way]) -> set[Way]:
    kept: list[Way] = []
    for way in sorted(ways, key=lambda each: (len(each), sorted(each))):
        if len(kept) < WAYS and not any(known <= way for known in kept):
            kept.append(way)
    return set(kept)


def _either(granted: Sequence[tuple[Condition, ...]], resource: str) -> tuple[Clause, ...]:
    """Return one clause for what is granted several times over, as simple as it can be said."""
    unique = [(each, frozenset(each)) for each in dict.fromkeys(granted)]
    alternatives = tuple(each for each, conditions in unique if not any(other < conditions for _, other in unique))
    if not all(alternatives):
        return ()
    if len(alternatives) == 1:
        return alternatives[0]
    fields = {alternative[0].field for alternative in alternatives}
    if len(fields) == 1 and all(len(alternative) == 1 for alternative in alternatives):
        values = dict.fromkeys(value for alternative in alternatives for value in alternative[0].values)
        return (Condition(fields.pop(), tuple(values), resource),)
    return (Either(alternatives, resource),)
