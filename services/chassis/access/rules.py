"""Casbin's model and rules compiled to a hash index; pycasbin itself for matchers the compiler does not know.

The compiled form answers exactly what pycasbin answers (tests/chassis/test_access.py compares them at
random), with two differences on purpose: no rule means no, and an empty field in a request means no.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import casbin

from services.chassis.access.matcher import Matcher, parse_matcher
from services.chassis.errors import Invalid

ROLE_DEPTH = 9  # steps of role in role: pycasbin 2.8's RoleManager(10) gives up at the tenth, silently
UNKNOWN_SUBJECTS = 10_000  # pycasbin remembers each name it is asked for; forget them after so many
ALLOW_AND_NO_DENY = "some(where (p_eft == allow)) && !some(where (p_eft == deny))"

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed or not, the rule that settled it, and why when no rule did."""

    allowed: bool
    rule: Row = ()
    reason: str = ""


NO_RULE = Verdict(False, (), "NO_MATCHING_RULE")
EMPTY_FIELD = Verdict(False, (), "EMPTY_FIELD")
BROKEN = Verdict(False, (), "POLICY_ERROR")


class Rules(Protocol):
    """Something that answers requests by Casbin's semantics."""

    def decide(self, request: Row) -> Verdict:
        """Answer one request, its fields in the order of the model's request definition."""

    def names(self, subject: str, domain: str) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""


class RoleClosure:
    """The names a subject answers to within a domain, itself included; kept for subjects with a role."""

    def __init__(self, links: Iterable[Row]) -> None:
        """Take rows of (member, role) or (member, role, domain)."""
        self._direct: dict[tuple[str, str], list[str]] = {}
        for member, role, *domain in links:
            self._direct.setdefault((member, domain[0] if domain else ""), []).append(role)
        self._closed: dict[tuple[str, str], frozenset[str]] = {}

    def names(self, subject: str, domain: str) -> frozenset[str]:
        """Return the subject and every role it reaches; unknown subjects cost no memory."""
        key = (subject, domain)
        known = self._closed.get(key)
        if known is None:
            if key not in self._direct:
                return frozenset((subject,))
            known = self._closed[key] = self._walk(subject, domain)
        return known

    def _walk(self, subject: str, domain: str) -> frozenset[str]:
        reached, edge = {subject}, [subject]
        for _ in range(ROLE_DEPTH):
            edge = [role for name in edge for role in self._direct.get((name, domain), ()) if role not in reached]
            reached.update(edge)
        return frozenset(reached)


@dataclass(slots=True)
class _Grant:
    """The first allowing and the first denying rule of one key and subject; -1 for none."""

    allow: int = -1
    deny: int = -1


class CompiledRules:
    """The hash index: rule key → subject → first allow and deny; a decision looks up a few keys.

    Cost of a decision: one look-up per combination of wildcards in use, then the smaller of the subject's
    roles and the key's subjects.
    """

    def __init__(self, matcher: Matcher, model: casbin.Model, rows: Sequence[Row], links: Sequence[Row]) -> None:
        """Index the rows; `matcher` is the parsed form of the model's own."""
        r_tokens, p_tokens = model["r"]["r"].tokens, model["p"]["p"].tokens
        self._rows = rows
        self._request = tuple(r_tokens.index(term.request) for term in matcher.equalities)
        self._subject = r_tokens.index(matcher.role.subject) if matcher.role else -1
        self._domain = r_tokens.index(matcher.role.domain) if matcher.role and matcher.role.domain else -1
        self._closure = RoleClosure(links)
        self._buckets: dict[Row, dict[str, _Grant]] = {}
        rule = tuple(p_tokens.index(term.rule) for term in matcher.equalities)
        wildcards = tuple(term.wildcard for term in matcher.equalities)
        member = p_tokens.index(matcher.role.rule) if matcher.role else -1
        effect = p_tokens.index("p_eft") if "p_eft" in p_tokens else -1
        masks: set[tuple[bool, ...]] = set()
        for position, row in enumerate(rows):
            key = tuple(row[index] for index in rule)
            masks.add(tuple(value == wildcard for value, wildcard in zip(key, wildcards, strict=True)))
            grant = self._buckets.setdefault(key, {}).setdefault(row[member] if matcher.role else "", _Grant())
            _note(grant, position, row[effect] if effect >= 0 else "allow")
        self._keys = tuple(_key_maker(self._request, mask, len(r_tokens)) for mask in sorted(masks))
        self._wildcards = tuple(wildcard or "" for wildcard in wildcards)
        self._denials = tuple(Verdict(False, row, "DENIED_BY_RULE") for row in rows)
        self._allowances = tuple(Verdict(True, row, "ALLOWED") for row in rows)

    def decide(self, request: Row) -> Verdict:
        """Answer one request; a deny that matches wins over every allow."""
        if not all(request):
            return EMPTY_FIELD
        names = self._names(request)
        values = request + self._wildcards
        buckets = self._buckets
        allow = deny = len(self._rows)
        for key_of in self._keys:
            bucket = buckets.get(key_of(values))
            if bucket:
                for grant in _shared(bucket, names):
                    if 0 <= grant.deny < deny:
                        deny = grant.deny
                    if 0 <= grant.allow < allow:
                        allow = grant.allow
        if deny < len(self._rows):
            return self._denials[deny]
        return self._allowances[allow] if allow < len(self._rows) else NO_RULE

    def names(self, subject: str, domain: str) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""
        return self._closure.names(subject, domain)

    def _names(self, request: Row) -> frozenset[str]:
        if self._subject < 0:
            return frozenset(("",))
        domain = request[self._domain] if self._domain >= 0 else ""
        return self._closure.names(request[self._subject], domain)


