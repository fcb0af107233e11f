"""A policy change under review on a running stack: simulated and decided alongside in other processes."""

from __future__ import annotations

import time

import pytest

from infra.policy_files import CONTENT

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
DENY = {"subject": "role:seller", "department": "sales", "resource": "purposes", "action": "list", "purpose": "*",
        "effect": "deny"}  # fmt: skip
SOON_SECONDS = 30.0


def test_a_candidate_is_simulated_and_decided_alongside_and_changes_no_answer(whole_stack):
    administrator, seller = whole_stack.administrator, whole_stack.sign_ins.department("sales", "sales")
    current = administrator.get("/v1/policies/current")
    content = {name: current[name] for name in CONTENT if name in current}
    candidate = {**content, "rules": [*current["rules"], DENY], "comment": "a candidate"}
    drafted = administrator.post("/v1/policies", candidate)
    name = drafted["name"]

    simulated = administrator.post(f"/v1/{name}:simulate")
    assert [(change["resource"], change["action"], change["after"]) for change in simulated["changes"]] == [
        ("purposes", "list", "denied")
    ]
    compared = administrator.get(f"/v1/{name}:compare")
    assert [found["after"] for found in compared["differences"] if found["change"] == "added"] == [
        "role:seller in sales may not list purposes"
    ]
    assert administrator.post(f"/v1/{name}:startShadow")["running"]
    deadline = time.monotonic() + SOON_SECONDS
    report = {}
    while not report.get("differences") and time.monotonic() < deadline:
        seller.get("/v1/purposes")  # answered, by the policy in force
        time.sleep(0.5)
        report = administrator.get(f"/v1/{name}:shadowReport")
    assert [(found["resource"], found["before"], found["after"]) for found in report["differences"]] == [
        ("purposes", "allowed", "denied")
    ]
    assert not administrator.post(f"/v1/{name}:stopShadow").get("running")
    watched = administrator.get("/v1/policies/current:watch", minutes=5)
    assert "publish_time" in watched
