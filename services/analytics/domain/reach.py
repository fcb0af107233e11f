"""Row filters of the policy, as conditions on a profile's traits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kehu.analytics.v1 import audience_pb2

from services.chassis.errors import Denied

FILTERABLE: Final = ("province_code", "city_code", "district_code", "gender", "tier", "owner_department")


class Condition(Protocol):
    """What the chassis's row filters look like."""

    @property
    def field(self) -> str:
        """The field of the row."""

    @property
    def values(self) -> tuple[str, ...]:
        """The values in reach."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Profiles in reach: each trait has one of its values."""

    traits: tuple[tuple[str, tuple[str, ...]], ...]

    def rule(self, rule: audience_pb2.AudienceRule) -> audience_pb2.AudienceRule:
        """Return the rule narrowed to what is in reach."""
        if not self.traits:
            return rule
        narrowed = audience_pb2.AudienceRule()
        for trait, values in self.traits:
            condition = narrowed.all.rules.add().trait
            condition.trait, condition.operator = trait, audience_pb2.OPERATOR_IN
            condition.values.extend(values)
        narrowed.all.rules.add().CopyFrom(rule)
        return narrowed

    def where(self) -> tuple[str, dict[str, str]]:
        """Return a condition on the relation p and its parameters; true when everything is in reach."""
        parts = ["true"]
        params: dict[str, str] = {}
        for index, (trait, values) in enumerate(self.traits):
            names = [f"reach_{index}_{number}" for number in range(len(values))]
            params |= dict(zip(names, values, strict=True))
            parts.append(f"p.{trait} IN ({', '.join(f'${name}' for name in names)})")
        return " AND ".join(parts), params


def reach_of(conditions: Sequence[Condition]) -> Reach:
    """Return the reach of a decision's row filter.

    Raises:
        Denied: a filter is on a field that profiles of the lake do not have, or names no value: nothing is in reach.
    """
    for condition in conditions:
        if condition.field not in FILTERABLE or not condition.values:
            raise Denied("the row filter of your role cannot be applied here; ask an administrator")
    return Reach(tuple((condition.field, tuple(condition.values)) for condition in conditions))
