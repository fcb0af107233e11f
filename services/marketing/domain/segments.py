"""Segments: a typed rule tree, checked when it is written rather than when a campaign needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kehu.analytics.v1 import audience_pb2 as pb

from services.chassis.errors import FieldViolation
from services.marketing.domain.errors import RuleInvalid

DEPTH_LIMIT = 8  # Segment.rule documents both
CONDITIONS_LIMIT = 100
ORDERED = frozenset({pb.OPERATOR_LT, pb.OPERATOR_LE, pb.OPERATOR_GT, pb.OPERATOR_GE})
NUMERIC_SCORES = frozenset({"rfm_recency", "rfm_frequency", "rfm_monetary"})
GENDERS = frozenset({"male", "female"})
CODES = frozenset({"province_code", "city_code", "district_code"})


@dataclass(frozen=True, slots=True)
class Segment:
    """People who fit a rule, found anew at each use."""

    segment_id: str
    display_name: str
    description: str
    rule: pb.AudienceRule
    owner_department: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


def checked_rule(rule: pb.AudienceRule) -> pb.AudienceRule:
    """Return the rule when it can be evaluated.

    Raises:
        RuleInvalid: naming the place of each fault.
    """
    faults = list(_faults(rule, "rule", 1))
    if sum(1 for _ in _conditions(rule)) > CONDITIONS_LIMIT:
        faults.append(FieldViolation("rule", f"must have at most {CONDITIONS_LIMIT} conditions"))
    if faults:
        raise RuleInvalid("the rule cannot be evaluated", violations=faults[:50])
    return rule


def _children(rule: pb.AudienceRule) -> list[tuple[str, pb.AudienceRule]]:
    kind = rule.WhichOneof("rule")
    if kind in ("all", "any"):
        group = rule.all if kind == "all" else rule.any
        return [(f"{kind}.rules[{index}]", child) for index, child in enumerate(group.rules)]
    return [("not", getattr(rule, "not"))] if kind == "not" else []


def _conditions(rule: pb.AudienceRule) -> Iterator[pb.AudienceRule]:
    children = _children(rule)
    if not children:
        yield rule
    for _, child in children:
        yield from _conditions(child)


def _faults(rule: pb.AudienceRule, place: str, depth: int) -> Iterator[FieldViolation]:
    if depth > DEPTH_LIMIT:
        yield FieldViolation(place, f"must be at most {DEPTH_LIMIT} levels deep")
        return
    match rule.WhichOneof("rule"):
        case None:
            yield FieldViolation(place, "must be a group, a negation or a condition")
        case "all" | "any" | "not":
            children = _children(rule)
            if not children:
                yield FieldViolation(place, "must have at least one rule")
            for step, child in children:
                yield from _faults(child, f"{place}.{step}", depth + 1)
        case "trait":
            yield from _trait_faults(rule.trait, f"{place}.trait")
        case "score":
            yield from _score_faults(rule.score, f"{place}.score")
        case "event":
            yield from _event_faults(rule.event, f"{place}.event")


def _value_faults(operator: int, values: list[str], place: str) -> Iterator[FieldViolation]:
    if not operator:
        yield FieldViolation(f"{place}.operator", "must be given")
    if not values or (len(values) > 1 and operator != pb.OPERATOR_IN):
        yield FieldViolation(f"{place}.values", "must be exactly one value, or several with OPERATOR_IN")


def _trait_faults(condition: pb.TraitCondition, place: str) -> Iterator[FieldViolation]:
    values = list(condition.values)
    yield from _value_faults(condition.operator, values, place)
    if condition.operator in ORDERED and condition.trait != "age":
        yield FieldViolation(f"{place}.operator", "orders only age")
    if condition.trait == "age" and not all(_is_digits(value, 3) and int(value) <= 150 for value in values):
        yield FieldViolation(f"{place}.values", "must be ages in full years")
    if condition.trait in CODES and not all(_is_digits(value, 6) and len(value) == 6 for value in values):
        yield FieldViolation(f"{place}.values", "must be GB/T 2260 codes of six digits")
    if condition.trait == "gender" and not GENDERS.issuperset(values):
        yield FieldViolation(f"{place}.values", "must be male or female")


def _is_digits(value: str, most: int) -> bool:
    """Say whether a value is written as profiles are: ０ to ９ of full width are no digits of theirs."""
    return value.isascii() and value.isdecimal() and len(value) <= most


def _score_faults(condition: pb.ScoreCondition, place: str) -> Iterator[FieldViolation]:
    values = list(condition.values)
    yield from _value_faults(condition.operator, values, place)
    is_numeric = condition.score in NUMERIC_SCORES
    if condition.operator in ORDERED and not is_numeric:
        yield FieldViolation(f"{place}.operator", "orders only the numeric scores")
    if is_numeric and not all(value in ("1", "2", "3", "4", "5") for value in values):
        yield FieldViolation(f"{place}.values", "must be 1 to 5")


def _event_faults(condition: pb.EventCondition, place: str) -> Iterator[FieldViolation]:
    if not condition.measure:
        yield FieldViolation(f"{place}.measure", "must be given")
    if condition.operator in (pb.OPERATOR_UNSPECIFIED, pb.OPERATOR_IN):
        yield FieldViolation(f"{place}.operator", "must be given, and not OPERATOR_IN")
