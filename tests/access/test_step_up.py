"""Step-up (RFC 9470), row 15 of the reliability matrix: every confirmed method against every kind of token."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import grpc
import jwt
import pytest
from google.protobuf.empty_pb2 import Empty
from kehu.access.v1 import access_pb2 as pb

from gateway.auth import Doorkeeper
from gateway.limits import Limits
from gateway.problems import Problem, from_rpc
from gateway.transcoding.catalog import Method, import_protos, methods_of
from gateway.wire import open_exchange
from services.access.bootstrap import seed
from services.access.domain.principals import Principal
from services.access.domain.tokens import Grant
from services.chassis.access import MODEL, PolicySnapshot, SnapshotHolder, TokenVerifier
from services.chassis.errors import Unauthenticated
from services.chassis.server import Guard
from tests.access.test_api import other_process, person_token, poll, refusal
from tests.access.world import AUDIENCE, ISSUER, SECOND, START, World, new_world, running_world
from tests.harness import MemoryTrail

STEP_UP = "urn:kehu:params:oauth:grant-type:step-up"
METHODS = [method for method in methods_of(import_protos()) if method.plan.step_up]
ANN = Principal("user", "ann", "d", (), "")
APP = Principal("app", "app", "d", (), "")
CHALLENGE = re.compile(
    r'Bearer realm="kehu", error="insufficient_user_authentication", error_description="[^"]+", '
    r'acr_values="aal2", max_age="300"'
)


@pytest.fixture(scope="module")
def world() -> World:
    return new_world()


def token(world: World, principal: Principal = ANN, age: float = 0, methods: tuple[str, ...] = ("pwd", "otp")) -> str:
    """Return a token signed by access, of a sign-in `age` seconds ago."""
    shown = START - timedelta(seconds=age)
    return world.context.issuer.issue(principal, "t", shown, Grant(methods, auth_time=shown))


def without(world: World, claim: str) -> str:
    """Return a token signed by our key that lacks a claim of ours."""
    text = token(world)
    header, claims = jwt.get_unverified_header(text), jwt.decode(text, options={"verify_signature": False})
    del claims[claim]
    return jwt.encode(claims, world.context.issuer.keys[-1].private, algorithm="EdDSA", headers=header)


def from_the_future(world: World) -> str:
    text = token(world)
    header, claims = jwt.get_unverified_header(text), jwt.decode(text, options={"verify_signature": False})
    later = {**claims, "auth_time": claims["auth_time"] + 60}
    return jwt.encode(later, world.context.issuer.keys[-1].private, algorithm="EdDSA", headers=header)


STALE: dict[str, Callable[[World], str]] = {
    "five minutes and a second old": lambda w: token(w, age=301),
    "almost fifteen minutes old": lambda w: token(w, age=890),
    "a password alone": lambda w: token(w, methods=("pwd",)),
    "a one-time code alone": lambda w: token(w, methods=("otp",)),
    "two things known": lambda w: token(w, methods=("pwd", "pin")),
    "two things held": lambda w: token(w, methods=("otp", "hwk")),
    "a text message": lambda w: token(w, methods=("pwd", "sms")),
    "a word we do not know": lambda w: token(w, methods=("pwd", "magic")),
    "no amr": lambda w: without(w, "amr"),
    "no auth_time": lambda w: without(w, "auth_time"),
    "auth_time in the future": from_the_future,
}
FRESH: dict[str, Callable[[World], str]] = {
    "just signed in": lambda w: token(w),
    "almost five minutes old": lambda w: token(w, age=299),
    "a security key": lambda w: token(w, methods=("pwd", "hwk")),
    "an issuer that says mfa": lambda w: token(w, methods=("mfa",)),
}


@dataclass
class Outcome:
    """What a gate said: nothing when it let the call pass."""

    status: int = 0
    reason: str = ""
    header: str = ""


def snapshot(world: World, *resources: tuple[str, str]) -> SnapshotHolder:
    rows = [(who, "d", resource, action, "*", "allow") for resource, action in resources for who in NAMES]
    holder = SnapshotHolder()
    keys = {key.key_id: key.public for key in world.context.issuer.keys}
    holder.swap(PolicySnapshot(1, MODEL, rows or [("user:no", "d", "x", "y", "*", "allow")], [], keys=keys))
    return holder


NAMES = ("user:ann", "app:app")


def at_the_gateway(world: World, holder: SnapshotHolder, method: Method, bearer: str, trail: MemoryTrail) -> Outcome:
    tokens = TokenVerifier(holder, ISSUER, AUDIENCE, lambda: START.timestamp())
    door = Doorkeeper(holder, tokens, trail, Limits(), clock=lambda: START.timestamp())
    headers = [(b"authorization", f"Bearer {bearer}".encode()), (b"x-purpose", b"administration")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b"", "client": None}
    try:
        asyncio.run(door.admit(open_exchange(scope, None), method))  # type: ignore[arg-type]
    except Problem as problem:
        return outcome(problem)
    return Outcome()


def outcome(problem: Problem) -> Outcome:
    return Outcome(problem.status, problem.reason, dict(problem.headers).get(b"www-authenticate", b"").decode())


class Context:
    """As much of a gRPC call as the guard looks at."""

    def __init__(self, bearer: str) -> None:
        self._metadata = (("authorization", f"Bearer {bearer}"), ("x-purpose", "administration"))
        self.aborted: object = None

    def time_remaining(self) -> float:
        return 5.0

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def abort_with_status(self, status: object) -> None:
        self.aborted = status
        raise grpc.RpcError


class Failed(grpc.RpcError):
    """What the gateway sees of an aborted call."""

    def __init__(self, status: object) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code  # type: ignore[attr-defined]

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._status.trailing_metadata  # type: ignore[attr-defined]


def at_the_guard(world: World, holder: SnapshotHolder, method: Method, bearer: str, trail: MemoryTrail) -> Outcome:
    tokens = TokenVerifier(holder, ISSUER, AUDIENCE, lambda: START.timestamp())
    plans = {method.path: replace(method.plan, target_paths=())}  # the request is empty
    guard = Guard("x", plans, holder, tokens, trail, lambda context: "gateway", now=lambda: START.timestamp())
    served = grpc.unary_unary_rpc_method_handler(lambda request, context: Empty())
    details = type("Details", (), {"method": method.path, "invocation_metadata": ()})()
    handler, context = guard.intercept_service(lambda found: served, details), Context(bearer)
    try:
        handler.unary_unary(Empty(), context)
    except grpc.RpcError:
        return outcome(from_rpc(Failed(context.aborted)))
    return Outcome()


GATES = pytest.mark.parametrize("gate", [at_the_gateway, at_the_guard], ids=["gateway", "guard"])
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)


def test_there_are_methods_to_confirm() -> None:
    assert len(METHODS) >= 16


@GATES
@EACH
@pytest.mark.parametrize("kind", STALE)
def test_a_person_without_a_fresh_second_factor_gets_401_and_the_challenge(
    world: World, gate: Callable[..., Outcome], method: Method, kind: str
) -> None:
    trail = MemoryTrail()
    holder = snapshot(world, (method.plan.resource, method.plan.action))

    found = gate(world, holder, method, STALE[kind](world), trail)

    assert (found.status, found.reason) == (401, "STEP_UP_REQUIRED")
    assert CHALLENGE.fullmatch(found.header)
    assert trail.entries == [("user:ann", method.path, "", "UNAUTHENTICATED")]


@GATES
@EACH
@pytest.mark.parametrize("kind", FRESH)
def test_a_person_with_a_fresh_second_factor_passes(
    world: World, gate: Callable[..., Outcome], method: Method, kind: str
) -> None:
    holder = snapshot(world, (method.plan.resource, method.plan.action))

    assert gate(world, holder, method, FRESH[kind](world), MemoryTrail()) == Outcome()


@GATES
@EACH
def test_a_second_factor_opens_nothing_that_the_policy_does_not(
    world: World, gate: Callable[..., Outcome], method: Method
) -> None:
    found = gate(world, snapshot(world), method, token(world), MemoryTrail())

    assert (found.status, found.reason) == (403, "PERMISSION_DENIED")


@GATES
@EACH
def test_an_app_needs_the_right_to_act_unattended(world: World, gate: Callable[..., Outcome], method: Method) -> None:
    right = (method.plan.resource, method.plan.action)
    unattended = (f"unattended/{right[0]}", right[1])
    bearer = token(world, APP, methods=("client_secret",))
    trail = MemoryTrail()

    refused = gate(world, snapshot(world, right), method, bearer, trail)

    assert (refused.status, refused.reason, refused.header) == (403, "UNATTENDED_DENIED", "")
    assert trail.entries == [("app:app", method.path, "", "PERMISSION_DENIED")]
    assert gate(world, snapshot(world, unattended), method, bearer, MemoryTrail()).reason == "PERMISSION_DENIED"
    assert gate(world, snapshot(world, right, unattended), method, bearer, MemoryTrail()) == Outcome()


@GATES
@EACH
def test_the_right_to_act_unattended_does_not_spare_a_person(
    world: World, gate: Callable[..., Outcome], method: Method
) -> None:
    right = (method.plan.resource, method.plan.action)
    holder = snapshot(world, right, (f"unattended/{right[0]}", right[1]))

    assert gate(world, holder, method, token(world, age=301), MemoryTrail()).status == 401


def test_a_rule_may_grant_unattended_rights_of_confirmed_methods_only() -> None:
    inventory = new_world().context.inventory

    assert inventory.actions["unattended/profiles"] == {"erase", "reveal"}
    assert "unattended/segments" not in inventory.actions


# ---- stepping up ------------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> Iterator[World]:
    with running_world() as running:
        yield running


def step_up(world: World, held: str, code: str = "") -> str:
    request = pb.CreateTokenRequest(grant_type=STEP_UP, subject_token=held, totp=code or world.code())
    return world.stub(caller="").CreateToken(request, timeout=5).access_token


def claims(text: str) -> dict[str, object]:
    part = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=="))


def test_a_new_code_makes_an_old_token_fresh_without_the_password(live: World) -> None:
    held = person_token(live)
    live.clock.forward(600)

    fresh = step_up(live, held)
    caller = other_process(live)[1].verify(fresh)

    assert caller.auth_time == live.clock.time
    assert (caller.subject, caller.methods) == ("user:root", ("pwd", "otp"))
    assert claims(fresh)["acr"] == "aal2"


def test_the_code_of_the_sign_in_does_not_count_again(live: World) -> None:
    held, used = person_token(live), live.code()

    with pytest.raises(grpc.RpcError) as caught:
        step_up(live, held, used)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")


def test_wrong_codes_are_counted_with_wrong_passwords(live: World) -> None:
    """Ten tries at six digits, then the wait: the right code is refused too."""
    held = person_token(live)
    live.clock.forward(60)
    for _ in range(5):
        with pytest.raises(grpc.RpcError):
            step_up(live, held, "000000")

    with pytest.raises(grpc.RpcError) as caught:
        step_up(live, held)
    live.clock.forward(30)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")
    assert step_up(live, held)


def revoked(world: World) -> str:
    held = person_token(world)
    world.stub(caller="").RevokeToken(pb.RevokeTokenRequest(token=held), timeout=5)
    world.clock.forward(60)
    return held


def expired(world: World) -> str:
    held = person_token(world)
    world.clock.forward(960)
    return held


def of_an_app(world: World) -> str:
    app = world.context.principals.get("app-marketing-app")
    assert app is not None
    return world.context.issuer.issue(app, "a", world.clock())


@pytest.mark.parametrize("make", [revoked, expired, of_an_app, lambda world: "rubbish", lambda world: ""])
def test_only_a_living_token_of_a_person_steps_up(live: World, make: Callable[[World], str]) -> None:
    held = make(live)

    with pytest.raises(grpc.RpcError) as caught:
        step_up(live, held)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "SUBJECT_TOKEN_REFUSED")


def test_a_token_from_step_up_ends_with_the_person(live: World) -> None:
    seed(live.context, [SECOND])  # of the last administrator it would be refused
    holder, verifier = other_process(live)
    held = person_token(live)
    live.clock.forward(60)
    fresh = step_up(live, held)
    verifier.verify(fresh)
    live.clock.forward(1)

    live.stub().RotateSecret(pb.RotateSecretRequest(principal_id="user-root"), timeout=5)
    poll(live, holder)

    with pytest.raises(Unauthenticated):
        verifier.verify(fresh)


def test_stepping_up_is_in_the_trail(live: World) -> None:
    held = person_token(live)
    live.clock.forward(60)
    with pytest.raises(grpc.RpcError):
        step_up(live, held, "000000")
    step_up(live, held)

    listed = live.stub().ListAuditEntries(pb.ListAuditEntriesRequest(resource="tokens"), timeout=5)

    assert [entry.outcome for entry in listed.audit_entries] == ["allowed", "denied", "allowed"]


def test_the_guard_of_access_itself_asks_for_step_up(live: World) -> None:
    request = pb.CreatePrincipalRequest(
        principal=pb.Principal(kind=pb.PRINCIPAL_KIND_APP, login="x", department="sales", roles=["role:seller"])
    )

    with pytest.raises(grpc.RpcError) as caught:
        live.stub("user:root~301@administration").CreatePrincipal(request, timeout=5)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "STEP_UP_REQUIRED")
    assert live.context.principals.get("app-x") is None
