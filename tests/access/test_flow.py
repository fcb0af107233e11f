"""A policy change from draft to rollback: differences in words, a reason, no lost update, and a watch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.access.defaults import default_content
from services.access.domain.differences import differences, link_words, rule_words
from services.chassis.access.conditions import NamedCondition, Network
from tests.access.test_api import SECOND, new_person, refusal
from tests.access.test_review import DENY_SEGMENTS, draft, entry, record
from tests.access.world import World, running_world
from tests.harness import bad_fields

SEGMENTS = ("role:marketer", "marketing", "segments", "*", "*", "allow")
SEARCH = ("role:marketer", "marketing", "search", "read", "*", "allow")


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def submit(world: World, policy_id: str) -> pb.Policy:
    return world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=30)


def publish(world: World, policy_id: str) -> pb.Policy:
    submit(world, policy_id)
    return world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=30)


def compare(world: World, policy_id: str, **how: object) -> review_pb2.ComparePoliciesResponse:
    request = review_pb2.ComparePoliciesRequest(policy_id=policy_id, **how)
    return world.stub().ComparePolicies(request, timeout=10)


def watch(world: World, **how: object) -> review_pb2.WatchPolicyResponse:
    return world.stub().WatchPolicy(review_pb2.WatchPolicyRequest(policy_id="current", **how), timeout=10)


def test_what_is_removed_changed_and_added_is_said_in_two_languages(world: World) -> None:
    link = pb.RoleLink(member="role:seller", role="role:agent", department="sales")
    narrowed = (*SEARCH[:4], "marketing", "allow")
    policy_id = draft(world, add=[DENY_SEGMENTS, narrowed], drop=[SEGMENTS, SEARCH], role_links=[link])

    reply = compare(world, policy_id)

    assert (reply.removed, reply.changed, reply.added) == (1, 1, 2)
    assert [(d.change, d.kind, d.before, d.after) for d in reply.differences] == [
        ("removed", "rule", "role:marketer in marketing may do everything with segments", ""),
        ("changed", "rule", "role:marketer in marketing may read search",
         "role:marketer in marketing may read search, for marketing"),
        ("added", "rule", "", "role:marketer in marketing may not read segments"),
        ("added", "role_link", "", "role:seller has role:agent in sales"),
    ]  # fmt: skip
    assert reply.differences[2].after_zh == "marketing 的 role:marketer 不得对 segments 执行 read"
    assert (reply.author, reply.comment, reply.base_version) == ("user:root", "a change", 1)


def test_a_denial_and_a_condition_are_said(world: World) -> None:
    field = ("role:agent", "*", "fields/personal/name", "mask", "service", "allow", "office-hours+managed")

    words = rule_words(field)

    assert words.english == (
        "role:agent everywhere sees masked personal/name, for service, when office-hours and managed"
    )
    assert (
        words.chinese
        == "任何部门 的 role:agent 可见掩码后的 personal/name，目的为 service，条件：office-hours、managed"
    )


def test_a_row_filter_or_test_that_is_gone_is_a_difference(world: World) -> None:
    policy = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    test = review_pb2.PolicyTest(name="seller", table="role: role:seller\ndepartment: sales\n")

    reply = compare(world, draft(world, row_filters=policy.row_filters[1:], tests=[test]))

    assert [(d.change, d.kind) for d in reply.differences] == [("removed", "row_filter"), ("added", "test")]
    assert "owner_department" in reply.differences[0].before


def test_differences_come_in_pages(world: World) -> None:
    drop = [("role:agent", "service", name, "read", "*", "allow") for name in ("purposes", "notices", "search")]
    policy_id, seen, token = draft(world, drop=drop), [], ""
    while True:
        page = compare(world, policy_id, page_size=2, page_token=token)
        seen += page.differences
        token = page.next_page_token
        if not token:
            break

    assert seen == list(compare(world, policy_id).differences)
    assert len(seen) == 3


def test_a_change_without_a_reason_is_not_handed_over(world: World) -> None:
    policy = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    given = pb.CreatePolicyRequest(policy=pb.Policy(rules=policy.rules))
    policy_id = world.stub().CreatePolicy(given, timeout=5).name.removeprefix("policies/")

    assert bad_fields(lambda: submit(world, policy_id)) == ["comment"]


def test_of_fifty_concurrent_edits_none_is_lost(world: World) -> None:
    """Each adds a rule of its own to the version it read; who is overtaken is told, drafts anew and succeeds."""
    new_person(world, "second")
    offered = sorted((r, a) for r, actions in world.context.inventory.actions.items() for a in actions)[:50]
    edits = [("role:edited", "sales", resource, action, "*", "allow") for resource, action in offered]
    drafts = {edit: draft(world, add=[edit]) for edit in edits}
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda edit: submit(world, drafts[edit]), edits))
    barrier, overtaken, lock = threading.Barrier(50), [], threading.Lock()

    def approve(edit: tuple[str, ...]) -> None:
        barrier.wait(timeout=60)
        try:
            world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=drafts[edit]), timeout=120)
        except grpc.RpcError as error:
            assert refusal(error) == ("ABORTED", "POLICY_OUTDATED")
            with lock:
                overtaken.append(edit)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(approve, edits))

    assert len(overtaken) == 49, "one wins, all others are told"
    for edit in overtaken:
        publish(world, draft(world, add=[edit]))
    policy = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    kept = {(r.subject, r.department, r.resource, r.action, r.purpose, r.effect) for r in policy.rules}
    assert set(edits) <= kept
    assert policy.version == 51


@pytest.fixture
def published(world: World) -> tuple[World, datetime]:
    """A policy that shuts marketers out of segments, just published; the clock stands 30 minutes later."""
    new_person(world, "second")
    publish(world, draft(world, add=[DENY_SEGMENTS]))
    at = world.context.directory.policy.update_time
    assert at is not None
    world.clock.time = at + timedelta(minutes=30)
    return world, at


def decided(world: World, at: datetime, minutes: float, allowed: bool, times: int, action: str = "read") -> None:
    outcome = {"outcome": "allowed"} if allowed else {"outcome": "denied", "reason": "DENIED_BY_RULE"}
    record(world, [entry(world, action, now=at + timedelta(minutes=minutes), **outcome) for _ in range(times)])


def test_denials_that_grow_after_a_publication_raise_an_alert_and_name_who_is_denied(
    published: tuple[World, datetime],
) -> None:
    world, at = published
    decided(world, at, -200, True, 50)  # long before: not counted
    decided(world, at, -20, True, 40)
    decided(world, at, -20, False, 4)
    decided(world, at, 5, False, 15)
    decided(world, at, 5, True, 3, action="list")

    reply = watch(world)

    assert reply.alert
    assert (reply.allowed_before, reply.denied_before, reply.allowed_after, reply.denied_after) == (40, 4, 3, 15)
    worst = reply.actions[0]
    assert (worst.resource, worst.action, worst.alert, list(worst.denied_subjects)) == (
        "segments", "read", True, ["app:marketing-app"],
    )  # fmt: skip
    assert reply.complete
    assert reply.publish_time.ToDatetime(UTC) == at.replace(microsecond=reply.publish_time.nanos // 1000)


@pytest.mark.parametrize(("before", "after", "factor", "alert"), [
    (0, 9, 0, False), (0, 10, 0, True), (8, 15, 0, False), (8, 16, 0, True), (8, 16, 3, False), (8, 24, 3, True),
])  # fmt: skip
def test_the_threshold_is_a_factor_and_ten_denials_at_least(
    published: tuple[World, datetime], before: int, after: int, factor: float, alert: bool
) -> None:
    world, at = published
    for minutes, times in ((-5, before), (5, after)):
        if times:
            decided(world, at, minutes, False, times)

    assert watch(world, factor=factor).alert is alert


def test_the_spans_before_and_after_are_of_equal_length(published: tuple[World, datetime]) -> None:
    world, at = published
    decided(world, at, -31, False, 100)  # 30 minutes have passed since
    decided(world, at, -29, False, 1)

    assert watch(world).denied_before == 1
    assert watch(world, minutes=10).denied_before == 0


def test_the_watch_names_the_version_to_go_back_to_and_one_call_does(published: tuple[World, datetime]) -> None:
    world, _ = published
    previous = watch(world).previous_policy_id

    back = world.stub().RollbackPolicy(
        pb.RollbackPolicyRequest(policy_id=previous, comment="marketers are shut out"), timeout=30
    )

    assert (back.version, back.comment, back.author) == (3, "marketers are shut out", "user:root")
    assert compare(world, back.name.removeprefix("policies/"), base_policy_id=previous).differences == []


def test_a_draft_cannot_be_watched(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.stub().WatchPolicy(review_pb2.WatchPolicyRequest(policy_id=draft(world)), timeout=10)

    assert refusal(caught.value) == ("FAILED_PRECONDITION", "POLICY_STATE")


def test_conditions_departments_and_teams_are_differences_with_what_they_say() -> None:
    base = default_content()
    network = NamedCondition("office-net", Network(("10.0.0.0/8",)))
    wider = NamedCondition("office-net", Network(("10.0.0.0/8", "192.168.0.0/16")))
    one = replace(base, conditions=(network,), teams=(("north", ("user:ann",)),))
    two = replace(base, conditions=(wider,), departments=(*base.departments, ("stores", "sales")))

    found = {
        (d.change, d.kind, d.before and d.before.english, d.after and d.after.english) for d in differences(one, two)
    }

    assert found == {
        ("removed", "team", "team north (user:ann)", None),
        ("changed", "condition", "condition office-net: network (ranges ('10.0.0.0/8',))",
         "condition office-net: network (ranges ('10.0.0.0/8', '192.168.0.0/16'))"),
        ("added", "department", None, "department stores (sales)"),
    }  # fmt: skip


def test_a_role_for_a_time_says_until_when() -> None:
    words = link_words(("user:ann", "role:seller", "sales", "0", "1796083200"))

    assert words.english == "user:ann has role:seller in sales (… to 2026-12-01T00:00+00:00)"


def test_the_shipped_policy_is_compared_with_and_never_in_force(world: World) -> None:
    stub, shipped = world.stub(), "shipped"
    publish(world, draft(world, drop=[rule for rule in default_content().rules if rule[0] == "role:auditor"]))

    found = stub.ComparePolicies(review_pb2.ComparePoliciesRequest(policy_id=shipped), timeout=10)
    lacking = {difference.after for difference in found.differences}
    assert lacking and all("role:auditor" in words for words in lacking)
    assert stub.GetPolicy(pb.GetPolicyRequest(policy_id=shipped), timeout=10).state == pb.POLICY_STATE_SHIPPED
    for call, request in (
        (stub.SubmitPolicy, pb.SubmitPolicyRequest(policy_id=shipped)),
        (stub.ApprovePolicy, pb.ApprovePolicyRequest(policy_id=shipped)),
        (stub.RollbackPolicy, pb.RollbackPolicyRequest(policy_id=shipped)),
        (stub.StartShadow, review_pb2.StartShadowRequest(policy_id=shipped)),
        (stub.WatchPolicy, review_pb2.WatchPolicyRequest(policy_id=shipped)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=10)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
