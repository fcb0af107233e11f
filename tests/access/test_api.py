"""The servicer of access behind the real guard, with stores in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import conditions_pb2 as pb_conditions

from services.chassis.access import Caller, SnapshotHolder, TokenVerifier
from services.chassis.access.conditions import NamedCondition, TimeOfDay
from services.chassis.access.wire import request_for, updated
from services.chassis.errors import Unauthenticated
from tests.access.world import AUDIENCE, ISSUER, START, World, running_world
from tests.harness import bad_fields

ADMINISTRATOR = "role:administrator"

SECOND = "user:second@administration"


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def refusal(error: grpc.RpcError) -> tuple[str, str]:
    """Return the code name and reason of a refused call."""
    info = error_details_pb2.ErrorInfo()
    rpc_status.from_call(error).details[0].Unpack(info)
    return error.code().name, info.reason


def app_token(world: World, secret: str = "marketing secret") -> str:
    request = pb.CreateTokenRequest(grant_type="client_credentials", client_id="marketing-app", client_secret=secret)
    return world.stub(caller="").CreateToken(request, timeout=5).access_token


def person_token(world: World, password: str = "root password", code: str = "") -> str:
    request = pb.CreateTokenRequest(
        grant_type="password", username="root", password=password, totp=code or world.code()
    )
    return world.stub(caller="").CreateToken(request, timeout=5).access_token


def other_process(world: World) -> tuple[SnapshotHolder, TokenVerifier]:
    """Return the holder and verifier of another process, with one poll done."""
    holder = SnapshotHolder()
    poll(world, holder)
    return holder, TokenVerifier(holder, ISSUER, AUDIENCE, lambda: world.clock.time.timestamp())


def poll(world: World, holder: SnapshotHolder) -> None:
    stub = world.stub(caller="", peer="search")
    newer = updated(holder.known, stub.GetPolicySnapshot(request_for(holder.known), timeout=5))
    if newer:
        holder.swap(newer)


def test_an_app_signs_in_and_every_process_knows_it(world: World) -> None:
    holder, verifier = other_process(world)

    caller = verifier.verify(app_token(world))

    assert (caller.subject, caller.department) == ("app:marketing-app", "marketing")
    assert holder.current.decide(caller, "search", "read").allowed


def test_a_person_signs_in_with_password_and_code(world: World) -> None:
    _, verifier = other_process(world)

    caller = verifier.verify(person_token(world))

    assert (caller.subject, caller.methods) == ("user:root", ("pwd", "otp"))
    assert caller.auth_time == world.clock.time


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateTokenRequest(grant_type="client_credentials", client_id="marketing-app", client_secret="no"),
        pb.CreateTokenRequest(grant_type="client_credentials", client_id="nobody", client_secret="no"),
        pb.CreateTokenRequest(grant_type="client_credentials", client_id="marketing-app"),
        pb.CreateTokenRequest(grant_type="client_credentials", client_id="root", client_secret="root password"),
        pb.CreateTokenRequest(grant_type="password", username="root", password="no", totp="000000"),
        pb.CreateTokenRequest(grant_type="password", username="root", password="root password"),
        pb.CreateTokenRequest(grant_type="password", username="marketing-app", password="marketing secret"),
    ],
)
def test_wrong_credentials_are_refused_in_the_same_words(world: World, request_: pb.CreateTokenRequest) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.stub(caller="").CreateToken(request_, timeout=5)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")


@pytest.mark.parametrize("grant_type", ["implicit", "urn:ietf:params:oauth:grant-type:device_code"])
def test_an_unknown_grant_type_is_named(world: World, grant_type: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.stub(caller="").CreateToken(pb.CreateTokenRequest(grant_type=grant_type), timeout=5)

    assert refusal(caught.value) == ("INVALID_ARGUMENT", "GRANT_TYPE_UNSUPPORTED")


def test_a_code_counts_once(world: World) -> None:
    person_token(world)

    with pytest.raises(grpc.RpcError):
        person_token(world)

    world.clock.forward(60)
    assert person_token(world)


def test_after_five_wrong_passwords_the_right_one_waits(world: World) -> None:
    for _ in range(5):
        with pytest.raises(grpc.RpcError):
            person_token(world, password="guess")
    with pytest.raises(grpc.RpcError):
        person_token(world)

    world.clock.forward(30)

    assert person_token(world)


def test_sign_ins_are_in_the_trail_without_what_was_typed(world: World) -> None:
    app_token(world)
    bad = pb.CreateTokenRequest(grant_type="password", username="my-password-by-mistake", password="x")
    with pytest.raises(grpc.RpcError):
        world.stub(caller="").CreateToken(bad, timeout=5)

    listed = world.stub().ListAuditEntries(pb.ListAuditEntriesRequest(resource="tokens"), timeout=5)

    assert [entry.subject for entry in listed.audit_entries] == ["unknown", "app:marketing-app"]
    assert [entry.outcome for entry in listed.audit_entries] == ["denied", "allowed"]
    assert "my-password" not in str(listed)


def test_a_revoked_token_ends_in_other_processes_with_their_next_poll(world: World) -> None:
    holder, verifier = other_process(world)
    token, kept = app_token(world), app_token(world)
    verifier.verify(token)

    world.stub(caller="").RevokeToken(pb.RevokeTokenRequest(token=token), timeout=5)
    poll(world, holder)

    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    assert verifier.verify(kept)


def test_revoking_rubbish_is_no_error_and_leaves_no_entry(world: World) -> None:
    reply = world.stub(caller="").RevokeToken(pb.RevokeTokenRequest(token="rubbish"), timeout=5)

    assert reply == pb.RevokeTokenResponse()
    listed = world.stub().ListAuditEntries(pb.ListAuditEntriesRequest(resource="tokens"), timeout=5)
    assert list(listed.audit_entries) == []


def test_a_revocation_is_in_the_trail_with_its_subject(world: World) -> None:
    world.stub(caller="").RevokeToken(pb.RevokeTokenRequest(token=app_token(world)), timeout=5)

    listed = world.stub().ListAuditEntries(pb.ListAuditEntriesRequest(subject="app:marketing-app"), timeout=5)

    assert [entry.action for entry in listed.audit_entries] == ["revoke", "create"]


def test_a_disabled_app_loses_its_tokens_and_cannot_sign_in(world: World) -> None:
    holder, verifier = other_process(world)
    token = app_token(world)
    world.clock.forward(1)

    request = pb.DisablePrincipalRequest(principal_id="app-marketing-app")
    disabled = world.stub().DisablePrincipal(request, timeout=5)
    poll(world, holder)

    assert disabled.state == pb.PRINCIPAL_STATE_DISABLED
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    with pytest.raises(grpc.RpcError):
        app_token(world)
    caller = Caller("app:marketing-app", "app", "marketing")
    assert not holder.current.decide(caller, "search", "read").allowed


def test_an_enabled_app_signs_in_again(world: World) -> None:
    world.stub().DisablePrincipal(pb.DisablePrincipalRequest(principal_id="app-marketing-app"), timeout=5)
    world.clock.forward(1)
    world.stub().EnablePrincipal(pb.EnablePrincipalRequest(principal_id="app-marketing-app"), timeout=5)
    world.clock.forward(1)
    _, verifier = other_process(world)

    assert verifier.verify(app_token(world)).subject == "app:marketing-app"


def test_the_last_administrator_cannot_be_disabled_or_stripped(world: World) -> None:
    for call, request in [
        ("DisablePrincipal", pb.DisablePrincipalRequest(principal_id="user-root")),
        (
            "UpdatePrincipal",
            pb.UpdatePrincipalRequest(
                principal_id="user-root", principal=pb.Principal(), update_mask=FieldMask(paths=["roles"])
            ),
        ),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            getattr(world.stub(), call)(request, timeout=5)
        assert refusal(caught.value) == ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR")


def new_person(world: World, login: str, role: str = "role:administrator") -> pb.Principal:
    person = pb.Principal(kind=pb.PRINCIPAL_KIND_PERSON, login=login, department="administration", roles=[role])
    return world.stub().CreatePrincipal(pb.CreatePrincipalRequest(principal=person), timeout=5)


def test_a_new_persons_invitation_is_shown_once(world: World) -> None:
    created = new_person(world, "second")
    read = world.stub().GetPrincipal(pb.GetPrincipalRequest(principal_id="user-second"), timeout=5)

    assert created.secret.invitation_token.startswith("user-second.")
    assert not read.HasField("secret")


def test_a_repeated_create_returns_the_first_without_its_secret(world: World) -> None:
    app = pb.Principal(kind=pb.PRINCIPAL_KIND_APP, login="crm", department="sales", roles=["role:seller"])
    request = pb.CreatePrincipalRequest(principal=app, request_id="once")

    first = world.stub().CreatePrincipal(request, timeout=5)
    second = world.stub().CreatePrincipal(request, timeout=5)

    assert first.name == second.name
    assert not second.HasField("secret")


def test_a_taken_login_is_said(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        new_person(world, "root")

    assert refusal(caught.value) == ("ALREADY_EXISTS", "PRINCIPAL_EXISTS")


@pytest.mark.parametrize("role", ["role:king", "role:emergency-service"])
def test_a_role_without_meaning_and_one_for_emergencies_is_given_to_nobody(world: World, role: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        new_person(world, "second", role=role)

    assert refusal(caught.value) == ("INVALID_ARGUMENT", "PRINCIPAL_INVALID")


def test_an_outdated_etag_is_refused(world: World) -> None:
    given = pb.Principal(department="sales", roles=["role:seller"], etag="77")
    with pytest.raises(grpc.RpcError) as caught:
        world.stub().UpdatePrincipal(
            pb.UpdatePrincipalRequest(principal_id="app-office-app", principal=given), timeout=5
        )

    assert refusal(caught.value) == ("ABORTED", "ETAG_MISMATCH")


def update_of_office_app(*paths: str, **fields: object) -> pb.UpdatePrincipalRequest:
    principal, mask = pb.Principal(**fields), FieldMask(paths=paths)
    return pb.UpdatePrincipalRequest(principal_id="app-office-app", principal=principal, update_mask=mask)


def test_a_part_of_a_principal_is_changed_and_the_rest_stays(world: World) -> None:
    before = world.stub().GetPrincipal(pb.GetPrincipalRequest(principal_id="app-office-app"), timeout=5)
    changed = world.stub().UpdatePrincipal(update_of_office_app("department", department="sales"), timeout=5)

    assert (changed.department, changed.roles, changed.login) == ("sales", before.roles, before.login)


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"department": "No Such"}, "department"),
        ({"department": ""}, "department"),
        ({"roles": ["role:seller", "seller"]}, "roles[1]"),
        ({"roles": ["role:seller", "role:seller"]}, "roles"),
    ],
)
def test_what_a_principal_may_not_be_created_with_it_is_not_changed_to(
    world: World, fields: dict[str, object], bad: str
) -> None:
    request = update_of_office_app(*fields, **fields)

    assert bad_fields(lambda: world.stub().UpdatePrincipal(request, timeout=5)) == [bad]


def test_a_new_secret_replaces_the_old_one(world: World) -> None:
    rotated = world.stub().RotateSecret(pb.RotateSecretRequest(principal_id="app-marketing-app"), timeout=5)

    assert app_token(world, rotated.secret.client_secret)
    with pytest.raises(grpc.RpcError):
        app_token(world)


def test_principals_are_listed_in_pages(world: World) -> None:
    names, token = [], ""
    while True:
        request = pb.ListPrincipalsRequest(page_size=2, page_token=token)
        page = world.stub().ListPrincipals(request, timeout=5)
        names += [principal.name for principal in page.principals]
        token = page.next_page_token
        if not token:
            break

    assert names == ["principals/app-marketing-app", "principals/app-office-app", "principals/user-root"]


def draft(world: World, caller: str = "user:root@administration", **changes: object) -> pb.Policy:
    """Draft the current policy with one more rule."""
    policy = world.stub(caller).GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    given = pb.Policy(rules=policy.rules, model=policy.model, comment="sellers may count")
    rule = {"subject": "role:seller", "department": "sales", "resource": "audiences", "action": "evaluate",
            "purpose": "*", "effect": "allow", **changes}  # fmt: skip
    given.rules.add(**rule)
    return world.stub(caller).CreatePolicy(pb.CreatePolicyRequest(policy=given), timeout=5)


def id_of(policy: pb.Policy) -> str:
    return policy.name.removeprefix("policies/")


def test_a_policy_approved_by_a_second_person_comes_into_force(world: World) -> None:
    holder, _ = other_process(world)
    new_person(world, "second")
    policy_id = id_of(draft(world))
    world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)

    approved = world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=5)
    poll(world, holder)

    assert (approved.version, approved.author, approved.approver) == (2, "user:root", "user:second")
    assert holder.current.version == 2
    assert holder.current.decide(Caller("user:x", "user", "sales"), "audiences", "evaluate").allowed is False


def test_nobody_approves_their_own_policy(world: World) -> None:
    policy_id = id_of(draft(world))
    world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)

    with pytest.raises(grpc.RpcError) as caught:
        world.stub().ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=5)

    assert refusal(caught.value) == ("FAILED_PRECONDITION", "SELF_APPROVAL")


def test_the_only_operator_approves_alone_until_there_is_a_second() -> None:
    with running_world(self_approval=True) as world:
        policy_id = id_of(draft(world))
        world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)
        approved = world.stub().ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=5)
        new_person(world, "second")
        other_id = id_of(draft(world, subject="role:agent", department="service"))
        world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=other_id), timeout=5)

        with pytest.raises(grpc.RpcError) as caught:
            world.stub().ApprovePolicy(pb.ApprovePolicyRequest(policy_id=other_id), timeout=5)

        assert approved.version == 2
        assert refusal(caught.value) == ("FAILED_PRECONDITION", "SELF_APPROVAL")


@pytest.mark.parametrize("how", ["by night", "from tomorrow"])
def test_an_administrator_by_night_or_from_tomorrow_is_a_second_operator(how: str) -> None:
    night = NamedCondition("night", TimeOfDay("Asia/Shanghai", "22:00", "06:00"))
    tomorrow = str(int(START.timestamp()) + 86_400)
    with running_world(self_approval=True) as world:
        new_person(world, "second", role="role:auditor")
        current = world.context.directory.policy
        rules = [("role:auditor", *rule[1:], "night") for rule in current.content.rules if rule[0] == ADMINISTRATOR]
        if how == "by night":
            content = replace(current.content, rules=(*current.content.rules, *rules), conditions=(night,))
        else:
            link = ("role:auditor", ADMINISTRATOR, "administration", tomorrow, "0")
            content = replace(current.content, links=(link,))
        policies, number = world.context.policies, current.number + 1
        policies.insert(replace(current, id="in-force", number=number, content=content, version=0))
        world.context.directory.refresh(at_once=True)
        own = {"author": "user:root", "submitter": "user:root", "comment": "alone", "base": number}
        policies.insert(replace(current, id="own", state="submitted", number=0, content=content, version=0, **own))

        with pytest.raises(grpc.RpcError) as caught:
            world.stub().ApprovePolicy(pb.ApprovePolicyRequest(policy_id="own"), timeout=5)

        assert refusal(caught.value) == ("FAILED_PRECONDITION", "SELF_APPROVAL")


def test_a_draft_with_faults_cannot_be_submitted_and_they_are_listed(world: World) -> None:
    policy_id = id_of(draft(world, effect="Deny"))

    listed = world.stub().ValidatePolicy(pb.ValidatePolicyRequest(policy_id=policy_id), timeout=5)
    with pytest.raises(grpc.RpcError) as caught:
        world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)

    assert not listed.valid
    assert listed.faults[0].field.endswith(".effect")
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_INVALID")


def test_of_two_drafts_from_one_version_the_second_is_outdated(world: World) -> None:
    new_person(world, "second")
    first, second = id_of(draft(world)), id_of(draft(world, subject="role:agent", department="service"))
    for policy_id in (first, second):
        world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)
    world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=first), timeout=5)

    with pytest.raises(grpc.RpcError) as caught:
        world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=second), timeout=5)

    assert refusal(caught.value) == ("ABORTED", "POLICY_OUTDATED")


def test_a_rollback_is_a_new_version_with_the_old_content(world: World) -> None:
    new_person(world, "second")
    policy_id = id_of(draft(world))
    world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)
    world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=5)

    back = world.stub().RollbackPolicy(pb.RollbackPolicyRequest(policy_id="default"), timeout=5)

    first = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="default"), timeout=5)
    assert back.version == 3
    assert list(first.rules) == list(back.rules)
    listed = world.stub().ListPolicies(pb.ListPoliciesRequest(), timeout=5)
    assert [policy.version for policy in listed.policies] == [3, 2, 1]


def test_roles_show_rules_and_members(world: World) -> None:
    role = world.stub().GetRole(pb.GetRoleRequest(role_id="marketer"), timeout=5)
    listed = world.stub().ListRoles(pb.ListRolesRequest(), timeout=5)

    assert list(role.members) == ["app:marketing-app"]
    assert list(role.departments) == ["marketing"]
    assert len(listed.roles) == 12


def test_explain_names_the_rule_or_the_rules_that_nearly_matched(world: World) -> None:
    asked = pb.ExplainAccessRequest(
        subject="app:marketing-app", department="marketing", purpose="marketing", resource="search", action="read"
    )
    allowed = world.stub().ExplainAccess(asked, timeout=5)
    asked.resource, asked.action = "consents", "create"
    denied = world.stub().ExplainAccess(asked, timeout=5)

    assert (allowed.allowed, allowed.rule.subject) == (True, "role:marketer")
    assert "personal/name" in allowed.masked_groups
    assert (denied.allowed, denied.reason) == (False, "NO_MATCHING_RULE")
    assert {"action", "subject"} == {miss.field for miss in denied.near_misses}


def test_conditions_teams_and_roles_that_end_come_into_force_and_are_explained(world: World) -> None:
    policy = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5)
    given = pb.Policy(rules=policy.rules, model=policy.model, comment="analysts on call, from the office, for a day")
    inside = given.conditions.add(name="inside")
    inside.network.ranges.append("10.20.0.0/16")
    east = given.conditions.add(name="east")
    east.record_attribute.field, east.record_attribute.values[:] = "province_code", ["310000", "330000"]
    given.rules.add(subject="role:on-call", department="marketing", resource="search", action="read", purpose="*",
                    effect="allow", conditions=["inside", "east"])  # fmt: skip
    link = given.role_links.add(member="user:ann", role="role:on-call", department="marketing")
    link.end_time.FromDatetime(world.clock.time + timedelta(days=1))
    given.departments.extend([*policy.departments, pb_conditions.Department(name="sales-east", parent="sales")])
    drafted = world.stub().CreatePolicy(pb.CreatePolicyRequest(policy=given), timeout=5)
    assert list(drafted.conditions) == list(given.conditions)
    assert list(drafted.role_links) == list(given.role_links)
    world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=id_of(drafted)), timeout=5)
    new_person(world, "second")
    world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=id_of(drafted)), timeout=5)
    asked = pb.ExplainAccessRequest(subject="user:ann", department="marketing", resource="search", action="read")

    outside = world.stub().ExplainAccess(asked, timeout=5)
    asked.address = "10.20.1.1"
    within = world.stub().ExplainAccess(asked, timeout=5)
    asked.time.FromDatetime(world.clock.time + timedelta(days=1))
    later = world.stub().ExplainAccess(asked, timeout=5)

    assert (outside.allowed, outside.reason, list(outside.unmet_conditions)) == (False, "CONDITION_NOT_MET", ["inside"])
    assert within.allowed
    assert [(clause.field, list(clause.values)) for clause in within.row_clauses] == [
        ("province_code", ["310000", "330000"])
    ]
    assert (later.allowed, later.reason) == (False, "NO_MATCHING_RULE")


def test_only_our_processes_fetch_snapshots_and_write_entries(world: World) -> None:
    stub = world.stub(caller="", peer="stranger")
    entries = pb.WriteAuditEntriesRequest(batch_id="x", entries=[pb.AuditEntry(time="2026-11-21T08:00:00+00:00")])
    for call in (
        lambda: stub.WriteAuditEntries(entries, timeout=5),
        lambda: stub.GetPolicySnapshot(pb.GetPolicySnapshotRequest(), timeout=5),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
