"""A policy change that was acknowledged is in force everywhere, whoever is killed."""

from __future__ import annotations

import pytest
from kehu.client import KehuProblem

from infra.processes import wait_until
from tests.flows.raw import Json

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
RULE = {
    "subject": "role:seller",
    "department": "sales",
    "resource": "purposes",
    "action": "list",
    "purpose": "*",
    "effect": "deny",
}


def draft(stack, change) -> str:
    current = stack.administrator.get("/v1/policies/current")
    body: Json = {name: current[name] for name in ("model", "role_links", "row_filters") if name in current}
    rules = change(list(current["rules"]))
    drafted = stack.administrator.post("/v1/policies", {**body, "rules": rules, "comment": "a test"})
    stack.administrator.post(f"/v1/{drafted['name']}:submit")
    return str(drafted["name"])


def may_list_purposes(stack) -> bool:
    try:
        stack.sign_ins.department("sales", "sales").get("/v1/purposes")
    except KehuProblem as problem:
        assert problem.status == 403
        return False
    return True


@pytest.mark.parametrize("victim", ["access", "mongo", "gateway", "consent"])
def test_an_approved_policy_is_in_force_whoever_is_killed(whole_stack, victim):
    assert may_list_purposes(whole_stack)
    forbidding = draft(whole_stack, lambda rules: [*rules, RULE])
    whole_stack.administrator.post(f"/v1/{forbidding}:approve")
    whole_stack.kill(victim)

    assert wait_until(lambda: not may_list_purposes(whole_stack), 60, 0.5)
    whole_stack.wait_whole()
    assert not may_list_purposes(whole_stack)

    allowing = draft(whole_stack, lambda rules: [rule for rule in rules if rule != RULE])
    whole_stack.kill(victim)
    whole_stack.administrator.post(f"/v1/{allowing}:approve")
    assert wait_until(lambda: may_list_purposes(whole_stack), 60, 0.5)


def test_the_audit_trail_is_intact_after_all_that(whole_stack):
    assert whole_stack.administrator.get("/v1/auditEntries:verify")["intact"] is True
