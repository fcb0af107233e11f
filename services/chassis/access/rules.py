"""Casbin's model and rules answered from sorted columns; pycasbin itself for matchers the compiler does not know.

The compiled form answers exactly what pycasbin answers (tests/chassis/test_access.py compares them at
random), with two differences on purpose: no rule means no, and an empty field in a request means no.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import casbin

from services.chassis.access.conditions import NO_FACTS, Facts, Gate, Gates, NamedCondition, RecordAttribute
from services.chassis.access.matcher import Matcher, parse_matcher
from services.chassis.access.plain import PlainRules
from services.chassis.access.roles import LINK_WORDS, NOBODY, RoleClosure, link_order
from services.chassis.access.tables import Pause, Row, Span, Table, no_pause
from services.chassis.access.verdicts import EMPTY_FIELD, NO_RULE, Match, Verdict
from services.chassis.errors import Invalid

RULE_WORDS = 7  # with conditions
KNOWN_REQUESTS = 20_000  # department, resource, action, purpose: of which it is remembered where their rules are
ALLOW_AND_NO_DENY = "some(where (p_eft == allow)) && !some(where (p_eft == deny))"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model makes of rows: their columns, and the matcher when the compiler knows it, effect included."""

    request: tuple[str, ...]
    rule: tuple[str, ...]
    link_width: int
    matcher: Matcher | None

    @classmethod
    def of(cls, model_text: str) -> Shape:
        """Read Casbin's model.

        Raises:
            Invalid: it does not parse.
        """
        try:
            model = casbin.Enforcer.new_model(text=model_text)
            expression, effect = model["m"]["m"].value, model["e"]["e"].value
            request, rule = tuple(model["r"]["r"].tokens), tuple(model["p"]["p"].tokens)
            link_width = len(model["g"]["g"].tokens) if "g" in model.keys() else 0  # noqa: SIM118
        except Exception as error:
            raise Invalid("the model is not a Casbin model with r, p, e and m sections") from error
        matcher = parse_matcher(expression) if effect == ALLOW_AND_NO_DENY else None
        known = matcher is not None and _resolves(matcher, request, rule, link_width)
        return cls(request, rule, link_width, matcher if known else None)

    @property
    def order(self) -> tuple[int, ...]:
        """The columns that rules are sorted by: those that the request must equal, then whom the rule is for."""
        if self.matcher is None:
            return ()
        terms = [term.rule for term in self.matcher.equalities]
        return tuple(self.rule.index(name) for name in terms + ([self.matcher.role.rule] if self.matcher.role else []))

    @property
    def link_order(self) -> tuple[int, ...]:
        """The columns that role links are sorted by."""
        role = self.matcher.role if self.matcher else None
        return link_order(3 if role and role.domain else 2)

    def rules(self, rows: Iterable[Row] | Table) -> Table:
        """Return the rules as a table that decisions can search.

        A row may have one field more than the model: the names of its conditions, joined by "+".

        Raises:
            Invalid: a row is short or has an empty field, or has conditions and the matcher is one for pycasbin.
        """
        width = len(self.rule)
        table = rows if isinstance(rows, Table) else Table.of(rows, max(RULE_WORDS, width + 1))
        _check_width("p", table, width, width + 1 if self.matcher else width)
        return table.sorted_by(self.order)

    def links(self, rows: Iterable[Row] | Table) -> Table:
        """Return the role links as a table; one may have two fields more than the model: start and end.

        Raises:
            Invalid: a link is short or has an empty field, or has times and the matcher is one for pycasbin.
        """
        table = rows if isinstance(rows, Table) else Table.of(rows, LINK_WORDS, "g")
        width, timed = self.link_width, self.matcher is not None and self.matcher.role is not None
        _check_width("g", table, width, width + 2 if timed else width)
        return table.sorted_by(self.link_order)


