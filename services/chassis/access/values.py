"""The values of a decision: caller, rules about rows, obligations, outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, TypeAlias

Disposition = Literal["show", "mask", "hide"]
ValueOf: TypeAlias = Callable[[str], str | None]


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
    address: str = ""
    device: tuple[tuple[str, str], ...] = ()

    def with_purpose(self, purpose: str) -> Caller:
        """Return the same caller, acting for this purpose."""
        return replace(self, purpose=purpose)

    def calling(self, purpose: str, address: str) -> Caller:
        """Return the same caller, acting for this purpose from this address, as the gateway sees it."""
        return _calling(self, purpose, address)


@lru_cache(maxsize=4096)
def _calling(caller: Caller, purpose: str, address: str) -> Caller:
    return replace(caller, purpose=purpose, address=address)


@dataclass(frozen=True, slots=True)
class Condition:
    """A row is in reach when its field has one of the values; `resource` is what the policy narrows by it."""

    field: str
    values: tuple[str, ...]
    resource: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it compares."""
        return (self.field,)

    def holds(self, value_of: ValueOf) -> bool:
        """Tell whether it holds for a row; a row without the field is out of reach."""
        return value_of(self.field) in self.values


@dataclass(frozen=True, slots=True)
class Except:
    """A row is in reach when its field has a value, and none of these."""

    without: str
    excluded: tuple[str, ...]
    resource: str = ""
    field: Literal[""] = ""  # no service has a field of this name: who knows only of Condition shows nothing
    values: tuple[()] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it compares."""
        return (self.without,)

    def holds(self, value_of: ValueOf) -> bool:
        """Tell whether it holds for a row; a row without the field is out of reach."""
        value = value_of(self.without)
        return bool(value) and value not in self.excluded


@dataclass(frozen=True, slots=True)
class Either:
    """A row is in reach when all conditions of one alternative hold."""

    alternatives: tuple[tuple[Condition, ...], ...]
    resource: str = ""
    field: Literal[""] = ""
    values: tuple[()] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it compares."""
        return tuple(each.field for alternative in self.alternatives for each in alternative)

    def holds(self, value_of: ValueOf) -> bool:
        """Tell whether it holds for a row."""
        return any(all(each.holds(value_of) for each in alternative) for alternative in self.alternatives)


Clause: TypeAlias = Condition | Except | Either


def in_reach(clauses: Iterable[Clause], value_of: ValueOf) -> bool:
    """Tell whether all clauses of a row filter hold for a row; `value_of` returns None for a field it has not."""
    return all(clause.holds(value_of) for clause in clauses)


def values_in_reach(clauses: Iterable[Clause], field: str) -> frozenset[str] | None:
    """Return the values of one field that are in reach, None for any: for a service that compares no other field.

    What asks for another field lets nothing through.
    """
    reach: frozenset[str] | None = None
    for clause in clauses:
        found: frozenset[str] = frozenset()
        if isinstance(clause, Either):
            for alternative in clause.alternatives:
                found |= values_in_reach(alternative, field) or frozenset()
        elif clause.field == field:
            found = frozenset(clause.values)
        reach = found if reach is None else reach & found
    return reach


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Narrow what a subject or role reaches of a resource; `*` as department or resource means any.

    A value of `$subject`, `$team`, `$department` or `$departmentTree` stands for the caller's own.
    """

    subject: str
    department: str
    resource: str
    field: str
    values: tuple[str, ...]


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
    """What a reply owes the decision: field groups shown or masked, searchable, revealable one by one, rows in reach.

    Groups are written `personal/contact`. Clauses of `row_filter` all hold at once.
    """

    shown: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    searchable: frozenset[str] = frozenset()
    row_filter: tuple[Clause, ...] = ()
    everything: bool = False
    revealable: frozenset[str] = frozenset()

    def with_revealed(self, groups: Iterable[str]) -> Obligations:
        """Return what a reply owes in which these groups were revealed."""
        lifted = frozenset(groups) & self.revealable
        return replace(self, shown=self.shown | lifted, masked=self.masked - lifted) if lifted else self

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
        if token_id in self.tokens or issued_at <= self.subjects.get(subject, -math.inf):
            return True
        credential, dot, _ = token_id.partition(".")  # the credential an app got it by
        return bool(dot) and issued_at <= self.subjects.get(f"{subject}#{credential}", -math.inf)
