"""Row filters of the policy, as conditions on a profile's traits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kehu.analytics.v1 import audience_pb2

from services.chassis.access import Clause, Condition, Either, Except
from services.chassis.errors import Denied

FILTERABLE: Final = ("province_code", "city_code", "district_code", "gender", "tier", "owner_department")


@dataclass(frozen=True, slots=True)
class Reach:
    """Profiles in reach: all clauses hold, each on a trait of the profile; none means every profile."""

    clauses: tuple[Clause, ...]

    def rule(self, rule: audience_pb2.AudienceRule) -> audience_pb2.AudienceRule:
        """Return the rule narrowed to what is in reach."""
        if not self.clauses:
            return rule
        narrowed = audience_pb2.AudienceRule()
        for clause in self.clauses:
            narrowed.all.rules.add().CopyFrom(_rule(clause))
        narrowed.all.rules.add().CopyFrom(rule)
        return narrowed

    def where(self) -> tuple[str, dict[str, str]]:
        """Return a condition on the relation p and its parameters; true when everything is in reach."""
        params: dict[str, str] = {}
        parts = ["true", *(_where(clause, params) for clause in self.clauses)]
        return " AND ".join(parts), params


def _rule(clause: Clause) -> audience_pb2.AudienceRule:
    found = audience_pb2.AudienceRule()
    if isinstance(clause, Either):
        for alternative in clause.alternatives:
            every = found.any.rules.add().all
            for each in alternative:
                every.rules.add().CopyFrom(_rule(each))
        return found
    if isinstance(clause, Except):
        negated = getattr(found, "not")
        negated.CopyFrom(_rule(Condition(clause.without, clause.excluded)))
        return found
    found.trait.trait, found.trait.operator = clause.field, audience_pb2.OPERATOR_IN
    found.trait.values.extend(clause.values)
    return found


def _where(clause: Clause, params: dict[str, str]) -> str:
    if isinstance(clause, Either):
        some = (" AND ".join(_where(each, params) for each in every) for every in clause.alternatives)
        return f"({' OR '.join(f'({each})' for each in some)})"
    if isinstance(clause, Except):
        column = f"p.{clause.without}"
        names = _named(clause.excluded, params)
        return f"({column} IS NOT NULL AND {column} <> '' AND {column} NOT IN ({names}))"
    return f"p.{clause.field} IN ({_named(clause.values, params)})"


def _named(values: Sequence[str], params: dict[str, str]) -> str:
    names = [f"reach_{len(params) + number}" for number in range(len(values))]
    params |= dict(zip(names, values, strict=True))
    return ", ".join(f"${name}" for name in names)


def _conditions(clause: Clause) -> tuple[Condition, ...]:
    """Return the conditions of a clause; what is left out counts as one."""
    if isinstance(clause, Either):
        return tuple(each for alternative in clause.alternatives for each in alternative)
    return (Condition(clause.without, clause.excluded),) if isinstance(clause, Except) else (clause,)


def reach_of(clauses: Sequence[Clause]) -> Reach:
    """Return the reach of a decision's row filter.

    Raises:
        Denied: a filter is on a field that profiles of the lake do not have, or names no value: nothing is in reach.
    """
    for clause in clauses:
        found = _conditions(clause)
        if not found or any(each.field not in FILTERABLE or not each.values for each in found):
            raise Denied("the row filter of your role cannot be applied here; ask an administrator")
    return Reach(tuple(clauses))
