"""Who may do this, and what may they do: asked of the policy in force, a bounded stretch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.access.domain.differences import Words
from services.access.domain.policies import Row
from services.access.domain.simulation import caller_of, decisions, rows_in_words
from services.access.domain.vocabulary import ANY_ROWS, Inventory, Narrowing
from services.chassis.access import NO_PURPOSE, Clause, Decision, Either, Obligations, PolicySnapshot


@dataclass(frozen=True, slots=True)
class Able:
    """Somebody who may: for which purposes, by which rule of the first of them, and which rows they reach.

    `judged` tells whether the record asked about is surely one of them.
    """

    subject: str
    department: str
    purposes: tuple[str, ...]
    rule: Row
    rows: str
    sees: Obligations
    judged: bool = False


def who_can(
    snapshot: PolicySnapshot,
    people: Iterable[tuple[str, str]],
    resource: str,
    action: str,
    purposes: Sequence[str],
    record: Mapping[str, str],
    narrowings: Sequence[Narrowing] = ANY_ROWS,
) -> Iterator[Able | None]:
    """Yield for each of these people how they may do this, None when they may not.

    Args:
        snapshot: the policy in force.
        people: subject and department.
        resource: what it is done to.
        action: what is done.
        purposes: asked about in this order; empty for none.
        record: fields of the record it is about; a row filter by another field is told, not judged.
        narrowings: how the RPCs that do this narrow rows; one that lets them is enough.
    """
    for subject, department in people:
        found: dict[str, Decision] = {}
        for purpose in purposes:
            caller = caller_of(subject, department, purpose)
            for decision in decisions(snapshot, caller, resource, action, narrowings):
                if decision.allowed and in_reach_by(decision.obligations.row_filter, record) is not False:
                    found.setdefault(purpose or NO_PURPOSE, decision)
        if not found:
            yield None
            continue
        first, caller = next(iter(found.values())), caller_of(subject, department, "")
        clauses = first.obligations.row_filter
        rows, judged = rows_in_words(caller, clauses), in_reach_by(clauses, record) is True
        yield Able(subject, department, tuple(found), first.rule, rows, first.obligations, judged)


def in_reach_by(clauses: Iterable[Clause], record: Mapping[str, str]) -> bool | None:
    """Tell whether a record is in reach, by the fields that are given of it; None when others decide."""
    return _all(_holds(clause, record) for clause in clauses)


def _holds(clause: Clause, record: Mapping[str, str]) -> bool | None:
    if isinstance(clause, Either):
        ways = [_all(_holds(each, record) for each in way) for way in clause.alternatives]
        return True if True in ways else None if None in ways else False
    return clause.holds(record.get) if set(clause.fields) <= set(record) else None


def _all(found: Iterable[bool | None]) -> bool | None:
    told = set(found)
    return False if False in told else None if None in told else True


def what_can(
    snapshot: PolicySnapshot, subject: str, department: str, purposes: Sequence[str], inventory: Inventory
) -> Iterator[tuple[str, str, tuple[str, ...], Row, str]]:
    """Yield resource, action, purposes, the rule and the rows of every method that somebody may call."""
    methods = sorted((resource, action) for resource, actions in inventory.actions.items() for action in actions)
    for resource, action in methods:
        ways = inventory.narrowings(resource, action)
        (able,) = who_can(snapshot, [(subject, department)], resource, action, purposes, {}, ways)
        if able is not None:
            yield resource, action, able.purposes, able.rule, able.rows


def missing(rule: Row, field: str, subject: str, department: str) -> Words:
    """Return what keeps a request from a rule that matches it in all but one field."""
    if field == "subject":
        return Words(f"{subject} does not have {rule[0]} in {rule[1]}", f"{subject} 在 {rule[1]} 没有 {rule[0]}")
    if field == "department":
        return Words(
            f"the rule holds in {rule[1]}, not in {department}", f"该规则适用于 {rule[1]}，不适用于 {department}"
        )
    if field == "purpose":
        return Words(f"name the purpose {rule[4]}: X-Purpose", f"须声明目的 {rule[4]}（X-Purpose）")
    return Words(f"only {rule[3]} is allowed of {rule[2]}", f"对 {rule[2]} 只允许 {rule[3]}")
