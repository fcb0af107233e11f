"""A policy change under review: what it would change is found exactly, before it is in force."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.access.defaults import default_content
from services.access.domain.policies import Row, whatever_purpose
from services.access.domain.vocabulary import Inventory, Narrowing
from services.chassis.audit import AuditEntry
from tests.access.test_api import id_of, new_person, refusal
from tests.access.world import World, running_world

LOSS, GAIN = review_pb2.SIMULATED_DIRECTION_LOSS, review_pb2.SIMULATED_DIRECTION_GAIN
TWO_RESOURCES = ("segments", "campaigns")
MOST_SECONDS = 60.0  # to replay 10,000 decisions
NOTHING = Inventory({}, frozenset())
DENY_SEGMENTS = ("role:marketer", "marketing", "segments", "read", "*", "deny")


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def draft(world: World, add: Sequence[Row] = (), drop: Sequence[Row] = (), **more: object) -> str:
    """Draft the policy in force with rules added and dropped; return its id."""
    policy = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    names = ("subject", "department", "resource", "action", "purpose", "effect")
    rules = [rule for rule in policy.rules if tuple(getattr(rule, name) for name in names) not in drop]
    rules += [pb.PolicyRule(**dict(zip(names, row, strict=True))) for row in add]
    more.setdefault("row_filters", policy.row_filters)
    more.setdefault("role_links", policy.role_links)
    given = pb.Policy(rules=rules, comment="a change", **more)
    return id_of(world.stub().CreatePolicy(pb.CreatePolicyRequest(policy=given), timeout=10))


def entry(world: World, action: str, resource: str = "segments", **changes: object) -> AuditEntry:
    values = {
        "now": world.clock(), "policy_version": 1, "subject": "app:marketing-app", "department": "marketing",
        "purpose": "marketing", "resource": resource, "action": action, "outcome": "allowed", "reason": "ALLOWED",
        "service": "marketing", "status": "OK",
    }  # fmt: skip
    return AuditEntry.of(**{**values, **changes})  # type: ignore[arg-type]


def record(world: World, entries: Sequence[AuditEntry]) -> None:
    for start in range(0, len(entries), 500):
        first = entries[start]
        world.context.chain.append(f"batch-{first.entry_id}", entries[start : start + 500])


def simulate(world: World, policy_id: str, **how: object) -> review_pb2.SimulatePolicyResponse:
    request = review_pb2.SimulatePolicyRequest(policy_id=policy_id, **how)
    return world.stub().SimulatePolicy(request, timeout=60)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_ten_thousand_recorded_decisions_exactly_those_that_flip_are_found(world: World, seed: int) -> None:
    random_ = random.Random(seed)
    flips = random_.randrange(1, 3000)
    kept = [("list", "segments"), ("read", "campaigns"), ("erase", "profiles"), ("read", "search")]
    entries = [entry(world, "read") for _ in range(flips)]
    while len(entries) < 10_000:
        action, resource = random_.choice(kept)
        entries.append(entry(world, action, resource, purpose=random_.choice(["", "marketing", "sales"])))
    random_.shuffle(entries)
    noise = [entry(world, "read", subject="svc:search"), entry(world, "create", "tokens", policy_version=0)]
    record(world, [entry(world, "read") for _ in range(700)])  # older than the last 10,000
    record(world, entries)
    record(world, noise * 100)

    began = time.monotonic()
    report = simulate(world, draft(world, add=[DENY_SEGMENTS]))

    assert time.monotonic() - began <= MOST_SECONDS
    assert (report.decisions, report.decisions_lost, report.decisions_gained) == (10_000, flips, 0)
    assert [(c.resource, c.action, c.recorded, c.before, c.after) for c in report.changes] == [
        ("segments", "read", flips, "allowed", "denied")
    ]


def test_a_policy_without_a_difference_changes_nothing(world: World) -> None:
    record(world, [entry(world, "read")])

    report = simulate(world, draft(world))

    assert (report.decisions, len(report.changes), report.people_losing) == (1, 0, 0)
    assert report.people == 3
    assert report.methods == sum(map(len, world.context.inventory.actions.values()))


def test_everybody_who_gains_or_loses_is_named_though_they_never_called(world: World) -> None:
    new_person(world, "second")
    gained = ("role:marketer", "marketing", "tickets", "read", "*", "allow")
    lost = ("role:administrator", "administration", "masterKeys", "*", "*", "allow")

    report = simulate(world, draft(world, add=[gained], drop=[lost]))

    assert (report.people_losing, report.people_gaining) == (2, 1)
    losses = [change for change in report.changes if change.direction == LOSS]
    assert {change.resource for change in losses} == {"masterKeys"}
    assert all(list(change.subjects) == ["user:root", "user:second"] for change in losses)
    assert [(c.resource, c.action, list(c.subjects)) for c in report.changes if c.direction == GAIN] == [
        ("tickets", "read", ["app:marketing-app"])
    ]
    first = report.changes[0].direction
    assert first == LOSS, "losses come first"


def test_fields_that_are_shown_where_they_were_masked_are_named_with_their_purpose(world: World) -> None:
    contact = ("role:marketer", "marketing", "fields/personal/contact", "show", "marketing", "allow")
    search = ("role:marketer", "marketing", "fields/personal/name", "search", "marketing", "allow")

    report = simulate(world, draft(world, add=[contact], drop=[search]))

    found = {(c.resource, c.before, c.after, tuple(c.purposes)) for c in report.changes}
    assert found == {
        ("fields/personal/contact", "masked", "shown", ("marketing",)),
        ("fields/personal/name", "searched", "not searched", ("marketing",)),
    }


def test_rows_that_go_out_of_reach_are_a_loss(world: World) -> None:
    narrower = pb.RowFilter(
        subject="role:marketer", department="marketing", resource="segments", field="owner_department", values=["sales"]
    )
    record(world, [entry(world, "list")] * 3)

    report = simulate(world, draft(world, row_filters=[narrower]))

    change = next(c for c in report.changes if c.action == "list" and c.resource == "segments")
    assert (change.before, change.after, change.recorded) == ("all rows", "owner_department in (sales)", 3)
    assert change.direction == LOSS
    assert report.decisions_otherwise == 3


def test_a_rule_about_one_person_is_not_taken_for_all_of_their_role(world: World) -> None:
    new_person(world, "second")
    mine = ("user:second", "administration", "masterKeys", "destroy", "*", "deny")
    actions = sorted(world.context.inventory.actions["masterKeys"])

    report = simulate(world, draft(world, add=[mine[:3] + (actions[0],) + mine[4:]]))

    assert [list(change.subjects) for change in report.changes] == [["user:second"]]


def test_a_decision_that_the_policy_in_force_would_give_otherwise_today_is_counted_apart(world: World) -> None:
    record(world, [entry(world, "approve", "policies")])

    report = simulate(world, draft(world))

    assert (report.decisions_drifted, report.decisions_gained) == (1, 0)


def test_a_refusal_of_the_service_itself_is_no_denial_of_the_policy(world: World) -> None:
    record(world, [entry(world, "read", outcome="denied", reason="SEGMENT_LOCKED")])

    report = simulate(world, draft(world))

    assert report.decisions_drifted == 0


def test_pages_are_of_one_report_whatever_is_recorded_meanwhile(world: World) -> None:
    policy_id = draft(world, drop=[("role:marketer", "marketing", name, "*", "*", "allow") for name in TWO_RESOURCES])
    whole = simulate(world, policy_id)
    seen, token = [], ""
    while True:
        page = simulate(world, policy_id, page_size=3, page_token=token)
        record(world, [entry(world, "read")])
        seen += page.changes
        token = page.next_page_token
        if not token:
            break

    assert len(seen) > 3
    assert seen == list(whole.changes)


def test_one_persons_changes_are_asked_for_by_subject(world: World) -> None:
    policy_id = draft(world, add=[DENY_SEGMENTS])

    assert len(simulate(world, policy_id, subject="app:marketing-app").changes) == 1
    assert len(simulate(world, policy_id, subject="user:root").changes) == 0


def test_a_faulty_draft_is_refused_with_its_faults(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        simulate(world, draft(world, add=[(*DENY_SEGMENTS[:5], "Deny")]))

    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_INVALID")


def test_the_default_policy_simulated_against_itself_is_the_same_by_asking_everybody_one_by_one(world: World) -> None:
    """The grouping of people who are alike changes nothing: asked one by one, the answers are the same."""
    from services.access.domain.simulation import compare
    from services.chassis.access import PolicySnapshot

    content, people, random_ = default_content(), [], random.Random(5)
    links = []
    for number in range(60):
        role, department = random_.choice([(r[0], r[1]) for r in content.rules])
        people.append((f"user:u{number}", department))
        links.append((f"user:u{number}", role, department))
    own = ("user:u7", people[7][1], "profiles", "read", "*", "deny")
    rules = [rule for rule in content.rules if random_.random() > 0.2]
    rules.append(("role:seller", "sales", "tickets", "list", "service", "allow"))
    both = (content, replace(content, rules=(*rules, own)))
    assert "tickets" not in whatever_purpose(["tickets", "segments"], *both) != frozenset()
    one = PolicySnapshot(1, content.model, content.rules, links, content.row_filters)
    other = PolicySnapshot(2, content.model, [*rules, own], links, content.row_filters[:2])
    inventory, purposes = world.context.inventory, ("marketing", "service", "sales")
    whatever = whatever_purpose(inventory.actions, *both)

    together = compare(one, other, [], people, inventory, purposes, frozenset({"user:u7"}))
    alone = compare(one, other, [], people, inventory, purposes, frozenset(subject for subject, _ in people))
    quick = compare(one, other, [], people, inventory, purposes, frozenset({"user:u7"}), whatever)

    assert together.changes == alone.changes == quick.changes
    assert len(together.changes) > 10


def test_a_condition_on_the_time_flips_those_decisions_alone_that_were_made_outside_of_it() -> None:
    from services.access.domain.simulation import asked_of, compare
    from services.chassis.access import MODEL, PolicySnapshot
    from services.chassis.access.conditions import NamedCondition, TimeOfDay

    rule, link = ("role:seller", "sales", "profiles", "read", "*", "allow"), ("user:x", "role:seller", "sales")
    office = NamedCondition("office", TimeOfDay("Asia/Shanghai", "09:00", "18:00"))
    base = PolicySnapshot(1, MODEL, [rule], [link])
    candidate = PolicySnapshot(2, MODEL, [(*rule, "office")], [link], conditions=[office])
    asked = []
    for hour in range(24):
        now = datetime(2026, 11, 2, hour, 30, tzinfo=ZoneInfo("Asia/Shanghai"))
        values = {"policy_version": 1, "subject": "user:x", "department": "sales", "outcome": "allowed"}
        made = AuditEntry.of(now=now, resource="profiles", action="read", reason="ALLOWED", **values)
        asked.append(asked_of(made))

    report = compare(base, candidate, filter(None, asked), [], NOTHING, [])

    assert (report.decisions, report.lost, report.gained) == (24, 24 - 9, 0)


def test_members_of_another_team_are_not_taken_for_alike() -> None:
    from services.access.domain.simulation import compare
    from services.chassis.access import MODEL, PolicySnapshot, RowFilter
    from services.chassis.access.reach import Organization

    rule = ("role:seller", "sales", "tickets", "read", "*", "allow")
    people = [(f"user:{name}", "sales") for name in ("ann", "bob", "cho")]
    links = [(subject, "role:seller", "sales") for subject, _ in people]
    narrowed = [RowFilter("role:seller", "sales", "tickets", "owner", ("$team",))]
    teams = Organization({}, (frozenset({"user:ann", "user:bob"}),))
    sides = [PolicySnapshot(1, MODEL, [rule], links, narrowed, organization=each) for each in (Organization(), teams)]

    report = compare(*sides, [], people, Inventory({"tickets": frozenset({"read"})}, frozenset()), [])

    assert {(change.before, change.after): who.subjects for change, who in report.changes.items()} == {
        ("owner in ($subject)", "owner in ($subject, user:bob)"): {"user:ann"},
        ("owner in ($subject)", "owner in ($subject, user:ann)"): {"user:bob"},
    }


def test_whoever_is_a_value_of_a_row_filter_is_not_taken_for_all_of_their_role() -> None:
    from services.access.domain.policies import Content, named_subjects
    from services.access.domain.simulation import compare
    from services.chassis.access import MODEL, PolicySnapshot, RowFilter

    rule = ("role:seller", "sales", "tickets", "read", "*", "allow")
    people = [(f"user:{name}", "sales") for name in ("ann", "bob")]
    links = [(subject, "role:seller", "sales") for subject, _ in people]
    owners = [(RowFilter("role:seller", "sales", "tickets", "owner", (value,)),) for value in ("user:ann", "$subject")]
    sides = [PolicySnapshot(1, MODEL, [rule], links, rows) for rows in owners]
    named = named_subjects(*(Content((rule,), row_filters=rows) for rows in owners))

    report = compare(*sides, [], people, Inventory({"tickets": frozenset({"read"})}, frozenset()), [], named)

    assert {(change.before, change.after): who.subjects for change, who in report.changes.items()} == {
        ("owner in (user:ann)", "owner in ($subject)"): {"user:bob"},
    }


def test_a_row_filter_that_a_method_cannot_apply_takes_the_method_away_as_the_guard_will() -> None:
    """Who lists tickets is told the rows they keep; who exports them loses that, for an export cannot narrow."""
    from services.access.domain.simulation import asked_of, compare
    from services.chassis.access import MODEL, PolicySnapshot, RowFilter

    rules = [("role:seller", "sales", "tickets", action, "*", "allow") for action in ("list", "export")]
    rules.append(("role:seller", "sales", "profiles", "read", "*", "allow"))
    ways = {
        ("tickets", "list"): (Narrowing(frozenset({"owner"}), ()),),
        ("tickets", "export"): (Narrowing(frozenset(), ()),),
        ("tickets", "view"): (Narrowing(frozenset({"*"}), ("profiles",)),),
    }
    rules.append(("role:seller", "sales", "tickets", "view", "*", "allow"))
    inventory = Inventory({"tickets": frozenset({"list", "export", "view"})}, frozenset(), methods=ways)
    filters = [RowFilter("role:seller", "sales", "tickets", "owner", ("$subject",)),
               RowFilter("role:seller", "sales", "profiles", "region", ("east",))]  # fmt: skip
    people, links = [("user:x", "sales")], [("user:x", "role:seller", "sales")]
    base, candidate = (PolicySnapshot(1, MODEL, rules, links, rows) for rows in ([], filters))
    values = {"policy_version": 1, "subject": "user:x", "department": "sales", "resource": "tickets"}
    made = [AuditEntry.of(now=datetime.now(UTC), action=action, outcome="allowed", reason="ALLOWED", **values)
            for action in ("list", "export")]  # fmt: skip

    report = compare(base, candidate, filter(None, map(asked_of, made)), people, inventory, ["service"])

    assert {(change.kind, change.action, change.after) for change in report.changes} == {
        ("method", "export", "denied"),
        ("rows", "list", "owner in ($subject)"),
        ("rows", "view", "owner in ($subject) and region in (east)"),
    }
    assert (report.decisions, report.lost, report.otherwise, report.drifted) == (2, 1, 1, 0)
    refused = replace(made[1], outcome="denied", reason="ROWS_NOT_NARROWED")
    again = compare(candidate, candidate, filter(None, [asked_of(refused)]), people, inventory, ["service"])
    assert (again.drifted, len(again.changes)) == (0, 0)
