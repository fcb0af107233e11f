"""Compare two policies: on requests that were made, and on everybody × every method (OWASP ASVS 5.0 8.1.1).

Both sides answer through `PolicySnapshot.decide`, as every process does, and a method that cannot narrow rows as the
policy does refuses, as the guard of each service does; this module only asks and counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Literal

from services.access.domain.vocabulary import Inventory, Narrowing
from services.chassis.access import (
    NO_PURPOSE,
    Caller,
    Clause,
    Condition,
    Decision,
    Either,
    Except,
    Obligations,
    PolicySnapshot,
)
from services.chassis.access.shares import ROWS_NOT_NARROWED, SHARED, guarded, is_lent
from services.chassis.audit import AuditEntry

Kind = Literal["method", "field", "search", "reveal", "rows"]
Direction = Literal["loss", "gain", "other"]
PRINCIPALS = ("user:", "app:")
RANKS = {
    "hidden": 0, "masked": 1, "shown": 2, "denied": 0, "allowed": 1, "not searched": 0, "searched": 1,
    "not revealed": 0, "revealed": 1,
}  # fmt: skip
NO_CONDITION = "all rows"
DENIALS = (
    ROWS_NOT_NARROWED,
    "DENIED_BY_RULE",
    "NO_MATCHING_RULE",
    "CONDITION_NOT_MET",
    "EMPTY_FIELD",
    "POLICY_ERROR",
)  # else a service said no


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was decided; `allowed` is what was answered then, `minute` when, counted from 1970."""

    subject: str
    department: str
    purpose: str
    resource: str
    action: str
    allowed: bool
    minute: int = 0

    def caller(self) -> Caller:
        """Return who asked, as a server sees them."""
        return caller_of(self.subject, self.department, self.purpose)


@dataclass(frozen=True, slots=True)
class Difference:
    """What two policies answer differently for one caller."""

    kind: Kind
    department: str
    resource: str
    action: str
    before: str
    after: str

    @property
    def direction(self) -> Direction:
        """Tell whether the caller has more or less afterwards."""
        if self.kind != "rows":
            return "gain" if RANKS[self.after] > RANKS[self.before] else "loss"
        before, after = set(self.before.split(" and ")), set(self.after.split(" and "))
        if self.after == NO_CONDITION or (after < before and self.before != NO_CONDITION):
            return "gain"
        return "loss" if self.before == NO_CONDITION or before < after else "other"


@dataclass(slots=True)
class Concerned:
    """Whom a difference concerns: subjects, for which purposes, how many recorded decisions."""

    subjects: set[str] = field(default_factory=set)
    purposes: set[str] = field(default_factory=set)
    recorded: int = 0


@dataclass(slots=True)
class Report:
    """All differences of two policies, and how much was asked."""

    decisions: int = 0
    gained: int = 0
    lost: int = 0
    otherwise: int = 0
    drifted: int = 0
    people: int = 0
    methods: int = 0
    changes: dict[Difference, Concerned] = field(default_factory=lambda: defaultdict(Concerned))

    def people_with(self, direction: Direction) -> set[str]:
        """Return the subjects that gain or lose something."""
        found = (who.subjects for change, who in self.changes.items() if change.direction == direction)
        return set().union(*found)

    def sorted_changes(self, subject: str = "") -> list[tuple[Difference, Concerned]]:
        """Return the changes, losses first, then by place; of one subject when one is named."""
        order = {"loss": 0, "other": 1, "gain": 2}
        found = [item for item in self.changes.items() if not subject or subject in item[1].subjects]
        return sorted(found, key=lambda item: (order[item[0].direction], _place(item[0])))


def _place(change: Difference) -> tuple[str, ...]:
    return (change.kind, change.department, change.resource, change.action, change.before, change.after)


def caller_of(subject: str, department: str, purpose: str) -> Caller:
    """Return the caller of this subject, as a server sees them after their token."""
    return Caller(subject, subject.partition(":")[0], department, "" if purpose == NO_PURPOSE else purpose)


