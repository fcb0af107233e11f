"""A policy larger than one request is drafted in parts, read in parts, and published like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb

from services.access.domain.policies import MOST_RULES
from services.access.methods.messages import rule_message
from services.access.publication import MOST_POLICY_BYTES
from tests.access.stores import BOTH, emptied
from tests.access.test_api import SECOND, new_person
from tests.access.test_flow import publish
from tests.access.world import World, running_world
from tests.harness import bad_fields, refused

PART, MANY = 9_000, 100_000
BODY = 1024 * 1024  # what the gateway takes as a body


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def rules_of(count: int) -> list[tuple[str, ...]]:
    """Return so many rules of people in departments, none like another."""
    departments = ("sales", "service", "marketing", "analytics", "data-office")
    return [
        (f"user:p{n // 20:05d}", departments[n % 5], "profiles", ("read", "list", "lookup", "read_lineage")[n // 5 % 4],
         "*", "allow")
        for n in range(count)
    ]  # fmt: skip


def extend(world: World, draft: pb.Policy, rules: list[tuple[str, ...]], caller: str = "") -> pb.Policy:
    request = pb.ExtendPolicyRequest(
        policy_id=draft.name.partition("/")[2], rules=map(rule_message, rules), etag=draft.etag
    )
    assert request.ByteSize() < BODY
    stub = world.stub(caller) if caller else world.stub()
    return stub.ExtendPolicy(request, timeout=30)


def drafted(world: World) -> pb.Policy:
    current = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=10)
    draft = pb.Policy(comment="every person by name", rules=current.rules, row_filters=current.row_filters)
    return world.stub().CreatePolicy(pb.CreatePolicyRequest(policy=draft), timeout=10)


@pytest.mark.timeout(300)
def test_a_hundred_thousand_rules_are_drafted_in_parts_and_published(world: World) -> None:
    new_person(world, "second")
    draft, rules = drafted(world), rules_of(MANY)
    first = draft.rule_count
    for start in range(0, MANY, PART):
        draft = extend(world, draft, rules[start : start + PART])
        assert not draft.rules, "the reply leaves them out"
    began = time.monotonic()
    in_force = publish(world, draft.name.partition("/")[2])
    seconds = time.monotonic() - began

    assert (in_force.rule_count, in_force.state) == (MANY + first, pb.POLICY_STATE_PUBLISHED)
    read: list[tuple[str, ...]] = []
    while len(read) < in_force.rule_count:
        request = pb.GetPolicyRequest(policy_id="current", first_rule=len(read))
        page = world.stub().GetPolicy(request, timeout=10)
        assert page.rules and page.ByteSize() < 4 * 1024 * 1024
        read += [(r.subject, r.department, r.resource, r.action, r.purpose, r.effect) for r in page.rules]
    assert read[first:] == rules
    asked = pb.ExplainAccessRequest(
        subject="user:p04999", department="data-office", resource="profiles", action="read_lineage", purpose="x"
    )
    assert world.stub().ExplainAccess(asked, timeout=30).allowed
    print(f"submitted, approved and in force in {seconds:.1f} s")


def test_of_a_part_sent_twice_one_is_taken(world: World) -> None:
    draft = drafted(world)
    longer = extend(world, draft, rules_of(3))

    assert refused(lambda: extend(world, draft, rules_of(3))).reason == "ETAG_MISMATCH"
    assert longer.rule_count == draft.rule_count + 3


def test_only_the_author_adds_and_only_to_a_draft(world: World) -> None:
    new_person(world, "second")
    draft = drafted(world)
    assert refused(lambda: extend(world, draft, rules_of(1), SECOND)).reason == "POLICY_STATE"
    in_force = publish(world, draft.name.partition("/")[2])
    assert refused(lambda: extend(world, in_force, rules_of(1))).reason == "POLICY_STATE"


def test_more_than_a_revision_holds_is_refused_and_nothing_of_it_is_kept(world: World) -> None:
    draft = drafted(world)
    for _ in range(MOST_RULES // 12_000 - 1):
        draft = extend(world, draft, [("user:p", "sales", "profiles", "read", "*", "allow")] * 12_000)
    with pytest.raises(grpc.RpcError):
        extend(world, draft, [("user:p", "sales", "profiles", "read", "*", "allow")] * 12_000)
    many = [("user:p", "sales", "profiles", "read", "*", "allow")] * 12_000
    assert bad_fields(lambda: extend(world, draft, many)) == ["rules"]
    kept = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id=draft.name.partition("/")[2]), timeout=10)
    assert (kept.rule_count, kept.etag) == (draft.rule_count, draft.etag)


def test_a_policy_too_large_to_reach_the_processes_is_refused_before_it_is_in_force(world: World, monkeypatch) -> None:
    """The largest with names of its own on every rule fits."""
    draft = extend(world, drafted(world), rules_of(200))
    policy_id = draft.name.partition("/")[2]
    policy = world.context.policies.get(policy_id)
    assert policy is not None
    most = replace(policy.content, rules=tuple(rules_of(MOST_RULES)))
    assert world.context.directory.bytes_of(most) < MOST_POLICY_BYTES / 2

    monkeypatch.setattr("services.access.methods.policies.MOST_POLICY_BYTES", 1_000)

    assert bad_fields(lambda: world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=30)) == [
        "rules"
    ]
    monkeypatch.undo()
    assert publish(world, policy_id).state == pb.POLICY_STATE_PUBLISHED


@pytest.mark.parametrize("store", BOTH)
def test_either_store_keeps_a_draft_of_a_hundred_thousand_rules(store: str, request: pytest.FixtureRequest) -> None:
    from services.access.domain.policies import Content, Policy
    from services.access.store.memory import MemoryPolicies
    from services.access.store.mongo import MongoPolicies

    policy = Policy("a1", "draft", 0, 1, "", Content(tuple(rules_of(MANY))), "user:ann")
    if store == "memory":
        assert MemoryPolicies().insert(policy).content == policy.content
        return
    with emptied(request, "policies"):
        stored = MongoPolicies().insert(policy)
        assert MongoPolicies().get("a1") is not None
        assert MongoPolicies().get("a1").content.rules == stored.content.rules == policy.content.rules
