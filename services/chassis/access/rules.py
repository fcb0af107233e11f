"""Casbin's model and rules compiled to a hash index; pycasbin itself for matchers the compiler does not know.

The compiled form answers exactly what pycasbin answers (tests/chassis/test_access.py compares them at
random), with two differences on purpose: no rule means no, and an empty field in a request means no.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter

import casbin

from services.chassis.access.conditions import NO_FACTS, Facts, Gate, Gates, NamedCondition, RecordAttribute
from services.chassis.access.matcher import Matcher, parse_matcher
from services.chassis.access.plain import PlainRules
from services.chassis.access.roles import NOBODY, SLICE, Pause, RoleClosure, Row, in_slices, no_pause
from services.chassis.access.verdicts import EMPTY_FIELD, NO_RULE, Match, Verdict
from services.chassis.errors import Invalid

RULE_WORDS, LINK_WORDS = 7, 5  # with conditions, and with start and end
KNOWN_REQUESTS = 20_000  # department, resource, action, purpose: of which it is remembered where they are indexed
ALLOW_AND_NO_DENY = "some(where (p_eft == allow)) && !some(where (p_eft == deny))"


NONE = sys.maxsize


@dataclass(slots=True)
class _Grant:
    """The first allowing and the first denying rule of one key and subject, NONE for none; those with conditions."""

    allow: int = NONE
    deny: int = NONE
    gated: tuple[tuple[int, bool, Gate], ...] = ()


NO_GRANTS: list[_Grant] = []


class CompiledRules:
    """The hash index: rule key → subject → first allow and deny; a decision looks up a few keys.

    Cost of a decision: one look-up of what was asked before, else one per combination of wildcards in use; then the
    smaller of the subject's roles and the key's subjects.
    """

    def __init__(
        self,
        matcher: Matcher,
        model: casbin.Model,
        rows: Sequence[Row],
        links: Sequence[Row],
        conditions: Iterable[NamedCondition] = (),
        pause: Pause = no_pause,
    ) -> None:
        """Index the rows; `matcher` is the parsed form of the model's own.

        Raises:
            Invalid: a rule names a condition that is not there.
        """
        r_tokens, p_tokens = model["r"]["r"].tokens, model["p"]["p"].tokens
        self.rows, self._width = rows, len(p_tokens)
        self._request = tuple(r_tokens.index(term.request) for term in matcher.equalities)
        self._subject = r_tokens.index(matcher.role.subject) if matcher.role else -1
        self._domain = r_tokens.index(matcher.role.domain) if matcher.role and matcher.role.domain else -1
        self._by_names = self._subject >= 0 and self._subject not in self._request
        self.closure = RoleClosure(links, 3 if self._domain >= 0 else 2, pause)
        self._gates = Gates.of(conditions)
        self._buckets: dict[Row, dict[str, _Grant]] = {}
        self._index(matcher, p_tokens, pause)
        for bucket in in_slices(self._buckets.values(), pause):
            self.closure.heed(bucket)
        wildcards = tuple(term.wildcard for term in matcher.equalities)
        masks = {tuple(map(operator.eq, key, wildcards)) for key in in_slices(self._buckets, pause)}
        self._keys = tuple(_key_maker(self._request, mask, len(r_tokens)) for mask in sorted(masks))
        self._wildcards = tuple(wildcard or "" for wildcard in wildcards)
        self._asked = _tuple_getter(self._request)
        self._known: dict[Row, tuple[dict[str, _Grant], ...]] = {}
        self._verdicts: dict[int, Verdict] = {}
        self.conditional = self.closure.timed or bool(self._gates.used)

    def decide(self, request: Row, facts: Facts = NO_FACTS) -> Verdict:
        """Answer one request; a deny that matches wins over every allow.

        A rule about some of the records counts if it allows; if it denies, it only narrows (see `matches`).
        """
        return self.settle(request, facts, self._names(request, facts.now))[0]

    def settle(self, request: Row, facts: Facts, heeded: frozenset[str]) -> tuple[Verdict, bool]:
        """Answer one request, and tell whether no condition had a say."""
        if "" in request:
            return EMPTY_FIELD, True
        none = allow = deny = len(self.rows)
        gated: tuple[tuple[int, bool, Gate], ...] = ()
        for grant in self._grants(request, heeded if self._by_names else self._names(request, facts.now)):
            if grant.deny < deny:
                deny = grant.deny
            if grant.allow < allow:
                allow = grant.allow
            if grant.gated:
                gated += grant.gated
        unmet = none
        for position, allows, gate in gated:
            outcome = gate.outcome(facts)
            if allows and outcome is True:
                allow = min(allow, position)
            elif allows:
                unmet = min(unmet, position)
            elif outcome is not False and not gate.records:
                deny = min(deny, position)
        if deny < none:
            return self._verdict(deny, False), not gated
        if allow < none:
            return self._verdict(allow, True), not gated
        return (NO_RULE, not gated) if unmet == none else (Verdict(False, self.rows[unmet], "CONDITION_NOT_MET"), False)

    def heeded(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return those of the subject's names that rules or row filters are about."""
        return self.closure.heeded(subject, domain, now) if self._by_names else NOBODY

    def matches(self, request: Row, facts: Facts = NO_FACTS) -> list[Match]:
        """Return every rule that answers a request now, in the order of the rules."""
        found: list[tuple[int, bool, tuple[RecordAttribute, ...]]] = []
        for grant in self._grants(request, self._names(request, facts.now)):
            plain = ((grant.allow, True), (grant.deny, False))
            found += [(position, allows, ()) for position, allows in plain if position < NONE]
            for position, allows, gate in grant.gated:
                outcome = gate.outcome(facts)
                if outcome is True or (not allows and outcome is None):
                    found.append((position, allows, gate.records))
        found.sort(key=itemgetter(0))
        return [Match(self.rows[position], allows, records) for position, allows, records in found]

    def unmet(self, row: Row, facts: Facts) -> list[str]:
        """Return the names of a rule's conditions of the request that are not true."""
        return self._gates.gate(row[self._width]).unmet(facts) if len(row) > self._width else []

    def names(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""
        return self.closure.names(subject, domain, now)

    def dismantle(self, pause: Pause) -> None:
        """Let go of everything bit by bit; asked by mistake afterwards, it denies. To free all at once holds all up."""
        rows = list(self.rows)
        self.rows, self._verdicts = (), {}
        for parts in (self._known, self._buckets, self.closure.parts):
            while parts:
                for _ in range(min(SLICE, len(parts))):
                    parts.popitem()
                pause()
        while rows:
            del rows[-SLICE:]
            pause()

    def _index(self, matcher: Matcher, p_tokens: Sequence[str], pause: Pause) -> None:
        key_of = _tuple_getter([p_tokens.index(term.rule) for term in matcher.equalities])
        member = p_tokens.index(matcher.role.rule) if matcher.role else -1
        effect = p_tokens.index("p_eft") if "p_eft" in p_tokens else -1
        buckets, width = self._buckets, self._width
        for position, row in enumerate(in_slices(self.rows, pause)):
            key = key_of(row)
            bucket = buckets.get(key)
            if bucket is None:
                bucket = buckets[key] = {}
            name = row[member] if member >= 0 else ""
            grant = bucket.get(name)
            if grant is None:
                grant = bucket[name] = _Grant()
            word = row[effect] if effect >= 0 else "allow"
            if len(row) > width:
                _note_gated(grant, position, word, self._gates.gate(row[width]))
            elif word == "allow" and grant.allow == NONE:
                grant.allow = position
            elif word == "deny" and grant.deny == NONE:
                grant.deny = position

    def _grants(self, request: Row, names: frozenset[str]) -> list[_Grant]:
        """Return the grants of every key of the request that are for one of these names."""
        if not names:
            return NO_GRANTS
        asked = self._asked(request)
        buckets = self._known.get(asked)
        if buckets is None:
            buckets = self._buckets_of(request, asked)
        if not buckets:
            return NO_GRANTS
        if len(buckets[0]) < len(names):
            return [grant for bucket in buckets for name, grant in bucket.items() if name in names]
        return [bucket[name] for bucket in buckets for name in names if name in bucket]

    def _buckets_of(self, request: Row, asked: Row) -> tuple[dict[str, _Grant], ...]:
        """Look a request up under each combination of wildcards in use, and remember what was found."""
        values = request + self._wildcards
        found = [self._buckets.get(key_of(values)) for key_of in self._keys]
        if len(self._known) >= KNOWN_REQUESTS:
            self._known.clear()
        buckets = self._known[asked] = tuple(bucket for bucket in found if bucket)
        return buckets

    def _verdict(self, position: int, allowed: bool) -> Verdict:
        key = position if allowed else ~position
        known = self._verdicts.get(key)
        if known is None:
            made = Verdict(allowed, self.rows[position], "ALLOWED" if allowed else "DENIED_BY_RULE")
            known = self._verdicts[key] = made
        return known

    def _names(self, request: Row, now: float) -> frozenset[str]:
        if self._subject < 0:
            return frozenset(("",))
        domain = request[self._domain] if self._domain >= 0 else ""
        return self.closure.heeded(request[self._subject], domain, now)


def _tuple_getter(positions: Sequence[int]) -> Callable[[Row], Row]:
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda values: tuple(values[index] for index in positions)


def _key_maker(fields: Sequence[int], mask: Sequence[bool], width: int) -> Callable[[Row], Row]:
    """Return what picks an index key out of a request followed by the wildcards, one per field."""
    picked = [
        width + position if is_wild else field
        for position, (field, is_wild) in enumerate(zip(fields, mask, strict=True))
    ]
    return _tuple_getter(picked)


def _note_gated(grant: _Grant, position: int, effect: str, gate: Gate) -> None:
    if effect in ("allow", "deny"):
        grant.gated = (*grant.gated, (position, effect == "allow", gate))


def build_rules(
    model_text: str,
    rows: Sequence[Row],
    links: Sequence[Row],
    conditions: Iterable[NamedCondition] = (),
    pause: Pause = no_pause,
) -> CompiledRules | PlainRules:
    """Return the compiled rules, or pycasbin's own when the matcher or effect is unknown to the compiler.

    A row may have one field more than the model: the names of its conditions, joined by "+". A link may have two
    more: start and end. `pause` is called now and then.

    Raises:
        Invalid: the model does not parse, a row is short or has an empty field, or a row or link has conditions or
            times and the matcher is one for pycasbin, which knows neither.
    """
    try:
        model = casbin.Enforcer.new_model(text=model_text)
        expression, effect = model["m"]["m"].value, model["e"]["e"].value
        width = len(model["p"]["p"].tokens)
        link_width = len(model["g"]["g"].tokens) if "g" in model.keys() else 0  # noqa: SIM118
    except Exception as error:
        raise Invalid("the model is not a Casbin model with r, p, e and m sections") from error
    matcher = parse_matcher(expression)
    known = matcher is not None and _resolves(matcher, model, link_width) and effect == ALLOW_AND_NO_DENY
    _check_width("p", rows, (width, width + 1) if known else (width,), pause)
    timed = known and matcher is not None and matcher.role is not None
    _check_width("g", links, (link_width, link_width + 2) if timed else (link_width,), pause)
    if known and matcher is not None:
        return CompiledRules(matcher, model, rows, links, conditions, pause)
    return PlainRules(model_text, rows, links)


def _check_width(kind: str, rows: Sequence[Row], widths: tuple[int, ...], pause: Pause) -> None:
    for position, row in enumerate(in_slices(rows, pause)):
        if len(row) not in widths or not all(row) or not all(map(isinstance, row, repeat(str))):
            raise Invalid(f"rule {kind}[{position}] must have {widths[0]} fields, none of them empty")


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
