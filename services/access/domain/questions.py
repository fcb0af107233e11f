"""Who may do this, and what may they do: asked of the policy in force, a bounded stretch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.access.domain.differences import Words
from services.access.domain.policies import Row
from services.access.domain.simulation import caller_of, rows_in_words
from services.chassis.access import NO_PURPOSE, Decision, Obligations, PolicySnapshot
from services.chassis.access.values import in_reach


@dataclass(frozen=True, slots=True)
class Able:
    """Somebody who may: for which purposes, by which rule of the first of them, and which rows they reach."""

    subject: str
    department: str
    purposes: tuple[str, ...]
    rule: Row
    rows: str
    sees: Obligations


def who_can(
    snapshot: PolicySnapshot,
    people: Iterable[tuple[str, str]],
    resource: str,
    action: str,
    purposes: Sequence[str],
    record: Mapping[str, str],
) -> Iterator[Able | None]:
    """Yield for each of these people how they may do this, None when they may not.

    Args:
        snapshot: the policy in force.
        people: subject and department.
        resource: what it is done to.
        action: what is done.
        purposes: asked about in this order; empty for none.
        record: fields of the record it is about; a row filter by another field is told, not judged.
    """
    for subject, department in people:
        found: dict[str, Decision] = {}
        for purpose in purposes:
            decision = snapshot.decide(caller_of(subject, department, purpose), resource, action)
            if decision.allowed and not _out_of_reach(decision, record):
                found[purpose or NO_PURPOSE] = decision
        if not found:
            yield None
            continue
        first, caller = next(iter(found.values())), caller_of(subject, department, "")
        rows = rows_in_words(caller, first.obligations.row_filter)
        yield Able(subject, department, tuple(found), first.rule, rows, first.obligations)


def _out_of_reach(decision: Decision, record: Mapping[str, str]) -> bool:
    """Tell whether a row filter keeps this record away: one that compares only fields that are given."""
    judged = [clause for clause in decision.obligations.row_filter if set(clause.fields) <= set(record)]
    return not in_reach(judged, record.get)


def what_can(
    snapshot: PolicySnapshot, subject: str, department: str, purposes: Sequence[str], methods: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str, tuple[str, ...], Row, str]]:
    """Yield resource, action, purposes, the rule and the rows of every method that somebody may call."""
    for resource, action in methods:
        (able,) = who_can(snapshot, [(subject, department)], resource, action, purposes, {})
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
