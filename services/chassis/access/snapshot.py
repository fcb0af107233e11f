"""The policy of this moment: immutable, swapped whole, fetched by polling (design.md §4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from services.chassis.access.conditions import NO_FACTS, Facts, Gate, Gates, NamedCondition, RecordAttribute
from services.chassis.access.quotas import Quota
from services.chassis.access.reach import NO_ORGANIZATION, Organization, clauses
from services.chassis.access.rules import Shape, rules_of
from services.chassis.access.shares import NO_SHARES, SHARE, Shares
from services.chassis.access.stepping import ASSURANCE, assurance
from services.chassis.access.tables import Pause, Row, Table, no_pause
from services.chassis.access.values import (
    NO_PURPOSE,
    NOTHING_SHOWN,
    Caller,
    Clause,
    Decision,
    FieldGrant,
    Obligations,
    Revocations,
    RowFilter,
)
from services.chassis.access.verdicts import Rules
from services.chassis.errors import Invalid

REQUEST_FIELDS = ("r_sub", "r_dom", "r_obj", "r_act", "r_purpose")
REMEMBERED = 100_000  # decisions, and as many field rights, of names treated alike: some 25 MiB when all are in use
READ = "read"  # the action that tells which rows of another resource a caller reaches
RULE_FIELDS = len(REQUEST_FIELDS) + 1
FIELD_PREFIX = "fields/"
EMERGENCY_LINK = "emergency:"  # a name between a person and a role: the role was opened by breaking the glass

WORK_SECONDS, BREATH_SECONDS = 0.001, 0.0002
Remembered = TypeVar("Remembered", Decision, Obligations)


_work = threading.local()


def breathe() -> None:
    """Let the threads that serve requests run, after each millisecond of work."""
    if time.perf_counter() - getattr(_work, "began", 0.0) >= WORK_SECONDS:
        time.sleep(BREATH_SECONDS)
        _work.began = time.perf_counter()


class PolicySnapshot:
    """One version of the policy with its revocations and token keys, compiled; never changed once built."""

    __slots__ = (
        "version",
        "rules_version",
        "keys",
        "revocations",
        "tables",
        "_rules",
        "organization",
        "quotas",
        "_filters",
        "_partial",
        "_field_gates",
        "_groups",
        "field_grants",
        "_rights",
        "_decided",
        "_now",
        "_emergencies",
        "shares",
    )

    def __init__(
        self,
        version: int,
        model_text: str,
        p_rules: Iterable[Row] | Table,
        g_rules: Iterable[Row] | Table,
        row_filters: Iterable[RowFilter] = (),
        keys: Mapping[str, str] | None = None,
        revocations: Revocations | None = None,
        rules_version: str = "",
        conditions: Iterable[NamedCondition] = (),
        organization: Organization = NO_ORGANIZATION,
        now: Callable[[], float] = time.time,
        pause: Pause = no_pause,
        quotas: tuple[Quota, ...] = (),
    ) -> None:
        """Compile the rules; `keys` maps a key id to the base64url public key (the `x` of its JWK).

        `now` tells the time for conditions and role links; `pause` is called now and then while it is built.

        Raises:
            Invalid: the model or a row is wrong; the holder then keeps what it has.
        """
        named, shape = tuple(conditions), Shape.of(model_text)
        table = shape.rules(p_rules)
        pause()
        links = shape.links(g_rules)
        pause()
        self.version = version
        self.rules_version = rules_version or str(version)
        self.keys = dict(keys or {})
        self.revocations = revocations or Revocations()
        self.organization = organization
        self.quotas = quotas
        self._rules: Rules = rules_of(shape, model_text, table, links, named, pause)
        self._filters = _by_resource(row_filters)
        self._rules.closure.heed(each.subject for filters in self._filters.values() for each in filters)
        self.tables = table, links
        self._partial = _partial(table, named)
        pause()
        self._field_gates = _field_gates(table, Gates.of(named))
        pause()
        self.field_grants = _field_grants(shape, table)
        self._groups = tuple(sorted({grant.group for grant in self.field_grants}))
        self._rights: dict[tuple[Hashable, ...], Obligations] = {}
        self._decided: dict[tuple[Hashable, ...], Decision] = {}
        self._now = now
        self.shares = NO_SHARES
        self._emergencies = any(word.startswith(EMERGENCY_LINK) for word in links.words)

    def with_revocations(self, revocations: Revocations, keys: Mapping[str, str]) -> PolicySnapshot:
        """Return a snapshot of the same compiled rules with other revocations and keys."""
        other = object.__new__(PolicySnapshot)
        for name in PolicySnapshot.__slots__:
            setattr(other, name, getattr(self, name))
        other.revocations = revocations
        other.keys = dict(keys)
        return other

    def with_shares(self, shares: Shares) -> PolicySnapshot:
        """Return a snapshot of the same compiled rules with other shares."""
        other = self.with_revocations(self.revocations, self.keys)
        other.shares = shares
        return other

    def at(self, now: float) -> PolicySnapshot:
        """Return the same policy at a stated time, seconds since 1970: for questions that nobody asks now."""
        other = self.with_revocations(self.revocations, self.keys)
        other._now = lambda: now
        return other

    def decide(self, caller: Caller, resource: str, action: str, rows_of: tuple[str, ...] = ()) -> Decision:
        """Answer whether the caller may do this to the resource, and what the reply then owes.

        `rows_of` are other resources that the reply tells of: what the caller reaches of them by reading holds too.
        What depends on nothing but the roles, the place, the purpose and the method is answered once for all.
        """
        facts = self.facts(caller) if self._rules.conditional else NO_FACTS
        heeded = self._rules.heeded(caller.subject, caller.department, facts.now)
        key = (heeded, caller.department, resource, action, caller.purpose, rows_of)
        known = self._decided.get(key)
        if known is None:
            known, lasting = self._decide(caller, resource, action, rows_of, facts, heeded)
            if lasting and heeded:
                _remember(self._decided, key, known)
        return known

    def _decide(
        self, caller: Caller, resource: str, action: str, rows_of: tuple[str, ...], facts: Facts, heeded: frozenset[str]
    ) -> tuple[Decision, bool]:
        """Decide anew, and tell whether it holds for all of these names at any time."""
        verdict, lasting = self._rules.settle(self._request(caller, resource, action), facts, heeded)
        if not verdict.allowed:
            return Decision(False, verdict.reason, self.version, NOTHING_SHOWN, verdict.rule), lasting
        obligations = self._fields(caller, facts, heeded)
        lasting = lasting and not self._field_gates
        for asked in ((resource, action), *((other, READ) for other in rows_of)):
            found = self._clauses(caller, *asked, facts)
            if found is not None:  # they depend on the ways to the roles, and on who asks
                obligations, lasting = replace(obligations, row_filter=obligations.row_filter + found), False
        return Decision(True, verdict.reason, self.version, obligations, verdict.rule), lasting

    def facts(self, caller: Caller) -> Facts:
        """Return what conditions may look at: the time, and what is known of the caller."""
        shown = caller.auth_time is not None and assurance(caller.methods) == ASSURANCE
        second_factor_at = caller.auth_time.timestamp() if shown and caller.auth_time else None
        return Facts(self._now(), caller.address, second_factor_at, caller.device)

    @property
    def rules(self) -> Rules:
        """The compiled rules."""
        return self._rules

    def names(self, caller: Caller) -> frozenset[str]:
        """Return the subject and all roles it has in its department now."""
        return self._rules.names(caller.subject, caller.department, self._now())

    def emergency(self, caller: Caller) -> str:
        """Return the id of the break-glass through which the caller has a role now, or nothing."""
        if not self._emergencies:
            return ""
        found = (name for name in self.names(caller) if name.startswith(EMERGENCY_LINK))
        return next(found, "").removeprefix(EMERGENCY_LINK)

    def obligations(self, caller: Caller) -> Obligations:
        """Return the field groups this caller sees, sees masked and may search by, for the purpose named."""
        facts = self.facts(caller) if self._rules.conditional else NO_FACTS
        return self._fields(caller, facts, self._rules.heeded(caller.subject, caller.department, facts.now))

    def _fields(self, caller: Caller, facts: Facts, heeded: frozenset[str]) -> Obligations:
        if not caller.purpose:
            return NOTHING_SHOWN
        key: tuple[Hashable, ...] = (heeded or caller.subject, caller.department, caller.purpose)
        if self._field_gates:  # their outcomes change from one call to the next
            key = (*key, *[gate.outcome(facts) for gate in self._field_gates])
        known = self._rights.get(key)
        if known is None:
            known = self._field_rights(caller, facts)
            _remember(self._rights, key, known)
        return known

    def _request(self, caller: Caller, resource: str, action: str) -> Row:
        return caller.subject, caller.department, resource, action, caller.purpose or NO_PURPOSE

    def _field_rights(self, caller: Caller, facts: Facts) -> Obligations:
        def granted(action: str) -> frozenset[str]:
            asked = ((group, self._request(caller, FIELD_PREFIX + group, action)) for group in self._groups)
            return frozenset(group for group, request in asked if self._rules.decide(request, facts).allowed)

        shown = granted("show")
        return Obligations(shown, granted("mask") - shown, granted("search"), revealable=granted("reveal"))

    def _clauses(
        self, caller: Caller, resource: str, action: str, facts: Facts, shares: Shares | None = None
    ) -> tuple[Clause, ...] | None:
        """Return what must hold of the rows of one resource; None when nothing narrows it for these names."""
        filters = self._filters.get(resource, self._filters["*"])
        if filters:
            places, names = ("*", caller.department), self._rules.names(caller.subject, caller.department, facts.now)
            filters = [each for each in filters if each.subject in names and each.department in places]
        if not filters and resource not in self._partial:
            return None
        matches = self._rules.matches(self._request(caller, resource, action), facts)
        now, shares = self._now(), self.shares if shares is None else shares
        return clauses(
            caller, resource, matches, filters, self._rules.closure, self.organization, facts.now,
            lambda: shares.ways(caller, resource, now, lambda lender: self._sight(lender, resource, now)),
        )  # fmt: skip

    def _sight(self, lender: Caller, resource: str, now: float) -> tuple[Clause, ...] | None:
        """Return what must hold of a record that somebody lends: they may lend it, and read it themselves."""
        found: tuple[Clause, ...] = ()
        for action in (SHARE, READ):
            if not self._rules.decide(self._request(lender, resource, action), Facts(now)).allowed:
                return None
            found += self._clauses(lender, resource, action, Facts(now), NO_SHARES) or ()
        return found


def _remember(known: dict[tuple[Hashable, ...], Remembered], key: tuple[Hashable, ...], value: Remembered) -> None:
    if len(known) >= REMEMBERED:
        known.clear()
    known[key] = value


def _by_resource(filters: Iterable[RowFilter]) -> dict[str, list[RowFilter]]:
    """Return the row filters of each resource they name, those of all resources in place; `*` for every other one."""
    found: dict[str, list[RowFilter]] = {"*": []}
    for each in filters:
        for name in [*found] if each.resource == "*" else [each.resource]:
            found.setdefault(name, [*found["*"]]).append(each)
    return found


def _gated(table: Table) -> set[tuple[str, str]]:
    """Return the resources of the rules that have conditions, with the names of these, each pair once."""
    if not any(table.used(RULE_FIELDS)):
        return set()
    pairs = set(zip(table.columns[2], table.columns[RULE_FIELDS], strict=True))
    return {(table.words[resource], table.words[names]) for resource, names in pairs if names}


def _field_gates(table: Table, gates: Gates) -> tuple[Gate, ...]:
    """Return the gates of the rules about field groups, each once."""
    named = {names for resource, names in _gated(table) if resource.startswith(FIELD_PREFIX)}
    return tuple(gates.gate(names) for names in sorted(named)) if gates.conditions else ()


def _partial(table: Table, conditions: Sequence[NamedCondition]) -> frozenset[str]:
    """Return the resources some rule of which is about some of the records only."""
    records = {each.name for each in conditions if isinstance(each.test, RecordAttribute)}
    if not records:
        return frozenset()
    return frozenset(resource for resource, names in _gated(table) if records.intersection(names.split("+")))


def _field_grants(shape: Shape, table: Table) -> tuple[FieldGrant, ...]:
    """Return the rules about field groups; what the model has no word for counts as any, and as allowed.

    One that denies under conditions is left out: the group may be seen.
    """
    if shape.request != REQUEST_FIELDS:
        raise Invalid("the model's request must be: sub, dom, obj, act, purpose")
    if "p_obj" not in shape.rule:
        raise Invalid("the model's policy must have the field obj")
    resources, found = table.columns[shape.rule.index("p_obj")], []
    groups = {number for word, number in table.ids.items() if word.startswith(FIELD_PREFIX)}
    places = [place for place, number in enumerate(resources) if number in groups] if groups else []
    for row in map(table.row, sorted(places, key=table.positions.__getitem__)):
        rule = {"p_sub": "*", "p_dom": "*", "p_act": "*", "p_purpose": "*", "p_eft": "allow"}
        rule.update(zip(shape.rule, row, strict=False))
        if rule["p_eft"] == "allow" or len(row) == len(shape.rule):
            group = rule["p_obj"].removeprefix(FIELD_PREFIX)
            names = ("p_sub", "p_dom", "p_act", "p_purpose", "p_eft")
            found.append(FieldGrant(group, *(rule[name] for name in names)))
    return tuple(found)