class CompiledRules:
    """The rules as sorted columns; a decision halves its way to those of its request and names.

    Cost of a decision: one look-up of what was asked before, else two searches for each field and wildcard; then one
    for each of the subject's roles that rules are about.
    """

    def __init__(
        self,
        matcher: Matcher,
        shape: Shape,
        table: Table,
        links: Table,
        conditions: Iterable[NamedCondition] = (),
        pause: Pause = no_pause,
    ) -> None:
        """Take tables that `shape` sorted.

        Raises:
            Invalid: a rule names a condition that is not there.
        """
        self.table, self._width = table, len(shape.rule)
        self._request = tuple(shape.request.index(term.request) for term in matcher.equalities)
        self._wildcards = tuple(term.wildcard for term in matcher.equalities)
        self._subject = shape.request.index(matcher.role.subject) if matcher.role else -1
        self._domain = shape.request.index(matcher.role.domain) if matcher.role and matcher.role.domain else -1
        self._member = shape.rule.index(matcher.role.rule) if matcher.role else -1
        self._by_names = self._subject >= 0 and self._subject not in self._request
        pause()
        members = table.used(self._member) if matcher.role else ()
        self.closure = RoleClosure(links, 3 if self._domain >= 0 else 2)
        self.closure.heed(table.words[number] for number in members)
        pause()
        named, gates = table.used(self._width) - {0}, Gates.of(conditions)
        self._gates = {number: gates.gate(table.words[number]) for number in named}
        self._effect = table.columns[shape.rule.index("p_eft")] if "p_eft" in shape.rule else None
        self._says = {table.ids[word]: word == "allow" for word in ("allow", "deny") if word in table.ids}
        self._known: dict[Row, list[Span]] = {}
        self._verdicts: dict[int, Verdict] = {}
        self.conditional = self.closure.timed or bool(self._gates)

    def decide(self, request: Row, facts: Facts = NO_FACTS) -> Verdict:
        """Answer one request; a deny that matches wins over every allow.

        A rule about some of the records counts if it allows; if it denies, it only narrows (see `matches`).
        """
        return self.settle(request, facts, self._names(request, facts.now))[0]

    def settle(self, request: Row, facts: Facts, heeded: frozenset[str]) -> tuple[Verdict, bool]:
        """Answer one request, and tell whether no condition had a say."""
        if "" in request:
            return EMPTY_FIELD, True
        allow: list[int] = []
        deny: list[int] = []
        unmet: list[int] = []
        lasting = True
        for place, allows, gate in self._found(request, heeded if self._by_names else self._names(request, facts.now)):
            if gate is None:
                (allow if allows else deny).append(place)
                continue
            lasting, outcome = False, gate.outcome(facts)
            if allows:
                (allow if outcome is True else unmet).append(place)
            elif outcome is not False and not gate.records:
                deny.append(place)
        if deny:
            return self._verdict(self._first(deny), False), lasting
        if allow:
            return self._verdict(self._first(allow), True), lasting
        if unmet:
            return Verdict(False, self.table.row(self._first(unmet)), "CONDITION_NOT_MET"), False
        return NO_RULE, lasting

    def heeded(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return those of the subject's names that rules or row filters are about."""
        return self.closure.heeded(subject, domain, now) if self._by_names else NOBODY

    def matches(self, request: Row, facts: Facts = NO_FACTS) -> list[Match]:
        """Return every rule that answers a request now, in the order of the rules."""
        found: list[tuple[int, int, bool, tuple[RecordAttribute, ...]]] = []
        for place, allows, gate in self._found(request, self._names(request, facts.now)):
            outcome = gate.outcome(facts) if gate else True
            if outcome is True or (not allows and outcome is None):
                found.append((self.table.positions[place], place, allows, gate.records if gate else ()))
        found.sort(key=itemgetter(0))
        return [Match(self.table.row(place), allows, records) for _, place, allows, records in found]

    def unmet(self, row: Row, facts: Facts) -> list[str]:
        """Return the names of a rule's conditions of the request that are not true."""
        return self._gates[self.table.ids[row[self._width]]].unmet(facts) if len(row) > self._width else []

    def names(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""
        return self.closure.names(subject, domain, now)

    def _found(self, request: Row, names: frozenset[str]) -> list[tuple[int, bool, Gate | None]]:
        """Return the rules that say allow or deny to one of these names: where each is, which it says, when."""
        if not names:
            return []
        table, spans = self.table, self._spans(request)
        if self._member >= 0:
            spans = table.narrowed(spans, self._member, names)
        effects, says, conditions = self._effect, self._says, table.columns[self._width]
        found = []
        for low, high in spans:
            for place in range(low, high):
                allows = True if effects is None else says.get(effects[place])
                if allows is not None:
                    found.append((place, allows, self._gates.get(conditions[place])))
        return found

    def _spans(self, request: Row) -> list[Span]:
        """Return where the rules are whose fields equal the request's, or are wildcards; it is remembered."""
        asked = tuple([request[field] for field in self._request])
        known = self._known.get(asked)
        if known is None:
            known = self.table.whole
            for column, value, wildcard in zip(self.table.order, asked, self._wildcards, strict=False):
                known = self.table.narrowed(known, column, {value, wildcard or value})
            if len(self._known) >= KNOWN_REQUESTS:
                self._known.clear()
            self._known[asked] = known
        return known

    def _first(self, places: list[int]) -> int:
        """Return the place of the rule that was given first."""
        return min(places, key=self.table.positions.__getitem__)

    def _verdict(self, place: int, allowed: bool) -> Verdict:
        known = self._verdicts.get(place)
        if known is None or known.allowed != allowed:
            if len(self._verdicts) >= KNOWN_REQUESTS:
                self._verdicts.clear()
            known = Verdict(allowed, self.table.row(place), "ALLOWED" if allowed else "DENIED_BY_RULE")
            self._verdicts[place] = known
        return known

    def _names(self, request: Row, now: float) -> frozenset[str]:
        if self._subject < 0:
            return frozenset(("",))
        domain = request[self._domain] if self._domain >= 0 else ""
        return self.closure.heeded(request[self._subject], domain, now)


def build_rules(
    model_text: str,
    rows: Iterable[Row] | Table,
    links: Iterable[Row] | Table,
    conditions: Iterable[NamedCondition] = (),
    pause: Pause = no_pause,
) -> CompiledRules | PlainRules:
    """Return the compiled rules, or pycasbin's own when the matcher or effect is unknown to the compiler.

    Rows and links are what `Shape` takes. `pause` is called now and then.

    Raises:
        Invalid: the model does not parse, or a row or link is none of its own.
    """
    shape = Shape.of(model_text)
    return rules_of(shape, model_text, shape.rules(rows), shape.links(links), conditions, pause)


def rules_of(
    shape: Shape,
    model_text: str,
    table: Table,
    links: Table,
    conditions: Iterable[NamedCondition] = (),
    pause: Pause = no_pause,
) -> CompiledRules | PlainRules:
    """Return the rules of tables that `shape` checked and sorted."""
    if shape.matcher is not None:
        return CompiledRules(shape.matcher, shape, table, links, conditions, pause)
    return PlainRules(model_text, table.rows(), links.rows())


def _check_width(kind: str, table: Table, least: int, most: int) -> None:
    """Refuse rows that have neither the least nor the most fields."""
    if len(table.columns) < most:
        raise Invalid(f"the rules {kind} have too few columns")
    for number, column in enumerate(table.columns):
        if number < least and 0 in column:
            place = table.positions[column.index(0)]
            raise Invalid(f"rule {kind}[{place}] must have {least} fields, none of them empty")
        if number >= most and any(column):
            raise Invalid(f"a rule {kind} has more than {most} fields")
    more = table.columns[least:most]
    if len(more) > 1 and any(map(_differ, *more)):
        raise Invalid(f"a rule {kind} must have {least} or {most} fields")


def _differ(one: int, other: int) -> bool:
    return bool(one) != bool(other)


def _resolves(matcher: Matcher, request: tuple[str, ...], rule: tuple[str, ...], link_width: int) -> bool:
    """Tell whether each name of the matcher is a field of the model and g has the arity it is called with."""
    known = all(term.request in request and term.rule in rule for term in matcher.equalities)
    role = matcher.role
    if role is None:
        return known
    arity = 3 if role.domain else 2
    return (
        known
        and role.subject in request
        and role.rule in rule
        and arity == link_width
        and (role.domain is None or role.domain in request)
    )
