"""pycasbin itself behind the same interface: for a matcher or an effect that the compiler does not know."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence

import casbin

from services.chassis.access.conditions import NO_FACTS, Facts
from services.chassis.access.roles import LINK_WORDS, NOBODY, RoleClosure, link_order
from services.chassis.access.tables import Row, Table
from services.chassis.access.verdicts import BROKEN, EMPTY_FIELD, NO_RULE, Match, Verdict

UNKNOWN_SUBJECTS = 10_000  # pycasbin remembers each name it is asked for; forget them after so many


class _Rows(casbin.persist.Adapter):  # type: ignore[misc]  # pycasbin is untyped
    """Hand rows to pycasbin without its CSV parsing and its quadratic `add_policies`."""

    def __init__(self, rows: Sequence[Row], links: Sequence[Row]) -> None:
        self.rows, self._links = rows, links

    def load_policy(self, model: casbin.Model) -> None:
        model["p"]["p"].policy = [list(row) for row in self.rows]
        if "g" in model.keys():  # noqa: SIM118  Model is no mapping
            model["g"]["g"].policy = [list(row) for row in self._links]


class PlainRules:
    """One pycasbin enforcer behind a lock: right for any matcher, a linear scan per decision; knows no condition."""

    conditional = False

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
        width = len(links[0]) if links else 3
        self.closure = RoleClosure(Table.of(links, LINK_WORDS, "g").sorted_by(link_order(width)), width)
        self._strangers = 0
        self._lock = threading.Lock()

    def decide(self, request: Row, facts: Facts = NO_FACTS) -> Verdict:
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

    def settle(self, request: Row, facts: Facts, heeded: frozenset[str]) -> tuple[Verdict, bool]:
        """Answer one request, for this subject alone."""
        return self.decide(request), False

    def heeded(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return nothing: a matcher may look at the subject itself."""
        return NOBODY

    def matches(self, request: Row, facts: Facts = NO_FACTS) -> list[Match]:
        """Return the rule that settles the request, if one allows it."""
        verdict = self.decide(request)
        return [Match(verdict.rule, True)] if verdict.allowed else []

    def unmet(self, row: Row, facts: Facts) -> list[str]:
        """Return nothing: there are no conditions."""
        return []

    def names(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return the subject and all roles it has in the domain."""
        return self.closure.names(subject, domain)

    def _forget_strangers(self, request: Row) -> None:
        if request[0] not in self._known or request[1] not in self._known:
            self._strangers += 1
            if self._strangers % UNKNOWN_SUBJECTS == 0:
                self._enforcer.build_role_links()
