"""Rows out of reach stay out of reach in every method: one that cannot narrow by a field answers nobody it narrows."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import empty_pb2
from google.protobuf.descriptor import MethodDescriptor
from kehu.options.v1 import options_pb2 as options

from services.access.inventory import descriptors_path, read_inventory
from services.chassis.access import Condition, Obligations
from services.chassis.server import Serving, guard
from tests.access.canaries import reachable
from tests.access.oracle import WORDS, class_of
from tests.access.test_every_reply import METHODS, Canary, _adders, ask, rule_of
from tests.harness import Harness, running

OF_PEOPLE = [method for method in METHODS if rule_of(method).audience == options.AUDIENCE_PRINCIPAL]


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    validate, guard.validate = guard.validate, lambda request: None
    try:
        with running(Serving("profiles", [(adder, Canary()) for adder in _adders()])) as found:
            yield found
    finally:
        guard.validate = validate


def is_answered(harness: Harness, method: MethodDescriptor, field: str) -> bool:
    narrowed = Obligations(everything=True, row_filter=(Condition(field, ("x",)),))
    harness.policy.obligations = narrowed
    Canary.reply = empty_pb2.Empty()
    return not isinstance(ask(harness.stub(lambda channel: channel), method), grpc.StatusCode)


def test_a_method_answers_whom_a_row_filter_narrows_only_by_a_field_it_declares(harness: Harness) -> None:
    wrong = []
    for method in OF_PEOPLE:
        declared = set(rule_of(method).row_fields)
        for field in ("owner_department", "assignee", "tier", "no_such_field"):
            if is_answered(harness, method, field) is not bool(declared & {field, "*"}):
                wrong.append((method.name, field))

    assert wrong == []


def test_a_refusal_for_the_rows_is_audited(harness: Harness) -> None:
    harness.trail.entries.clear()

    assert not is_answered(harness, next(method for method in METHODS if method.name == "GetSource"), "tier")
    assert [(path.rpartition("/")[2], code) for _, path, _, code in harness.trail.entries] == [
        ("GetSource", "PERMISSION_DENIED")
    ]


def test_whoever_tells_of_persons_heeds_the_row_filters_about_persons() -> None:
    """What else carries personal fields has rows of its own, or, as a preview, the caller's own file."""
    telling = [method for method in OF_PEOPLE if _tells_of_persons(method)]
    apart = {rule_of(m).resource for m in telling if not {"profiles"} & {rule_of(m).resource, *rule_of(m).rows_of}}

    assert len(telling) > 40
    assert apart == {"tickets", "qualityIncidents", "sources"}
    assert all(rule_of(m).row_fields for m in telling if rule_of(m).resource in ("tickets", "qualityIncidents"))


def _tells_of_persons(method: MethodDescriptor) -> bool:
    found = [class_of(field) for field in reachable(method.output_type, {})]
    return any(each and each.classification in WORDS for each in found)


def test_the_policy_may_narrow_by_what_some_method_declares() -> None:
    rows = read_inventory(descriptors_path()).rows

    assert {"owner_department", "profile_id"} == rows["profiles"] - {"*"}
    assert "sources" not in rows
