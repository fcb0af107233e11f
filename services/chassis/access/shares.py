"""Records lent one by one: the data scope `$shared`, "shared with me".

A share counts for what its lender reaches at the moment it is used, so nobody lends more than they see; what came by a
share is no part of that, so nothing is lent on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from services.chassis.access.values import Caller, Clause, Condition, Decision, Either

SHARED = "$shared"
LENT_BY: Mapping[str, str] = {"profiles": "profile_id", "tickets": "ticket_id"}  # kind of record → the field of its id
SHARE = "share"  # the action that whoever lends holds
ROWS_NOT_NARROWED = "ROWS_NOT_NARROWED"  # a method does not narrow by a field that the policy narrows by
WAYS_OF_A_LENDER = 64  # to what they lend; more are left out, which shows less

Way = tuple[Condition, ...]  # conditions that all hold
Sight = Callable[[Caller], Sequence[Clause] | None]


@dataclass(frozen=True, slots=True)
class Share:
    """One record lent by somebody to a person, an app or a department (`department:sales`) for one purpose.

    `lender_purpose` is the purpose under which the lender reaches the record; `end` in seconds since 1970.
    """

    resource: str
    record_id: str
    borrower: str
    purpose: str
    lender: str
    lender_department: str
    lender_purpose: str
    end: float


class Shares:
    """All shares in force, by borrower, kind of record and purpose; never changed once built."""

    def __init__(self, shares: Iterable[Share] = (), version: str = "") -> None:
        """Index them; `version` marks the set."""
        self.version = version
        self._of: dict[tuple[str, str, str], dict[Caller, list[Share]]] = {}
        lenders: dict[tuple[str, str, str], Caller] = {}
        for share in shares:
            who = share.lender, share.lender_department, share.lender_purpose
            lender = lenders.setdefault(who, Caller(who[0], "user", *who[1:]))
            of_lender = self._of.setdefault((share.borrower, share.resource, share.purpose), {})
            of_lender.setdefault(lender, []).append(share)

    def ways(self, caller: Caller, resource: str, now: float, sight: Sight) -> list[Way]:
        """Return under which conditions records are in reach by shares: lenders who see alike are taken together.

        `sight` returns what must hold of a record that a lender lends; None when they may not lend.
        """
        groups: dict[Way, set[str]] = {}
        for borrower in (caller.subject, f"department:{caller.department}"):
            for lender, shares in self._of.get((borrower, resource, caller.purpose), {}).items():
                ids = [share.record_id for share in shares if now < share.end]
                for way in _ways(sight(lender)) if ids else ():
                    groups.setdefault(way, set()).update(ids)
        return [(Condition(LENT_BY[resource], tuple(sorted(ids)), resource), *way) for way, ids in groups.items()]


NO_SHARES = Shares()


def _ways(clauses: Sequence[Clause] | None) -> list[Way]:
    """Return the alternatives of all clauses together; none when a clause cannot be said as one."""
    if clauses is None:
        return []
    found: list[Way] = [()]
    for clause in clauses:
        if isinstance(clause, Either):
            choices = clause.alternatives
        elif isinstance(clause, Condition):
            choices = ((clause,),)
        else:
            return []
        found = [(*way, *choice) for way in found for choice in choices][:WAYS_OF_A_LENDER]
    return [tuple(dict.fromkeys(way)) for way in found]


def is_lent(condition: Condition) -> bool:
    """Tell whether a condition names records by their id."""
    return LENT_BY.get(condition.resource) == condition.field


def lent_ids(clauses: Iterable[Clause]) -> list[str]:
    """Return the ids of the records that the clauses name, sorted: whether they are in reach the whole clause tells."""
    parts = [part for each in clauses for part in (chain(*each.alternatives) if isinstance(each, Either) else (each,))]
    return sorted({id for part in parts if isinstance(part, Condition) and is_lent(part) for id in part.values})


def narrowed(decision: Decision, fields: frozenset[str]) -> Decision:
    """Return the decision for a method that narrows by these fields, `*` by any: a share adds nothing elsewhere."""
    rows = decision.obligations.row_filter
    if not rows or "*" in fields:
        return decision
    own = without_lent(rows, fields)
    return decision if own == rows else replace(decision, obligations=replace(decision.obligations, row_filter=own))


def beyond(decision: Decision, fields: frozenset[str]) -> str:
    """Return a field by which the rows are narrowed and a method is not that narrows by these; empty for none."""
    rows = decision.obligations.row_filter
    if not rows or "*" in fields:
        return ""
    asked = chain.from_iterable(clause.fields for clause in rows)
    return next((field for field in asked if field not in fields), "")


def guarded(decision: Decision, fields: frozenset[str]) -> Decision:
    """Return what the guard makes of a decision for a method that narrows by these fields, `*` by any."""
    own = narrowed(decision, fields)
    return replace(own, allowed=False, reason=ROWS_NOT_NARROWED) if own.allowed and beyond(own, fields) else own


def without_lent(clauses: Sequence[Clause], fields: frozenset[str]) -> tuple[Clause, ...]:
    """Return the clauses for a method that narrows by these fields: what it cannot tell apart is not lent there."""
    return tuple(_own(clause, fields) if isinstance(clause, Either) else clause for clause in clauses)


def _own(clause: Either, fields: frozenset[str]) -> Either:
    kept = tuple(
        way for way in clause.alternatives if not any(is_lent(each) and each.field not in fields for each in way)
    )
    return clause if not kept or len(kept) == len(clause.alternatives) else Either(kept, clause.resource)
