"""Validation rules to and from their messages."""

from __future__ import annotations

from google.protobuf import json_format
from kehu.profiles.v1 import validation_pb2 as pb

from services.profiles.domain import validation as checks
from services.profiles.domain.cross_record import CrossCheck, Known, Rising, Shared
from services.profiles.domain.readings import DATE, NUMBER
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import Severity
from services.profiles.revised import Rulebook
from services.profiles.store import Store

KINDS = {
    pb.RangeCheck.KIND_NUMBER: NUMBER,
    pb.RangeCheck.KIND_DATE: DATE,
    pb.RangeCheck.KIND_LENGTH: checks.LENGTH,
}
RELATIONS = {
    pb.CompareCheck.RELATION_LESS: checks.LESS,
    pb.CompareCheck.RELATION_LESS_OR_EQUAL: checks.LESS_OR_EQUAL,
    pb.CompareCheck.RELATION_EQUAL: checks.EQUAL,
    pb.CompareCheck.RELATION_NOT_EQUAL: checks.NOT_EQUAL,
}


def validation_rules(store: Store) -> Rulebook[pb.ValidationRule]:
    """Return the validation rules of a store."""
    return Rulebook("validationRules", pb.ValidationRule, store.rules)


def domain_rule(rule_id: str, plain: str) -> Rule:
    """Return a revision as the domain knows it."""
    message = json_format.Parse(plain, pb.ValidationRule())
    is_grave = message.severity == pb.ValidationRule.SEVERITY_REJECT
    severity = Severity.REJECT if is_grave else Severity.WARNING
    return Rule(rule_id, message.field, _check(message), severity, message.source.rpartition("/")[2])


def _check(message: pb.ValidationRule) -> checks.Check | CrossCheck:
    kind = message.WhichOneof("check")
    if kind == "range":
        return checks.Range(KINDS[message.range.kind], message.range.least, message.range.most)
    if kind == "shape":
        return checks.Shape(tuple(message.shape.shapes))
    if kind == "list":
        return checks.Listed(frozenset(message.list.values))
    if kind == "compare":
        return checks.Compared(message.compare.other_field, RELATIONS[message.compare.relation])
    if kind == "shared":
        return Shared(message.shared.most, message.shared.among == pb.SharedCheck.AMONG_ALL)
    if kind == "known":
        return Known(message.known.source.rpartition("/")[2], message.known.field)
    return Rising() if kind == "rising" else checks.Present(message.present.when_field)
