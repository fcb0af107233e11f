"""The words rules are written in: departments, purposes, and what the protos offer to decide about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DEPARTMENTS = ("marketing", "service", "sales", "analytics", "data-office", "administration")
FIRST_DEPARTMENTS = tuple((name, "") for name in DEPARTMENTS)  # of a policy that names none; each with no parent
PURPOSES = ("marketing", "service", "sales", "analysis", "stewardship", "administration")
FIELD_ACTIONS = ("show", "mask", "search", "reveal")
EMERGENCY_ROLE = "role:emergency-"  # what a role's name begins with that is opened by breaking the glass only
PROTECTED = ("personal", "sensitive")
CALLERS_OWN = ("$subject", "$team", "$department", "$departmentTree")  # what stands for the caller's own in a value


class Narrowing(NamedTuple):
    """How one RPC narrows rows: by which fields, `*` by any, and of which other resources it tells."""

    fields: frozenset[str]
    rows_of: tuple[str, ...]


ANY_ROWS = (Narrowing(frozenset("*"), ()),)  # of what no RPC has


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every resource with its actions, every protected field group (`personal/contact`), and by what rows narrow.

    `rows` has, of each resource with a method that narrows, the fields by which it does; `*` is any. `methods` has the
    same of each RPC.
    """

    actions: Mapping[str, frozenset[str]]
    groups: frozenset[str]
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict)
    methods: Mapping[tuple[str, str], tuple[Narrowing, ...]] = field(default_factory=dict)

    def narrowings(self, resource: str, action: str) -> tuple[Narrowing, ...]:
        """Return how the RPCs of a resource and action narrow rows, each way once."""
        return self.methods.get((resource, action), ANY_ROWS)
