"""An administrator's day as docs/administrators-day.md tells it: every call through the gateway of a running stack."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from kehu.client import KehuProblem

from infra.policy_files import CONTENT
from infra.processes import wait_until
from tests.flows.conftest import ROOT, LiveStack
from tests.flows.people import customers, upsert
from tests.flows.raw import Json, Raw, entries, whole

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
APP, SECONDS = "app:call-screen", 30.0
LISTS = {"subject": APP, "department": "sales", "resource": "tickets", "action": "list", "purpose": "sales",
         "effect": "allow"}  # fmt: skip
ASKED = {name: LISTS[name] for name in ("subject", "department", "resource", "action", "purpose")}


def refused(act, reason: str = "PERMISSION_DENIED") -> KehuProblem:
    with pytest.raises(KehuProblem) as caught:
        act()
    assert caught.value.reason == reason
    return caught.value


def answers(act) -> bool:
    """Tell whether a call is permitted by now."""
    with suppress(KehuProblem):
        act()
        return True
    return False


def joined(stack: LiveStack, login: str, department: str, roles: list[str]) -> Json:
    """Invite a person, who takes the invitation up; return what they sign in with."""
    body = {"kind": "PRINCIPAL_KIND_PERSON", "login": login, "department": department, "roles": roles}
    token = stack.administrator.post("/v1/principals", body)["secret"]["invitation_token"]
    nobody, password = stack.sign_ins.nobody(), secrets.token_urlsafe(18)
    invited = nobody.post("/v1/invitations:open", {"token": token})
    code = pyotp.TOTP(invited["totp_secret"]).now()
    codes = nobody.post("/v1/invitations:accept", {"token": token, "password": password, "totp": code})
    assert len(codes["codes"]) == 10
    return {"username": login, "password": password, "totp_secret": invited["totp_secret"]}


@pytest.fixture(scope="module")
def people(stack: LiveStack) -> Iterator[dict[str, Raw]]:
    """Ann and Olga of service and Rita, the auditor; shut out in the end."""
    known = {
        "ann": joined(stack, "ann", "service", ["role:agent"]),
        "olga": joined(stack, "olga", "service", ["role:agent", "role:owner"]),
        "rita": joined(stack, "rita", "administration", ["role:auditor"]),
    }
    purposes = {"ann": "service", "olga": "service", "rita": "administration"}
    yield {login: stack.sign_ins.invited(person, purposes[login]) for login, person in known.items()}
    for login in known:
        stack.administrator.post(f"/v1/principals/user-{login}:disable")


@pytest.fixture(scope="module")
def screen(stack: LiveStack) -> Iterator[Raw]:
    """The app that shows who is calling."""
    body = {"kind": "PRINCIPAL_KIND_APP", "login": "call-screen", "department": "sales", "roles": ["role:seller"]}
    made = stack.administrator.post("/v1/principals", body)
    assert made["subject"] == APP
    app = stack.sign_ins.app("call-screen", made["secret"]["client_secret"], "sales")
    assert wait_until(lambda: answers(lambda: app.post("/v1/search", {"types": ["profiles"]})), SECONDS, 0.1)
    yield app
    stack.administrator.post("/v1/principals/app-call-screen:disable")


def test_a_new_app_is_on_boarded_and_what_it_lacks_is_explained(whole_stack, screen):
    administrator = whole_stack.administrator
    problem = refused(lambda: screen.get("/v1/tickets"))
    decision = problem.metadata["decision_id"]
    told = {name: problem.metadata[name] for name in ("resource", "action")}
    assert told == {"resource": "tickets", "action": "list"}

    def recorded() -> list[Json]:
        return entries(administrator.get("/v1/auditEntries", decision_id=decision), "audit_entries")

    assert wait_until(lambda: bool(recorded()), SECONDS, 0.2)
    (entry,) = recorded()
    assert (entry["subject"], entry["outcome"]) == (APP, "denied")
    why = administrator.post("/v1/access:explain", ASKED)
    assert why["reason"] == "NO_MATCHING_RULE" and set(why["names"]) == {APP, "role:seller"}
    (missing,) = [item for item in why["near_misses"] if "role:agent" in item["missing"]]
    assert "没有 role:agent" in missing["missing_zh"]


def test_the_policy_is_changed_with_simulation_and_approval_and_rolled_back(whole_stack, screen):
    administrator = whole_stack.administrator
    refused(lambda: screen.get("/v1/tickets"))
    current = administrator.get("/v1/policies/current")
    content = {name: current[name] for name in CONTENT if name in current}
    body = {**content, "rules": [*current["rules"], LISTS], "comment": "the screen shows tickets"}
    name = administrator.post("/v1/policies", body)["name"]

    compared = administrator.get(f"/v1/{name}:compare")
    assert [(item["after"], item["after_zh"]) for item in compared["differences"]] == [
        (f"{APP} in sales may list tickets, for sales", f"sales 的 {APP} 可以对 tickets 执行 list，目的为 sales")
    ]
    assert not administrator.post(f"/v1/{name}:lint").get("errors")
    simulated = administrator.post(f"/v1/{name}:simulate")
    assert whole(simulated["people_gaining"]) == 1 and not whole(simulated.get("people_losing"))
    (change,) = simulated["changes"]
    assert (change["direction"], change["subjects"]) == ("SIMULATED_DIRECTION_GAIN", [APP])

    administrator.post(f"/v1/{name}:submit")
    administrator.post(f"/v1/{name}:approve")
    assert wait_until(lambda: answers(lambda: screen.get("/v1/tickets")), SECONDS, 0.1)
    able = administrator.post("/v1/access:whoCan", {"resource": "tickets", "action": "list", "purpose": "sales"})
    assert APP in {person["subject"] for person in entries(able, "people")}
    watched = administrator.get("/v1/policies/current:watch", minutes=60)
    assert watched["previous_policy_id"] == current["name"].removeprefix("policies/")

    administrator.post(f"/v1/{current['name']}:rollback", {"comment": "it was wrong"})
    assert wait_until(lambda: not answers(lambda: screen.get("/v1/tickets")), SECONDS, 0.1)


def test_a_role_is_asked_for_granted_by_the_owner_and_returned(whole_stack, people):
    until = (datetime.now(UTC) + timedelta(days=14)).isoformat()
    body = {"role": "role:owner", "purpose": "service", "reason": "Olga 休假两周，由我代批", "end_time": until}
    asked = people["ann"].post("/v1/accessRequests", body)
    assert asked["state"] == "requested"
    with pytest.raises(KehuProblem):
        people["ann"].post(f"/v1/{asked['name']}:approve")
    assert people["olga"].post(f"/v1/{asked['name']}:approve")["state"] == "granted"
    open_now = entries(people["ann"].get("/v1/accessRequests", state="granted"), "access_requests")
    assert [item["name"] for item in open_now] == [asked["name"]]
    assert people["ann"].post(f"/v1/{asked['name']}:return")["state"] == "returned"


def test_the_glass_is_broken_seen_by_all_and_reviewed_by_another(whole_stack, till, people):
    ann, rita, (customer,) = people["ann"], people["rita"], customers(1, 78_000)
    (profile,) = upsert(whole_stack.steward, [customer])

    def sees_birthday() -> bool:
        return ann.get(f"/v1/profiles/{profile}").get("birth_date") == customer.born

    assert not sees_birthday()
    body = {"role": "role:emergency-service", "purpose": "service", "reason": "来电客户有生命危险，需要住址",
            "duration": "1800s"}  # fmt: skip
    broken = ann.post("/v1/accessRequests:breakGlass", body)
    assert (broken["state"], broken["emergency"]) == ("granted", True)
    mark = broken["name"].removeprefix("accessRequests/")
    alerts = entries(rita.get("/v1/auditAlerts", state="open"), "audit_alerts")
    assert "user:ann" in {alert["subject"] for alert in alerts if alert["rule_id"] == "break-glass"}
    assert wait_until(sees_birthday, SECONDS, 0.1)

    over = ann.post(f"/v1/{broken['name']}:return")
    assert over["state"] == "review_due"
    assert wait_until(lambda: not sees_birthday(), SECONDS, 0.1)

    def marked() -> set[tuple[str, str]]:
        found = entries(rita.get("/v1/auditEntries", emergency=mark), "audit_entries")
        return {(item["resource"], item["action"]) for item in found}

    assert wait_until(lambda: ("profiles", "read") in marked(), SECONDS, 0.2)
    finding = {"finding": "justified", "comment": "录音与工单相符"}
    with pytest.raises(KehuProblem):
        ann.post(f"/v1/{broken['name']}:review", finding)
    assert rita.post(f"/v1/{broken['name']}:review", finding)["finding"] == "justified"


def test_an_audit_question_is_answered_and_the_trail_proven_to_somebody_outside(
    whole_stack, screen, people, tmp_path: Path
):
    rita = people["rita"]
    found = entries(rita.get("/v1/auditEntries", subject=APP), "audit_entries")
    assert {("tickets", "denied"), ("search", "allowed")} <= {(item["resource"], item["outcome"]) for item in found}
    assert rita.get("/v1/auditEntries:verify")["intact"] is True
    (profile,) = upsert(whole_stack.steward, customers(1, 78_001))
    whole_stack.steward.get(f"/v1/profiles/{profile}")

    def readers() -> set[str]:
        told = rita.get("/v1/auditEntries:disclosures", profile_id=profile)
        return {item["subject"] for item in entries(told, "disclosures")}

    assert wait_until(lambda: bool(readers()), SECONDS, 0.2)
    trail = tmp_path / "trail.jsonl"
    for argv in (("export", str(trail), "--data", str(whole_stack.folder)), ("verify", str(trail))):
        line = [sys.executable, "-m", "infra.cli", "audit", *argv]
        ended = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=120)
        assert ended.returncode == 0, ended.stderr.decode()
