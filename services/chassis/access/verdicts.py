"""What the rules answer, and what anything that answers by them offers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from services.chassis.access.conditions import NO_FACTS, Facts, RecordAttribute
from services.chassis.access.roles import RoleClosure
from services.chassis.access.tables import Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed or not, the rule that settled it, and why when no rule did."""

    allowed: bool
    rule: Row = ()
    reason: str = ""


NO_RULE = Verdict(False, (), "NO_MATCHING_RULE")
EMPTY_FIELD = Verdict(False, (), "EMPTY_FIELD")
BROKEN = Verdict(False, (), "POLICY_ERROR")


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that answers a request, and which of the records it is about; no record condition means all."""

    row: Row
    allows: bool
    records: tuple[RecordAttribute, ...] = ()


class Rules(Protocol):
    """Something that answers requests by Casbin's semantics."""

    conditional: bool  # whether an answer may depend on the facts
    closure: RoleClosure  # who has which roles

    def decide(self, request: Row, facts: Facts = NO_FACTS) -> Verdict:
        """Answer one request, its fields in the order of the model's request definition."""

    def settle(self, request: Row, facts: Facts, heeded: frozenset[str]) -> tuple[Verdict, bool]:
        """Answer one request, and tell whether all of the same `heeded` names get this answer to it, at any time."""

    def heeded(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return those of the subject's names that rules or row filters are about; none when more than they counts."""

    def matches(self, request: Row, facts: Facts = NO_FACTS) -> list[Match]:
        """Return every rule that answers a request now, in the order of the rules."""

    def unmet(self, row: Row, facts: Facts) -> list[str]:
        """Return the names of a rule's conditions of the request that are not true."""

    def names(self, subject: str, domain: str, now: float = math.nan) -> frozenset[str]:
        """Return the subject and all roles it has in the domain; without a time, those that neither begin nor end."""