def _key_maker(fields: Sequence[int], mask: Sequence[bool], width: int) -> Callable[[Row], Row]:
    """Return what picks an index key out of a request followed by the wildcards, one per field."""
    picked = [
        width + position if is_wild else field
        for position, (field, is_wild) in enumerate(zip(fields, mask, strict=True))
    ]
    return itemgetter(*picked) if len(picked) > 1 else lambda values: tuple(values[index] for index in picked)


def _note(grant: _Grant, position: int, effect: str) -> None:
    if effect == "allow" and grant.allow < 0:
        grant.allow = position
    elif effect == "deny" and grant.deny < 0:
        grant.deny = position


def _shared(bucket: Mapping[str, _Grant], names: frozenset[str]) -> list[_Grant]:
    if len(bucket) < len(names):
        return [grant for name, grant in bucket.items() if name in names]
    return [bucket[name] for name in names if name in bucket]


class _Rows(casbin.persist.Adapter):  # type: ignore[misc]  # pycasbin is untyped
    """Hand rows to pycasbin without its CSV parsing and its quadratic `add_policies`."""

    def __init__(self, rows: Sequence[Row], links: Sequence[Row]) -> None:
        self._rows, self._links = rows, links

    def load_policy(self, model: casbin.Model) -> None:
        model["p"]["p"].policy = [list(row) for row in self._rows]
        if "g" in model.keys():  # noqa: SIM118  Model is no mapping
            model["g"]["g"].policy = [list(row) for row in self._links]


class PlainRules:
    """One pycasbin enforcer behind a lock: right for any matcher, a linear scan per decision."""

    def __init__(self, model_text: str, rows: Sequence[Row], links: Sequence[Row]) -> None:
        """Load the rows; raises what pycasbin raises for a model or row it refuses."""
        logging.getLogger("casbin").disabled = True  # it logs each denied request with its raw values
        self._enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=model_text))
        if "g" in self._enforcer.rm_map:
            # DomainManager compares every pair of names else: 56 s for 3,000 users (reliability.md §3).
            self._enforcer.get_role_manager().add_matching_func(None)
        self._enforcer.set_adapter(_Rows(rows, links))
        self._enforcer.load_policy()
        self._known = frozenset(name for row in (*rows, *links) for name in row)
        self._closure = RoleClosure(links)
        self._strangers = 0
        self._lock = threading.Lock()

    def decide(self, request: Row) -> Verdict:
        """Answer one request; any failure inside pycasbin is a no."""
        if not all(request):
            return EMPTY_FIELD
        with self._lock:
            if not self._enforcer.get_policy():
                return NO_RULE
            self._forget_strangers(request)
            try:
                allowed, rule = self._enforcer.enforce_ex(*request)
            except Exception:  # a rule that breaks the matcher must not open the door
                return BROKEN
        if allowed:
            return Verdict(True, tuple(rule), "ALLOWED")
        return Verdict(False, tuple(rule), "DENIED_BY_RULE") if rule and rule[-1] == "deny" else NO_RULE

    def names(self, subject: str, domain: str) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""
        return self._closure.names(subject, domain)

    def _forget_strangers(self, request: Row) -> None:
        if request[0] not in self._known or request[1] not in self._known:
            self._strangers += 1
            if self._strangers % UNKNOWN_SUBJECTS == 0:
                self._enforcer.build_role_links()


def build_rules(model_text: str, rows: Sequence[Row], links: Sequence[Row]) -> CompiledRules | PlainRules:
    """Return the compiled rules, or pycasbin's own when the matcher or effect is unknown to the compiler.

    Raises:
        Invalid: the model does not parse, or a row is short or has an empty field.
    """
    try:
        model = casbin.Enforcer.new_model(text=model_text)
        expression, effect = model["m"]["m"].value, model["e"]["e"].value
        width = len(model["p"]["p"].tokens)
        link_width = len(model["g"]["g"].tokens) if "g" in model.keys() else 0  # noqa: SIM118
    except Exception as error:
        raise Invalid("the model is not a Casbin model with r, p, e and m sections") from error
    _check_width("p", rows, width)
    _check_width("g", links, link_width)
    matcher = parse_matcher(expression)
    if matcher and _resolves(matcher, model, link_width) and effect == ALLOW_AND_NO_DENY:
        return CompiledRules(matcher, model, rows, links)
    return PlainRules(model_text, rows, links)


def _check_width(kind: str, rows: Sequence[Row], width: int) -> None:
    for position, row in enumerate(rows):
        if len(row) != width or not all(isinstance(value, str) and value for value in row):
            raise Invalid(f"rule {kind}[{position}] must have {width} fields, none of them empty")


def _resolves(matcher: Matcher, model: casbin.Model, link_width: int) -> bool:
    """Tell whether each name of the matcher is a field of the model and g has the arity it is called with."""
    r_tokens, p_tokens = model["r"]["r"].tokens, model["p"]["p"].tokens
    known = all(term.request in r_tokens and term.rule in p_tokens for term in matcher.equalities)
    role = matcher.role
    if role is None:
        return known
    arity = 3 if role.domain else 2
    return (
        known
        and role.subject in r_tokens
        and role.rule in p_tokens
        and arity == link_width
        and (role.domain is None or role.domain in r_tokens)
    )
