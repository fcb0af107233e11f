"""Policy tests: tables stored with a revision, run by a call, and refused by submit when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.access.domain.tables import PolicyTest, TableFault, read_table, table_faults
from services.access.inventory import descriptors_path, read_inventory
from tests.access.test_api import SECOND, new_person, refusal
from tests.access.test_review import DENY_SEGMENTS, draft
from tests.access.world import World, running_world
from tests.harness import bad_fields

DECISIONS = Path(__file__).parent / "decisions"
SELLER = "# 销售\nrole: role:seller\ndepartment: sales\npurpose: sales\nallow:\n  profiles: [read]\n"


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def tables(*names: str) -> list[review_pb2.PolicyTest]:
    return [review_pb2.PolicyTest(name=name, table=(DECISIONS / f"{name}.yaml").read_text("utf-8")) for name in names]


def run(world: World, policy_id: str) -> review_pb2.TestPolicyResponse:
    return world.stub().TestPolicy(review_pb2.TestPolicyRequest(policy_id=policy_id), timeout=20)


def submit(world: World, policy_id: str) -> pb.Policy:
    return world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=20)


def test_every_row_of_every_table_is_asked_and_what_is_not_listed_is_expected_to_be_denied(world: World) -> None:
    policy_id = draft(
        world, tests=tables("seller", "agent"), add=[("role:seller", "sales", "tickets", "read", "*", "allow")]
    )

    reply = run(world, policy_id)

    inventory = world.context.inventory
    assert reply.rows == 2 * (sum(map(len, inventory.actions.values())) + 3 * len(inventory.groups))
    assert [(f.test, f.row, f.expected, f.found) for f in reply.failures] == [
        ("seller", "tickets read", "denied", "allowed")
    ]
    assert (reply.passed, reply.tables, reply.failed_rows) == (False, 2, 1)


def test_a_field_that_is_shown_though_its_table_masks_it_fails(world: World) -> None:
    shown = ("role:marketer", "marketing", "fields/personal/contact", "show", "marketing", "allow")

    reply = run(world, draft(world, tests=tables("marketer"), add=[shown]))

    assert [(f.row, f.expected, f.found) for f in reply.failures] == [("fields/personal/contact", "masked", "shown")]


def test_submit_refuses_what_fails_its_tests_and_names_the_rows(world: World) -> None:
    policy_id = draft(world, tests=tables("marketer"), add=[DENY_SEGMENTS])

    assert bad_fields(lambda: submit(world, policy_id)) == ["tests.marketer"]
    with pytest.raises(grpc.RpcError) as caught:
        submit(world, policy_id)
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_TESTS_FAILED")


def test_the_next_draft_keeps_the_tests_of_the_version_it_is_made_from(world: World) -> None:
    new_person(world, "second")
    with_tests = draft(world, tests=tables("marketer"))
    submit(world, with_tests)
    world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=with_tests), timeout=20)

    policy_id = draft(world, add=[DENY_SEGMENTS])

    assert [failure.row for failure in run(world, policy_id).failures] == ["segments read"]
    with pytest.raises(grpc.RpcError) as caught:
        submit(world, policy_id)
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_TESTS_FAILED")


def test_a_table_of_one_subject_is_asked_with_the_roles_that_subject_has(world: World) -> None:
    table = tables("marketer")[0].table.replace("role: role:marketer", "subject: app:marketing-app")

    assert run(world, draft(world, tests=[review_pb2.PolicyTest(name="app", table=table)])).passed


def test_a_table_is_kept_as_it_was_written(world: World) -> None:
    policy_id = draft(world, tests=[review_pb2.PolicyTest(name="销售", table=SELLER)])

    stored = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id=policy_id), timeout=5)

    assert [(test.name, test.table) for test in stored.tests] == [("销售", SELLER)]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("role: role:seller", "department at least"),
        ("role: role:seller\nsubject: user:x\ndepartment: sales", "one of role and subject"),
        ("- a\n- b", "write a table with"),
        ("a: [", "as YAML (line"),
        ("role: role:seller\ndepartment: sales\ngrant: {}", "give it role or subject"),
        ("role: role:seller\ndepartment: sales\nallow: [read]", "allow as resources"),
        ("role: role:seller\ndepartment: sales\nallow: {profiles: read}", "allow.profiles as a list"),
        ("role: role:seller\ndepartment: sales\nallow: {profiles: [yes]}", "allow.profiles as a list"),
        ("role: role:seller\ndepartment: 3", "as words"),
        ("role: role:seller\nrole: role:agent\ndepartment: sales", "each key once"),
        ("role: &a role:seller\ndepartment: *a", "without aliases"),
        ("role: !!python/object/apply:os.system [ls]\ndepartment: sales", "as YAML"),
        ("[" * 5000, "as YAML"),
    ],
)
def test_what_is_no_table_is_refused_with_what_to_do(table: str, says: str) -> None:
    with pytest.raises(TableFault, match=says.replace("(", r"\(")):
        read_table(table)


def test_names_that_do_not_exist_are_faults_of_the_table() -> None:
    inventory = read_inventory(descriptors_path())
    base = "role: role:seller\ndepartment: sales\n"
    tests = [
        PolicyTest("one", base + "allow: {profile: [read]}"),
        PolicyTest("two", base + "allow: {profiles: [fly]}"),
        PolicyTest("three", base + "shown: [personal/shoe]"),
        PolicyTest("three", base),
    ]

    found = [fault.field for fault in table_faults(tests, inventory)]

    assert found == ["tests[0].table", "tests[1].table", "tests[2].table", "tests[3].name"]


def test_a_table_with_faults_is_told_by_test_and_refused_by_submit(world: World) -> None:
    bad = SELLER.replace("profiles", "profile")
    policy_id = draft(world, tests=[review_pb2.PolicyTest(name="bad", table=bad)])

    reply = run(world, policy_id)

    assert not reply.passed
    assert [fault.field for fault in reply.faults] == ["tests[0].table"]
    with pytest.raises(grpc.RpcError) as caught:
        submit(world, policy_id)
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_INVALID")
