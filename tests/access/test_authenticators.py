"""Second factors people add themselves: WebAuthn by a real authenticator in software, and more one-time codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import cbor2
import grpc
import pyotp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import authenticators_pb2, people_pb2

from services.access.domain import webauthn
from services.access.domain.principals import Authenticator, Principal
from services.access.domain.webauthn import RelyingParty
from services.access.methods.tokens import PASSKEY
from services.chassis.config import ConfigError, load_config
from tests.access.test_api import new_person, other_process, person_token, refusal
from tests.access.test_people import GOOD, accept
from tests.access.test_step_up import STEP_UP, claims
from tests.access.virtual_authenticator import PRESENT, VirtualAuthenticator, raw, text
from tests.access.world import START, World, running_world

ORIGIN = "https://kehu.test"
ROOT, LI = "user:root@administration", "user:li.na@administration"


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def begin(world: World, caller: str = ROOT, kind: int = authenticators_pb2.AUTHENTICATOR_KIND_WEBAUTHN) -> Any:
    wanted = authenticators_pb2.Authenticator(kind=kind, display_name="办公室的钥匙")
    request = authenticators_pb2.CreateAuthenticatorRequest(authenticator=wanted)
    return world.stub(caller).CreateAuthenticator(request, timeout=5)


def activate(world: World, begun: Any, caller: str = ROOT, **shown: str) -> Any:
    id = begun.name.rpartition("/")[2]
    request = authenticators_pb2.ActivateAuthenticatorRequest(authenticator_id=id, **shown)
    return world.stub(caller).ActivateAuthenticator(request, timeout=5)


def enrolled(world: World, caller: str = ROOT, **how: Any) -> VirtualAuthenticator:
    key = VirtualAuthenticator(**how)
    begun = begin(world, caller)
    activate(world, begun, caller, credential=key.create(begun.creation_options, ORIGIN))
    return key


def asked(world: World, username: str = "root", passwordless: bool = False) -> str:
    request = authenticators_pb2.CreateSignInChallengeRequest(username=username, passwordless=passwordless)
    return world.stub(caller="").CreateSignInChallenge(request, timeout=5).request_options


def asked_again(world: World, caller: str = ROOT) -> str:
    request = authenticators_pb2.CreateStepUpChallengeRequest()
    return world.stub(caller).CreateStepUpChallenge(request, timeout=5).request_options


def token(world: World, **form: str) -> str:
    return world.stub(caller="").CreateToken(pb.CreateTokenRequest(**form), timeout=5).access_token


def by_password(world: World, answer: str, **form: str) -> str:
    wanted = {"grant_type": "password", "username": "root", "password": "root password", "webauthn": answer, **form}
    return token(world, **wanted)


def by_passkey(world: World, answer: str, username: str = "") -> str:
    return token(world, grant_type=PASSKEY, webauthn=answer, username=username)


def step_up(world: World, held: str, answer: str) -> str:
    return token(world, grant_type=STEP_UP, subject_token=held, webauthn=answer)


def listed(world: World, caller: str = ROOT) -> list[Any]:
    request = authenticators_pb2.ListOwnAuthenticatorsRequest()
    return list(world.stub(caller).ListOwnAuthenticators(request, timeout=5).authenticators)


def remove(world: World, id: str, caller: str = ROOT) -> None:
    request = authenticators_pb2.DeleteOwnAuthenticatorRequest(authenticator_id=id)
    world.stub(caller).DeleteOwnAuthenticator(request, timeout=5)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_key_signs_in_beside_the_password_and_confirms_again(world: World, algorithm: str) -> None:
    key = enrolled(world, algorithm=algorithm)

    first = by_password(world, key.get(asked(world), ORIGIN, verified=False))
    world.clock.forward(400)
    second = step_up(world, first, key.get(asked_again(world), "https://login.kehu.test", verified=False))

    assert (claims(first)["amr"], claims(first)["acr"]) == (["pwd", "pop"], "aal2")
    assert claims(second)["amr"] == ["pwd", "pop"]
    assert claims(second)["auth_time"] == claims(first)["auth_time"] + 400
    _, verifier = other_process(world)
    assert verifier.verify(second).subject == "user:root"


@pytest.mark.parametrize("username", ["", "root"])
def test_a_passkey_that_verifies_the_person_is_both_factors(world: World, username: str) -> None:
    passkey = enrolled(world, counts=False)

    tokens = [by_passkey(world, passkey.get(asked(world, username, True), ORIGIN), username) for _ in range(3)]

    assert [(claims(each)["amr"], claims(each)["acr"]) for each in tokens] == [(["pop", "mfa"], "aal2")] * 3
    session = claims(tokens[0])["jti"].partition(".")[0]
    assert session in {s.name.rpartition("/")[2] for s in world.stub(ROOT).ListSessions(
        people_pb2.ListSessionsRequest(principal_id="user-root"), timeout=5).sessions}  # fmt: skip


def test_the_codes_of_the_invitation_still_let_in_beside_a_key(world: World) -> None:
    enrolled(world)

    assert claims(person_token(world))["amr"] == ["pwd", "otp"]


def test_what_is_kept_of_a_key_is_its_public_half_and_what_the_person_called_it(world: World) -> None:
    key = enrolled(world)

    kept = world.context.principals.get("user-root").authenticators[0]  # type: ignore[union-attr]
    shown = listed(world)

    assert (kept.credential_id, kept.public_key, kept.secret) == (text(key.credential_id), text(key.public_key()), "")
    assert kept.transports == ("usb",)
    assert [(one.display_name, one.active) for one in shown] == [("TOTP", True), ("办公室的钥匙", True)]
    assert not any(one.creation_options or one.totp_secret for one in shown)


def test_options_ask_no_attestation_name_us_and_leave_out_what_is_there(world: World) -> None:
    key = enrolled(world)

    found = json.loads(begin(world).creation_options)

    assert found["rp"] == {"id": "kehu.test", "name": "Kehu"}
    assert (found["attestation"], [each["alg"] for each in found["pubKeyCredParams"]]) == ("none", [-8, -7, -257])
    assert [each["id"] for each in found["excludeCredentials"]] == [text(key.credential_id)]
    assert "root" not in str(raw(found["user"]["id"]))
    assert len(raw(found["user"]["id"])) >= 16


@dataclass
class Attack:
    """Somebody with a stolen password, and an answer that is wrong in one way."""

    world: World
    key: VirtualAuthenticator  # root's
    other: VirtualAuthenticator  # li.na's

    def __call__(self, origin: str = ORIGIN, **faults: Any) -> str:
        return by_password(self.world, self.key.get(asked(self.world), origin, **faults))

    def once_more(self) -> str:
        answer = self.key.get(asked(self.world), ORIGIN)
        by_password(self.world, answer)
        return by_password(self.world, answer)

    def with_a_new_signature(self) -> str:
        """A challenge once answered is used up, whatever is signed of it later."""
        options = asked(self.world)
        by_password(self.world, self.key.get(options, ORIGIN))
        return by_password(self.world, self.key.get(options, ORIGIN))

    def late(self) -> str:
        options = asked(self.world)
        self.world.clock.forward(301)
        return by_password(self.world, self.key.get(options, ORIGIN))

    def after_a_failure(self) -> str:
        options = asked(self.world)
        with pytest.raises(grpc.RpcError):
            by_password(self.world, self.key.get(options, "https://evil.test"))
        return by_password(self.world, self.key.get(options, ORIGIN))

    def altered(self, place: int) -> str:
        answer = json.loads(self.key.get(asked(self.world), ORIGIN))
        signature = bytearray(raw(answer["response"]["signature"]))
        signature[place] ^= 1
        answer["response"]["signature"] = text(bytes(signature))
        return by_password(self.world, json.dumps(answer))

    def another_signature_format(self) -> str:
        return self(signature=b"\x00" * 64)

    def resigned_challenge(self) -> str:
        challenge = bytearray(raw(json.loads(asked(self.world))["challenge"]))
        challenge[0] ^= 1  # it would end later
        return self(challenge=text(bytes(challenge)))

    def in_the_registration_format(self) -> str:
        begun = begin(self.world)
        return by_password(self.world, self.key.create(begun.creation_options, ORIGIN))

    def registration_challenge(self) -> str:
        challenge = json.loads(begin(self.world).creation_options)["challenge"]
        return self(challenge=challenge)

    def removed(self) -> str:
        options = asked(self.world)
        remove(self.world, listed(self.world)[1].name.rpartition("/")[2])
        return by_password(self.world, self.key.get(options, ORIGIN))

    def counter_equal(self) -> str:
        by_password(self.world, self.key.get(asked(self.world), ORIGIN))
        return self(count=self.key.count)

    def not_activated(self) -> str:
        key, begun = VirtualAuthenticator(), begin(self.world)
        key.create(begun.creation_options, ORIGIN)
        return by_password(self.world, key.get(asked(self.world), ORIGIN))

    def passkey(self, origin: str = ORIGIN, username: str = "", **faults: Any) -> str:
        answer = self.key.get(asked(self.world, username, True), origin, **faults)
        return by_passkey(self.world, answer, username)

    def held(self) -> str:
        self.world.clock.forward(60)
        return person_token(self.world)


BAD: dict[str, Callable[[Attack], str]] = {
    "another origin": lambda a: a("https://evil.test"),
    "an origin that begins as ours": lambda a: a("https://kehu.test.evil.test"),
    "another port": lambda a: a("https://kehu.test:8443"),
    "http": lambda a: a("http://kehu.test"),
    "inside a page of others": lambda a: a(crossOrigin=True),
    "another relying party": lambda a: a(rp_id="evil.test"),
    "a subdomain as relying party": lambda a: a(rp_id="login.kehu.test"),
    "the answer again": Attack.once_more,
    "a used challenge signed anew": Attack.with_a_new_signature,
    "a challenge after a failure": Attack.after_a_failure,
    "a challenge six minutes old": Attack.late,
    "a challenge of another person": lambda a: a(challenge=json.loads(asked(a.world, "li.na"))["challenge"]),
    "a challenge of nobody": lambda a: a(challenge=json.loads(asked(a.world, ""))["challenge"]),
    "a challenge for step-up": lambda a: a(challenge=json.loads(asked_again(a.world))["challenge"]),
    "a challenge for a passkey": lambda a: a(challenge=json.loads(asked(a.world, "root", True))["challenge"]),
    "a challenge of registration": Attack.registration_challenge,
    "a challenge of one's own": lambda a: a(challenge=text(b"\x7f" * 100)),
    "a challenge with another end": Attack.resigned_challenge,
    "no challenge": lambda a: a(challenge=""),
    "the counter back": lambda a: a(count=0) if a(count=9) else "",
    "the counter not moved": Attack.counter_equal,
    "an altered signature": lambda a: a.altered(-1),
    "a signature altered elsewhere": lambda a: a.altered(8),
    "another signature": Attack.another_signature_format,
    "another person's key": lambda a: by_password(a.world, a.other.get(asked(a.world), ORIGIN)),
    "another person's key named as root's": lambda a: by_password(
        a.world, a.other.get(asked(a.world), ORIGIN, id=a.key.credential_id)
    ),
    "another person's handle": lambda a: a(handle=a.other.handle),
    "an unknown credential": lambda a: a(id=b"\x01" * 32),
    "nobody present": lambda a: a(flags=0),
    "the type of a registration": lambda a: a(type="webauthn.create"),
    "no type": lambda a: a(type=""),
    "a registration in place of an assertion": Attack.in_the_registration_format,
    "authenticator data cut": lambda a: a(data=b"\x00" * 36),
    "authenticator data with more behind": lambda a: a(data=b"\x00" * 40),
    "client data that is no JSON": lambda a: a(client_data=b"{"),
    "client data that is a list": lambda a: a(client_data=b"[]"),
    "a key that was removed": Attack.removed,
    "a key that was only begun": Attack.not_activated,
    "no JSON at all": lambda a: by_password(a.world, "x"),
    "a number": lambda a: by_password(a.world, "7"),
    "deep JSON": lambda a: by_password(a.world, "[" * 9000),
    "a wrong password beside the right key": lambda a: by_password(
        a.world, a.key.get(asked(a.world), ORIGIN), password="no"
    ),
    "nobody's name": lambda a: by_password(a.world, a.key.get(asked(a.world, "nobody"), ORIGIN), username="nobody"),
    "a passkey that did not verify": lambda a: a.passkey(verified=False),
    "a passkey of another origin": lambda a: a.passkey("https://evil.test"),
    "a passkey with a challenge of a second factor": lambda a: by_passkey(
        a.world, a.key.get(asked(a.world), ORIGIN), "root"
    ),
    "a passkey under another name": lambda a: a.passkey(username="li.na"),
    "a passkey with another's handle": lambda a: a.passkey(handle=a.other.handle),
    "a passkey without a handle": lambda a: a.passkey(handle=""),
    "a passkey with a handle of nobody": lambda a: a.passkey(handle="AAAA"),
    "a passkey without an answer": lambda a: by_passkey(a.world, "", "root"),
    "step-up by another's key": lambda a: step_up(a.world, a.held(), a.other.get(asked_again(a.world), ORIGIN)),
    "step-up with a challenge of another": lambda a: step_up(
        a.world, a.held(), a.key.get(asked_again(a.world, LI), ORIGIN)
    ),
    "step-up with a challenge of a sign-in": lambda a: step_up(a.world, a.held(), a.key.get(asked(a.world), ORIGIN)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_lets_nobody_in_and_counts_as_a_wrong_try(name: str) -> None:
    with running_world() as world:
        invitation = new_person(world, "li.na").secret.invitation_token
        accept(world, invitation)
        attack = Attack(world, enrolled(world), enrolled(world, LI))
        before = len(world.context.principals.get("user-root").authenticators)  # type: ignore[union-attr]

        code, reason = refused(lambda: BAD[name](attack))

        assert (code, reason) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")
        assert before == 1


def test_there_are_bad_answers_enough() -> None:
    assert len(BAD) >= 20


def test_wrong_answers_lock_as_wrong_codes_do_and_share_the_wait(world: World) -> None:
    key = enrolled(world)
    for _ in range(3):
        refused(lambda: by_password(world, key.get(asked(world), "https://evil.test")))
    for _ in range(2):
        refused(lambda: person_token(world, code="000000"))

    right = refused(lambda: by_password(world, key.get(asked(world), ORIGIN)))
    passkey = refused(lambda: by_passkey(world, key.get(asked(world, "", True), ORIGIN)))
    locked = world.context.principals.get("user-root").locked_until  # type: ignore[union-attr]
    world.clock.forward(2)

    assert (right, passkey) == (("UNAUTHENTICATED", "CREDENTIALS_REFUSED"),) * 2
    assert locked == START + timedelta(seconds=1)
    assert by_password(world, key.get(asked(world), ORIGIN))


def test_a_challenge_tells_nobody_who_exists(world: World) -> None:
    without_key, nobody = (json.loads(asked(world, name)) for name in ("root", "nobody"))
    again = json.loads(asked(world, "nobody"))
    enrolled(world)
    with_key = json.loads(asked(world, "root"))

    shapes = []
    for found in (without_key, nobody, with_key):
        credentials = [{name: len(value) for name, value in each.items()} for each in found["allowCredentials"]]
        shapes.append((sorted(found), credentials, len(found["challenge"])))
    assert shapes[0] == shapes[1] == shapes[2]
    assert nobody["allowCredentials"] == again["allowCredentials"]  # the same each time, as a real one is
    assert nobody["challenge"] != again["challenge"]
    assert json.loads(asked(world, ""))["allowCredentials"] == []


def test_more_one_time_codes_are_added_and_each_code_counts_once(world: World) -> None:
    begun = begin(world, kind=authenticators_pb2.AUTHENTICATOR_KIND_TOTP)
    code = pyotp.TOTP(begun.totp_secret).at(world.clock.time)
    early = refused(lambda: person_token(world, code=code))
    wrong = refused(lambda: activate(world, begun, totp="000000"))
    activate(world, begun, totp=code)
    used = refused(lambda: person_token(world, code=code))
    world.clock.forward(30)

    following = pyotp.TOTP(begun.totp_secret).at(world.clock.time)
    first = claims(person_token(world, code=following))["amr"]

    assert (early, used) == (("UNAUTHENTICATED", "CREDENTIALS_REFUSED"),) * 2
    assert wrong == ("INVALID_ARGUMENT", "AUTHENTICATOR_REFUSED")
    assert first == ["pwd", "otp"]
    assert refused(lambda: person_token(world, code=following))[0] == "UNAUTHENTICATED"
    assert claims(person_token(world))["amr"] == ["pwd", "otp"]  # the first app goes on


def test_what_was_begun_ends_after_ten_minutes_and_by_the_next_beginning(world: World) -> None:
    key = VirtualAuthenticator()
    first = begin(world)
    second = begin(world)
    given_up = refused(lambda: activate(world, first, credential=key.create(first.creation_options, ORIGIN)))
    world.clock.forward(601)
    late = refused(lambda: activate(world, second, credential=key.create(second.creation_options, ORIGIN)))

    assert given_up == late == ("NOT_FOUND", "AUTHENTICATOR_NOT_FOUND")


BAD_REGISTRATIONS: dict[str, dict[str, Any]] = {
    "another relying party": {"rp_id": "evil.test"},
    "nobody present": {"flags": 0},
    "the type of an assertion": {"type": "webauthn.get"},
    "inside a page of others": {"crossOrigin": True},
    "a statement beside none": {"statement": {"sig": b"x"}},
    "an attestation of a maker": {"fmt": "packed", "statement": {"alg": -7, "sig": b"x", "x5c": [b"x"]}},
    "another format": {"fmt": "tpm"},
    "a key that is none": {"public_key": cbor2.dumps({1: 2, 3: -7, -1: 1, -2: b"\x00" * 32, -3: b"\x01" * 32})},
    "a key for nothing we know": {"public_key": cbor2.dumps({1: 2, 3: -36, -1: 3, -2: b"\x01", -3: b"\x02"})},
}


@pytest.mark.parametrize("name", BAD_REGISTRATIONS)
def test_a_bad_credential_is_not_taken(world: World, name: str) -> None:
    begun = begin(world)
    credential = VirtualAuthenticator().create(begun.creation_options, ORIGIN, **BAD_REGISTRATIONS[name])

    assert refused(lambda: activate(world, begun, credential=credential)) == (
        "INVALID_ARGUMENT", "AUTHENTICATOR_REFUSED",
    )  # fmt: skip
    assert [one.active for one in listed(world)] == [True, False]


def test_short_rsa_keys_other_origins_and_known_credentials_are_not_taken(world: World) -> None:
    key = enrolled(world)
    begun = begin(world)
    for bad in (
        VirtualAuthenticator("RS256", bits=1024).create(begun.creation_options, ORIGIN),
        VirtualAuthenticator().create(begun.creation_options, "https://evil.test"),
        key.create(begun.creation_options, ORIGIN),
        "{}",
        "",
    ):
        assert refused(lambda bad=bad: activate(world, begun, credential=bad))[1] == "AUTHENTICATOR_REFUSED"


def test_a_key_that_signs_for_itself_is_taken(world: World) -> None:
    key, begun = VirtualAuthenticator(), begin(world)
    activate(world, begun, credential=key.create(begun.creation_options, ORIGIN, fmt="packed"))

    assert by_password(world, key.get(asked(world), ORIGIN))


def test_the_last_second_factor_stays(world: World) -> None:
    only = refused(lambda: remove(world, "initial"))
    begun = begin(world)
    with_a_begun_one = refused(lambda: remove(world, "initial"))
    key = VirtualAuthenticator()
    activate(world, begun, credential=key.create(begun.creation_options, ORIGIN))
    remove(world, "initial")

    assert only == with_a_begun_one == ("FAILED_PRECONDITION", "LAST_AUTHENTICATOR")
    assert [one.display_name for one in listed(world)] == ["办公室的钥匙"]
    assert refused(lambda: person_token(world)) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")
    assert refused(lambda: remove(world, listed(world)[0].name.rpartition("/")[2]))[1] == "LAST_AUTHENTICATOR"
    assert refused(lambda: remove(world, "initial")) == ("NOT_FOUND", "AUTHENTICATOR_NOT_FOUND")
    assert by_password(world, key.get(asked(world), ORIGIN))


def test_an_administrator_removes_a_lost_key_and_its_sessions_end(world: World) -> None:
    accept(world, new_person(world, "li.na").secret.invitation_token)
    key = enrolled(world, LI)
    held = by_password(world, key.get(asked(world, "li.na"), ORIGIN), username="li.na", password=GOOD)
    request = authenticators_pb2.ListAuthenticatorsRequest(principal_id="user-li.na")
    found = world.stub().ListAuthenticators(request, timeout=5).authenticators
    id = found[1].name.rpartition("/")[2]
    removal = authenticators_pb2.DeleteAuthenticatorRequest(principal_id="user-li.na", authenticator_id=id)

    world.stub().DeleteAuthenticator(removal, timeout=5)

    assert found[1].HasField("last_use_time")
    assert refused(lambda: step_up(world, held, key.get(asked_again(world, LI), ORIGIN)))[0] == "UNAUTHENTICATED"


def test_a_person_has_eight_at_most(world: World) -> None:
    for _ in range(7):
        enrolled(world)

    assert refused(lambda: begin(world)) == ("FAILED_PRECONDITION", "AUTHENTICATOR_LIMIT")


def test_a_new_invitation_ends_all_of_them(world: World) -> None:
    new_person(world, "second")
    accept(world, new_person(world, "li.na").secret.invitation_token)
    key = enrolled(world, LI)
    world.stub().RotateSecret(pb.RotateSecretRequest(principal_id="user-li.na"), timeout=5)

    person = world.context.principals.get("user-li.na")
    answer = key.get(asked(world, "", True), ORIGIN)

    assert person is not None
    assert (person.authenticators, person.user_handle) == ((), "")
    assert refused(lambda: by_passkey(world, answer)) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")


def test_a_disabled_person_is_not_let_in_by_a_passkey(world: World) -> None:
    accept(world, new_person(world, "li.na").secret.invitation_token)
    key = enrolled(world, LI)
    world.stub().DisablePrincipal(pb.DisablePrincipalRequest(principal_id="user-li.na"), timeout=5)

    assert refused(lambda: by_passkey(world, key.get(asked(world, "", True), ORIGIN)))[0] == "UNAUTHENTICATED"


def test_people_of_a_company_and_apps_add_none(world: World) -> None:
    person = Principal("user", "alice", "administration", (), "", issuer="acme")
    world.context.principals.insert(person)

    assert refused(lambda: begin(world, "user:alice@administration")) == ("FAILED_PRECONDITION", "PERSON_OF_ISSUER")
    assert refused(lambda: begin(world, "app:marketing-app@marketing"))[1] == "PERSON_NEEDED"


def test_without_a_domain_it_is_off_and_says_so() -> None:
    with running_world(relying_party=RelyingParty()) as world:
        for call in (lambda: asked(world), lambda: begin(world), lambda: asked_again(world)):
            assert refused(call) == ("FAILED_PRECONDITION", "WEBAUTHN_OFF")
        assert refused(lambda: by_password(world, "{}")) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")


def test_of_many_answers_to_one_challenge_one_counts(world: World) -> None:
    key = enrolled(world)
    options = asked(world)
    answers = [key.get(options, ORIGIN) for _ in range(8)]
    got: list[str] = []

    def try_one(answer: str) -> None:
        try:
            got.append(by_password(world, answer))
        except grpc.RpcError:
            got.append("")

    threads = [threading.Thread(target=try_one, args=(answer,)) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([token for token in got if token]) <= 1
    assert len(got) == 8


PARTY = RelyingParty("kehu.test", (ORIGIN,))


def holder_of(key: VirtualAuthenticator, credential_id: str = "") -> Principal:
    id, public_key = credential_id or text(key.credential_id), text(key.public_key())
    known = Authenticator("0" * 12, "webauthn", "key", START, credential_id=id, public_key=public_key)
    return Principal("user", "ann", "sales", (), "hash", create_time=START, authenticators=(known,))


ANN = holder_of(VirtualAuthenticator(), "AAAA")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["AAAA", "public-key"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "rawId", "type", "response", "clientDataJSON", "authenticatorData", "signature",
                         "userHandle", "attestationObject", "transports", "challenge", "origin", "crossOrigin"]),
        inner, max_size=8),
)  # fmt: skip


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON, st.binary(max_size=120))
def test_whatever_is_sent_is_refused_and_never_an_error(found: object, noise: bytes) -> None:
    pending = Authenticator("0" * 12, "webauthn", "key", START, secret="AAAA")
    for answer in (json.dumps(found), text(noise), noise.decode("latin-1")):
        assert webauthn.answering(PARTY, answer, b"challenge", False, START)(ANN) is None
        assert webauthn.answering(PARTY, answer, b"challenge", False, START)(None) is None
        with pytest.raises(webauthn.Refused):
            webauthn.registered(PARTY, answer, pending, [])
        with pytest.raises(webauthn.Refused):
            webauthn.challenge_in(answer, [], "sign-in", "", START)
        assert len(webauthn.handle_in(answer)) <= 128


def test_no_flip_of_a_bit_of_a_good_answer_passes() -> None:
    key = VirtualAuthenticator()
    party, challenge = PARTY, b"c" * 40
    options = webauthn.request_options(party, challenge, [], False)
    person = holder_of(key)
    answer = json.loads(key.get(options, ORIGIN))
    assert webauthn.answering(party, json.dumps(answer), challenge, True, START)(person) is not None
    for name in ("clientDataJSON", "authenticatorData", "signature"):
        whole = raw(answer["response"][name])
        for bit in range(0, len(whole) * 8, 3):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            bad = {**answer, "response": {**answer["response"], name: text(bytes(flipped))}}
            assert webauthn.answering(party, json.dumps(bad), challenge, True, START)(person) is None, (name, bit)


def test_guesses_at_a_password_to_change_it_count_however_many_come_at_once(world: World) -> None:
    """Before, of guesses that came together one was counted: each round of a hundred cost one of five tries."""
    store, ready = world.context.principals, threading.Barrier(8, timeout=10)
    found = store.get

    def together(principal_id: str) -> Principal | None:
        person = found(principal_id)
        if not ready.broken and getattr(once, "first", True):
            once.first = False
            ready.wait()
        return person

    once = threading.local()
    store.get = together  # type: ignore[method-assign]
    reasons: list[tuple[str, str]] = []

    def guess(number: int) -> None:
        request = people_pb2.ChangePasswordRequest(current_password=f"guess {number}", new_password=GOOD)
        reasons.append(refused(lambda: world.stub(ROOT).ChangePassword(request, timeout=20)))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.get = found  # type: ignore[method-assign]
    person = store.get("user-root")

    assert set(reasons) == {("INVALID_ARGUMENT", "PASSWORD_REFUSED")}
    assert person is not None
    assert person.failures >= 5
    assert person.locked_until is not None


@pytest.mark.parametrize(
    ("public", "rp_id", "origins", "expected"),
    [
        ("https://kehu.acme.cn", None, None, ("kehu.acme.cn", ("https://kehu.acme.cn",))),
        ("https://kehu.acme.cn", "acme.cn", "https://kehu.acme.cn,https://login.acme.cn",
         ("acme.cn", ("https://kehu.acme.cn", "https://login.acme.cn"))),
        ("http://localhost:8080", None, None, ("localhost", ("http://localhost:8080",))),
        ("http://127.0.0.1:8080", None, None, ("", ())),
        ("https://[::1]:8080", None, None, ("", ())),
        ("http://kehu.acme.cn", None, None, ("", ())),
        ("https://kehu.acme.cn", "", None, ("", ())),
        ("https://kehu.acme.cn", "other.cn", None, None),
        ("https://kehu.acme.cn", "hu.acme.cn", None, None),
        ("https://kehu.acme.cn", "acme.cn", "http://kehu.acme.cn", None),
        ("https://kehu.acme.cn", "acme.cn", "https://kehu.acme.cn/", None),
        ("https://kehu.acme.cn", "acme.cn", "https://x@kehu.acme.cn", None),
        ("http://127.0.0.1:8080", "acme.cn", None, None),
    ],
)  # fmt: skip
def test_domain_and_origins_are_of_one_piece(
    public: str, rp_id: str | None, origins: str | None, expected: tuple[str, tuple[str, ...]] | None
) -> None:
    environ = {"KEHU_PUBLIC_URL": public}
    environ |= {"KEHU_WEBAUTHN_RP_ID": rp_id} if rp_id is not None else {}
    environ |= {"KEHU_WEBAUTHN_ORIGINS": origins} if origins is not None else {}
    if expected is None:
        with pytest.raises(ConfigError, match="KEHU_WEBAUTHN_ORIGINS"):
            load_config(environ, with_stores=False)
        return
    config = load_config(environ, with_stores=False)
    assert (config.webauthn_id, config.webauthn_origins) == expected


def test_an_answer_without_presence_flag_is_no_second_factor_for_step_up(world: World) -> None:
    key = enrolled(world)
    held = by_password(world, key.get(asked(world), ORIGIN, flags=PRESENT))

    assert refused(lambda: step_up(world, held, key.get(asked_again(world), ORIGIN, flags=0)))[0] == "UNAUTHENTICATED"
