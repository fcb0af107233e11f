"""Who may do this, what may they do, and what is missing: the same answers as the decisions themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.access.domain.principals import Principal
from services.access.domain.vocabulary import PURPOSES
from services.chassis.access import Caller, PolicySnapshot
from tests.access.test_api import refusal
from tests.access.test_decisions import TABLES, load, policy, rows
from tests.access.test_flow import publish
from tests.access.test_review import draft
from tests.access.world import World, running_world

ROLES = {"marketing": "marketer", "service": "agent", "sales": "seller", "analytics": "analyst",
         "data-office": "steward", "administration": "administrator"}  # fmt: skip


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        for number in range(24):
            department = sorted(ROLES)[number % 6]
            roles = (f"role:{ROLES[department]}",) if number % 5 else ()
            enabled = number != 7
            person = Principal("user", f"p{number:02}", department, roles, "", enabled=enabled)
            running.context.principals.insert(person)
        running.context.directory.refresh(at_once=True)
        yield running


def who(world: World, resource: str, action: str, **how: object) -> list[review_pb2.AblePerson]:
    found, token = [], ""
    while True:
        request = review_pb2.WhoCanRequest(resource=resource, action=action, page_token=token, **how)
        page = world.stub().WhoCan(request, timeout=20)
        found += page.people
        token = page.next_page_token
        if not token:
            return found


def what(world: World, subject: str, **how: object) -> review_pb2.WhatCanResponse:
    return world.stub().WhatCan(review_pb2.WhatCanRequest(subject=subject, **how), timeout=20)


def test_who_can_names_exactly_those_whom_the_policy_would_let_in(world: World) -> None:
    snapshot, people = world.context.directory.snapshot(), world.context.directory.everybody()
    assert "user:p07" not in dict(people), "who is disabled may nothing"
    for resource, action in [("profiles", "read"), ("segments", "list"), ("policies", "approve"), ("tickets", "read")]:
        callers = [Caller(s, s.partition(":")[0], d, p) for s, d in people for p in ("", *PURPOSES)]
        expected = {caller.subject for caller in callers if snapshot.decide(caller, resource, action).allowed}

        found = who(world, resource, action, page_size=3)

        assert [person.subject for person in found] == sorted(expected)
        assert expected


def test_who_can_gives_the_rule_the_fields_and_the_rows(world: World) -> None:
    (first, *_) = who(world, "qualityReports", "read", purpose="sales")

    assert list(first.purposes) == ["sales"]
    sellers = [
        person for person in who(world, "qualityReports", "read", purpose="sales") if person.department == "sales"
    ]
    assert sellers[0].rule == "role:seller in sales may read qualityReports"
    assert sellers[0].rows == "owner_department in ($department)"
    assert "personal/contact" in sellers[0].shown_groups


def test_of_a_record_only_those_who_reach_it_are_named(world: World) -> None:
    found = who(world, "qualityReports", "read", record={"owner_department": "sales"})

    departments = {person.department for person in found}
    assert "sales" in departments
    assert departments & {"marketing", "service"} == set(), "they see what their own department owns"
    assert "data-office" in departments, "stewards see all"


def test_a_method_that_nobody_has_is_refused(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        who(world, "profiles", "fly")

    assert refusal(caught.value)[0] == "INVALID_ARGUMENT"


def test_a_page_takes_bounded_time_among_many_who_may_not(world: World) -> None:
    principals = world.context.principals
    for number in range(6_000):
        principals.insert(Principal("user", f"n{number:05}", "sales", ("role:seller",), ""))
    world.context.directory.refresh(at_once=True)
    request = review_pb2.WhoCanRequest(resource="segments", action="list")
    world.stub().WhoCan(request, timeout=60)  # compiled and warm
    began = time.perf_counter()

    page = world.stub().WhoCan(request, timeout=60)

    assert time.perf_counter() - began < 3
    assert page.next_page_token, "a short page that is not the last"
    assert len(who(world, "segments", "list")) == len(who(world, "segments", "list", page_size=1000)) > 0


def test_what_can_lists_exactly_what_the_policy_lets_them(world: World) -> None:
    snapshot, actions = world.context.directory.snapshot(), world.context.inventory.actions
    for subject, department in world.context.directory.everybody():
        callers = [Caller(subject, "user", department, purpose) for purpose in ("", *PURPOSES)]
        expected = [
            (resource, action)
            for resource in sorted(actions)
            for action in sorted(actions[resource])
            if any(snapshot.decide(caller, resource, action).allowed for caller in callers)
        ]
        found = what(world, subject, page_size=1000)

        assert [(method.resource, method.action) for method in found.methods] == expected
        for caller in callers:
            seen = {field.group: field.seen for field in found.fields if field.purpose == caller.purpose}
            obligations = snapshot.obligations(caller)
            assert {group for group in seen if seen[group] == "shown"} == obligations.shown
            assert {group for group in seen if seen[group] == "masked"} == obligations.masked


def test_what_can_comes_in_pages_and_knows_the_department(world: World) -> None:
    whole, found, token = what(world, "user:root", page_size=1000), [], ""
    while True:
        page = what(world, "user:root", page_size=5, page_token=token)
        found += page.methods
        token = page.next_page_token
        if not token:
            break

    assert found == list(whole.methods)
    assert list(whole.names) == ["role:administrator", "user:root"]
    with pytest.raises(grpc.RpcError):
        what(world, "user:nobody")


def explain(world: World, caller: Caller, resource: str, action: str) -> pb.ExplainAccessResponse:
    request = pb.ExplainAccessRequest(
        subject=caller.subject, department=caller.department, purpose=caller.purpose, resource=resource, action=action
    )
    return world.stub().ExplainAccess(request, timeout=10)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_denial_of_the_tables_is_explained_by_what_would_make_it_an_allowance(world: World, path: object) -> None:
    """What a near miss says is missing is what is missing: with it, and nothing else, the policy says yes."""
    table, content = load(path), world.context.directory.policy.content
    links = [("user:x", table.who, table.department)]
    caller = Caller("user:x", "user", table.department, table.purpose)
    person = Principal("user", "x", table.department, (table.who,), "")
    world.context.principals.insert(person)
    world.context.directory.refresh(at_once=True)
    denied = [(resource, action) for resource, action, allowed in rows(table) if not allowed]
    assert not policy(table).decide(caller, *denied[0]).allowed
    for resource, action in denied[::4]:
        reply = explain(world, caller, resource, action)
        assert (reply.allowed, reply.reason) == (False, "NO_MATCHING_RULE")
        if not reply.near_misses:
            assert resource not in {rule[2] for rule in content.rules}, (resource, action)
        for miss in reply.near_misses[:2]:
            assert miss.missing and miss.missing_zh
            more, given, what_ = links, caller, action
            if miss.field == "subject":
                more = [*links, ("user:x", miss.rule.subject, miss.rule.department.replace("*", caller.department))]
                given = replace(caller, department=miss.rule.department.replace("*", caller.department))
            elif miss.field == "purpose":
                given = replace(caller, purpose=miss.rule.purpose)
            elif miss.field == "action":
                what_ = miss.rule.action
            elif miss.field == "department":
                given, more = (
                    replace(caller, department=miss.rule.department),
                    [("user:x", table.who, miss.rule.department)],
                )
            asked = PolicySnapshot(1, content.model, content.rules, more)
            assert asked.decide(given, resource, what_).allowed, (miss.field, miss.rule)


def test_a_purpose_that_is_missing_comes_before_a_role(world: World) -> None:
    from tests.access.test_api import new_person

    new_person(world, "second")
    only = ("role:seller", "sales", "tickets", "read", "sales", "allow")
    publish(world, draft(world, add=[only]))

    reply = explain(world, Caller("user:p04", "user", "sales", "marketing"), "tickets", "read")

    assert world.context.principals.get("user-p04").department == "sales"  # type: ignore[union-attr]
    assert (reply.near_misses[0].field, reply.near_misses[0].missing) == (
        "purpose",
        "name the purpose sales: X-Purpose",
    )
    assert reply.near_misses[0].missing_zh == "须声明目的 sales（X-Purpose）"
