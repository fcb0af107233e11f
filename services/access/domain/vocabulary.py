"""The words rules are written in: departments, purposes, and what the protos offer to decide about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEPARTMENTS = ("marketing", "service", "sales", "analytics", "data-office", "administration")
FIRST_DEPARTMENTS = tuple((name, "") for name in DEPARTMENTS)  # of a policy that names none; each with no parent
PURPOSES = ("marketing", "service", "sales", "analysis", "stewardship", "administration")
FIELD_ACTIONS = ("show", "mask", "search", "reveal")
EMERGENCY_ROLE = "role:emergency-"  # what a role's name begins with that is opened by breaking the glass only
PROTECTED = ("personal", "sensitive")
CALLERS_OWN = ("$subject", "$team", "$department", "$departmentTree")  # what stands for the caller's own in a value


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every resource with its actions, every protected field group (`personal/contact`), and by what rows narrow.

    `rows` has, of each resource with a method that narrows, the fields by which it does; `*` is any.
    """

    actions: Mapping[str, frozenset[str]]
    groups: frozenset[str]
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict)