def decisions(
    snapshot: PolicySnapshot, caller: Caller, resource: str, action: str, narrowings: Sequence[Narrowing]
) -> Iterator[Decision]:
    """Yield what the guard of each RPC decides; one that cannot narrow rows as the policy does refuses."""
    for fields, rows_of in narrowings:
        yield guarded(snapshot.decide(caller, resource, action, rows_of), fields)


def asked_of(entry: AuditEntry) -> Asked | None:
    """Return the request of an audit entry; None when no policy decided it: services, sign-ins, refusals later."""
    if not entry.subject.startswith(PRINCIPALS) or not entry.policy_version:
        return None
    allowed = entry.outcome == "allowed" or entry.reason not in DENIALS
    minute = int(datetime.fromisoformat(entry.time).timestamp()) // 60 if entry.time else 0
    return Asked(entry.subject, entry.department, entry.purpose, entry.resource, entry.action, allowed, minute)


def compare(
    base: PolicySnapshot,
    candidate: PolicySnapshot,
    recorded: Iterable[Asked],
    people: Sequence[tuple[str, str]],
    inventory: Inventory,
    purposes: Iterable[str],
    named: frozenset[str] = frozenset(),
    whatever: frozenset[str] = frozenset(),
) -> Report:
    """Return every difference between two policies.

    Args:
        base: the policy compared with.
        candidate: the policy that may come.
        recorded: requests that were made.
        people: subject and department of everybody who may call.
        inventory: resource → actions of every method, and by what each narrows rows.
        purposes: what the two policies speak of; a request may also name none.
        named: subjects with a rule or row filter of their own; all others of one department with the same roles
            are asked about once, for no policy can tell them apart.
        whatever: resources whose rules hold for whatever purpose: asked about for none, which stands for all.
    """
    report = Report()
    _replay(base, candidate, recorded, inventory, report)
    methods = [
        (resource, action, inventory.narrowings(resource, action))
        for resource in sorted(inventory.actions)
        for action in sorted(inventory.actions[resource])
    ]
    report.people, report.methods = len(people), len(methods)
    told = sorted(purposes)
    once = {(what, action) for what, action, ways in methods if whatever.issuperset([what, *_told_of(ways)])}
    particular = [method for method in methods if method[:2] not in once]
    for alike in _alike(base, candidate, people, named):
        for purpose in ("", *told):
            caller = caller_of(*alike[0], purpose)
            for change in _differences(base, candidate, caller, particular if purpose else methods):
                who = report.changes[change]
                who.subjects.update(subject for subject, _ in alike)
                who.purposes.add(purpose or NO_PURPOSE)
                if (change.resource, change.action) in once:
                    who.purposes.update(told)
    return report


def _replay(
    base: PolicySnapshot, candidate: PolicySnapshot, recorded: Iterable[Asked], inventory: Inventory, report: Report
) -> None:
    """Ask again, each at the minute it was asked when an answer may depend on it.

    What the trail does not hold, the address, the device and the second factor, is unknown to both sides; so is which
    of several RPCs with one right was called: one that lets the caller is enough.
    """
    timed = base.rules.conditional or candidate.rules.conditional
    sides: dict[int, tuple[PolicySnapshot, PolicySnapshot]] = {0: (base, candidate)}
    counter = Counter(recorded if timed else (replace(asked, minute=0) for asked in recorded))
    for asked, times in counter.items():
        if asked.minute not in sides:
            sides[asked.minute] = (base.at(asked.minute * 60), candidate.at(asked.minute * 60))
        report.decisions += times
        caller = asked.caller()
        ways = inventory.narrowings(asked.resource, asked.action)
        both = (decisions(side, caller, asked.resource, asked.action, ways) for side in sides[asked.minute])
        one, other = map(_best, both)
        report.drifted += times if one.allowed != asked.allowed else 0
        changes = list(_of_decision(caller, asked.resource, asked.action, one, other))
        if one.allowed and other.allowed:
            changes += _of_fields(caller, one.obligations, other.obligations)
            report.otherwise += times if changes else 0
        elif changes:
            report.gained += times if other.allowed else 0
            report.lost += times if one.allowed else 0
        for change in changes:
            who = report.changes[change]
            who.subjects.add(asked.subject)
            who.purposes.add(asked.purpose or NO_PURPOSE)
            who.recorded += times


