"""Validation rules to and from their messages."""

from __future__ import annotations

from google.protobuf import json_format
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.records import etag_of
from services.profiles.domain import validation as checks
from services.profiles.domain.cross_record import CrossCheck, Known, Rising, Shared
from services.profiles.domain.readings import DATE, NUMBER
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import Severity
from services.profiles.values import StoredRule

OUTPUT = ("name", "revision", "active_revision", "trial", "create_time", "update_time", "etag")
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


def plain_of(message: pb.ValidationRule) -> str:
    """Return what of a rule makes a revision, as JSON."""
    kept = pb.ValidationRule()
    kept.CopyFrom(message)
    for name in OUTPUT:
        kept.ClearField(name)  # type: ignore[arg-type]
    return json_format.MessageToJson(kept, preserving_proto_field_name=True, indent=None, ensure_ascii=False)


def rule_message(rule: StoredRule) -> pb.ValidationRule:
    """Return the message of a rule: its latest revision."""
    message = json_format.Parse(rule.latest, pb.ValidationRule())
    message.name = f"validationRules/{rule.id}"
    message.revision, message.active_revision = rule.revision, rule.active_revision
    if rule.trial:
        json_format.Parse(rule.trial, message.trial)
    if rule.create_time and rule.update_time:
        message.create_time.FromDatetime(rule.create_time)
        message.update_time.FromDatetime(rule.update_time)
    message.etag = etag_of(rule.version)
    return message


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
