"""The values of a decision: caller, rules about rows, obligations, outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Literal

Disposition = Literal["show", "mask", "hide"]

NO_PURPOSE = "none"  # what the matcher sees when a caller names no purpose; a grant of fields cannot name it

MODEL = """\
[request_definition]
r = sub, dom, obj, act, purpose

[policy_definition]
p = sub, dom, obj, act, purpose, eft

[role_definition]
g = _, _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.sub, r.dom) && r.obj == p.obj && (p.dom == "*" || r.dom == p.dom) \
&& (p.act == "*" || r.act == p.act) && (p.purpose == "*" || r.purpose == p.purpose)
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a person (`user:`), an app (`app:`) or one of our services (`svc:`), and why."""

    subject: str
    kind: str
    department: str = ""
    purpose: str = ""
    token_id: str = ""
    auth_time: datetime | None = None
    methods: tuple[str, ...] = ()

    def with_purpose(self, purpose: str) -> Caller:
        """Return the same caller, acting for this purpose."""
        return replace(self, purpose=purpose)


@dataclass(frozen=True, slots=True)
class Condition:
    """A row is in reach when its field has one of the values; `resource` is what the policy narrows by it."""

    field: str
    values: tuple[str, ...]
    resource: str = ""


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Narrow what a subject or role reaches of a resource; `*` as department or resource means any.

    A value of `$subject` or `$department` stands for the caller's own.
    """

    subject: str
    department: str
    resource: str
    field: str
    values: tuple[str, ...]

    def bound_to(self, caller: Caller) -> Condition:
        """Return the condition with the caller's own subject and department filled in."""
        own = {"$subject": caller.subject, "$department": caller.department}
        return Condition(self.field, tuple(own.get(value, value) for value in self.values), self.resource)


@dataclass(frozen=True, slots=True)
class FieldGrant:
    """One rule about a field group such as `personal/contact`: who may show, mask or search it for what purpose."""

    group: str
    subject: str
    department: str
    action: str
    purpose: str
    effect: str


@dataclass(frozen=True, slots=True)
class Obligations:
    """What a reply owes the decision: field groups shown or masked, fields searchable, rows in reach.

    Groups are written `personal/contact`. Conditions of `row_filter` all hold at once.
    """

    shown: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    searchable: frozenset[str] = frozenset()
    row_filter: tuple[Condition, ...] = ()
    everything: bool = False

    def disposition(self, classification: str, group: str) -> Disposition:
        """Return what becomes of a field of this class (`public`, `internal`, `personal`, `sensitive`).

        A field without a class is hidden (design.md §1).
        """
        if self.everything or classification in ("public", "internal"):
            return "show"
        key = f"{classification}/{group}"
        if key in self.shown:
            return "show"
        return "mask" if key in self.masked else "hide"

    def may_search(self, classification: str, group: str) -> bool:
        """Tell whether the caller may search by fields of this class."""
        if self.everything or classification in ("public", "internal"):
            return True
        return f"{classification}/{group}" in self.searchable


NOTHING_SHOWN = Obligations()
ALL_SHOWN = Obligations(everything=True)  # one of our own services, calling as itself


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one request, with the rule that gave it and the policy version it came from."""

    allowed: bool
    reason: str
    policy_version: int
    obligations: Obligations = NOTHING_SHOWN
    rule: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revocations:
    """Tokens that no longer count: by id, and by subject for all issued up to a time (epoch seconds).

    A subject with `#` and a credential's id means the tokens an app got by that credential.
    """

    tokens: frozenset[str] = frozenset()
    subjects: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    version: str = ""

    def covers(self, token_id: str, subject: str, issued_at: float) -> bool:
        """Tell whether a token is revoked."""
        if token_id in self.tokens or issued_at <= self.subjects.get(subject, float("-inf")):
            return True
        credential, dot, _ = token_id.partition(".")  # the credential an app got it by
        return bool(dot) and issued_at <= self.subjects.get(f"{subject}#{credential}", float("-inf"))