def _told_of(ways: Sequence[Narrowing]) -> Iterator[str]:
    return chain.from_iterable(way.rows_of for way in ways)


def _best(found: Iterator[Decision]) -> Decision:
    first = next(found)
    return first if first.allowed else next((other for other in found if other.allowed), first)


def _alike(
    base: PolicySnapshot, candidate: PolicySnapshot, people: Sequence[tuple[str, str]], named: frozenset[str]
) -> Iterator[list[tuple[str, str]]]:
    """Group people whom both policies answer alike: one department, the same roles, no rule or team of their own."""
    groups: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for subject, department in people:
        caller = caller_of(subject, department, "")
        roles = (base.names(caller) - {subject}, candidate.names(caller) - {subject})
        mates = [frozenset(side.organization.mates(subject)) - {subject} for side in (base, candidate)]
        own = subject if subject in named or any(mates) else subject.partition(":")[0]
        groups[(department, own, roles)].append((subject, department))
    yield from groups.values()


def _differences(
    base: PolicySnapshot,
    candidate: PolicySnapshot,
    caller: Caller,
    methods: Sequence[tuple[str, str, Sequence[Narrowing]]],
) -> Iterator[Difference]:
    for resource, action, ways in methods:
        sides = (decisions(side, caller, resource, action, ways) for side in (base, candidate))
        for one, other in zip(*sides, strict=True):
            if one is not other:
                yield from _of_decision(caller, resource, action, one, other)
    yield from _of_fields(caller, base.obligations(caller), candidate.obligations(caller))


def _of_decision(caller: Caller, resource: str, action: str, one: Decision, other: Decision) -> Iterator[Difference]:
    if one.allowed != other.allowed:
        words = ("denied", "allowed")
        yield Difference("method", caller.department, resource, action, words[one.allowed], words[other.allowed])
    elif one.allowed and one.obligations.row_filter != other.obligations.row_filter:
        before, after = (rows_in_words(caller, side.obligations.row_filter) for side in (one, other))
        if before != after:
            yield Difference("rows", caller.department, resource, action, before, after)


def _of_fields(caller: Caller, one: Obligations, other: Obligations) -> Iterator[Difference]:
    if one == other:
        return
    groups = set[str]().union(
        *(getattr(side, name) for side in (one, other) for name in ("shown", "masked", "searchable", "revealable"))
    )
    for group in sorted(groups):
        before, after = _seen(one, group), _seen(other, group)
        if before != after:
            yield Difference("field", caller.department, f"fields/{group}", "", before, after)
        yield from _of_right("search", "searched", caller, group, one.searchable, other.searchable)
        yield from _of_right("reveal", "revealed", caller, group, one.revealable, other.revealable)


def _of_right(
    kind: Kind, word: str, caller: Caller, group: str, one: frozenset[str], other: frozenset[str]
) -> Iterator[Difference]:
    if (group in one) != (group in other):
        words = (f"not {word}", word)
        yield Difference(kind, caller.department, f"fields/{group}", "", words[group in one], words[group in other])


def _seen(side: Obligations, group: str) -> str:
    return "shown" if group in side.shown else "masked" if group in side.masked else "hidden"


def rows_in_words(caller: Caller, clauses: Sequence[Clause]) -> str:
    """Return what must hold of a row as words, the caller's own values named as rules name them."""
    own = {caller.subject: "$subject", caller.department: "$department"}

    def words(clause: Clause) -> str:
        if isinstance(clause, Either):
            return "either " + " or ".join(sorted({f"({', '.join(map(words, each))})" for each in clause.alternatives}))
        field, values = (
            (clause.without, clause.excluded) if isinstance(clause, Except) else (clause.field, clause.values)
        )
        if isinstance(clause, Condition) and is_lent(clause):
            return f"{field} in ({SHARED})"
        listed = ", ".join(sorted(own.get(value, value) for value in values))
        return f"{field} {'not ' if isinstance(clause, Except) else ''}in ({listed})"

    return " and ".join(sorted({words(clause) for clause in clauses})) or NO_CONDITION
