"""Company issuers: whose tokens are exchanged for ours, whom they mean, and whom they never mean."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import grpc
import jwt
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from kehu.access.v1 import access_pb2 as access
from kehu.access.v1 import issuers_pb2 as pb
from kehu.access.v1 import people_pb2

from services.access.company import (
    KEPT_SECONDS,
    PAUSES,
    QUIET_SECONDS,
    STALE_SECONDS,
    Companies,
    IssuerSilent,
    fetch_json,
)
from services.access.domain.errors import IssuerExists
from services.access.domain.issuers import EXCHANGE, TOKEN_TYPES, ClaimRule, Issuer, is_safe
from services.access.domain.principals import Principal
from services.access.store.issuers import IssuerRecord, Issuers, MemoryIssuers, MongoIssuers
from services.chassis import records
from services.chassis.access import StepUpRequired, check_step_up
from services.chassis.errors import Conflict, Unauthenticated
from tests.access.stores import BOTH, emptied
from tests.access.test_api import other_process, poll, refusal
from tests.access.tiny_issuer import TinyIssuer, a_key, jwk, running_issuer
from tests.access.world import START, World, running_world
from tests.harness import bad_fields

NOW = START.timestamp()
RULES = [
    pb.ClaimRule(claim="groups", value="sales-team", department="sales", role="role:seller"),
    pb.ClaimRule(claim="groups", value="reporting", department="analytics", role="role:analyst"),
    pb.ClaimRule(claim="groups", value="chiefs", department="sales", role="role:analyst"),
]


@dataclass
class Company:
    """Our service, and a company issuer that it trusts."""

    world: World
    issuer: TinyIssuer

    def exchange(self, token: str = "", **how: str) -> access.CreateTokenResponse:
        request = access.CreateTokenRequest(
            grant_type=EXCHANGE, subject_token=token or self.token(), **{"subject_token_type": TOKEN_TYPES[0], **how}
        )
        return self.world.stub(caller="").CreateToken(request, timeout=8)

    def token(self, **how: object) -> str:
        return self.issuer.token(self.world.clock.time.timestamp(), **how)

    def refused(self, token: str = "", **how: str) -> str:
        with pytest.raises(grpc.RpcError) as error:
            self.exchange(token, **how)
        return refusal(error.value)[1]

    def update(self, **changes: object) -> pb.Issuer:
        request = pb.UpdateIssuerRequest(
            issuer_id="acme", issuer=pb.Issuer(**changes), update_mask=FieldMask(paths=list(changes))
        )
        return self.world.stub().UpdateIssuer(request, timeout=8)


def create(world: World, url: str, **changes: object) -> pb.Issuer:
    given = {"issuer_id": "acme", "url": url, "audiences": ["kehu"], "rules": RULES, "provision": True, **changes}
    return world.stub().CreateIssuer(pb.CreateIssuerRequest(issuer=pb.Issuer(**given)), timeout=8)


@pytest.fixture
def issuer() -> Iterator[TinyIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def company(issuer: TinyIssuer) -> Iterator[Company]:
    with running_world() as world:
        create(world, issuer.url)
        yield Company(world, issuer)


def test_a_persons_first_visit_makes_it_with_the_department_and_roles_of_its_claims(company: Company) -> None:
    reply = company.exchange(company.token(groups=["chiefs", "sales-team"], amr=["pwd", "otp", 7], auth_time=NOW - 60))

    caller = other_process(company.world)[1].verify(reply.access_token)
    made = company.world.context.principals.get("user-alice")
    assert (caller.subject, caller.department, caller.methods) == ("user:alice", "sales", ("pwd", "otp"))
    assert caller.auth_time == START - timedelta(seconds=60), "how fresh the second factor is, the company knows"
    assert set(made.roles) == {"role:seller", "role:analyst"} and (made.issuer, made.external_id) == ("acme", "08a8")
    assert reply.issued_token_type == "urn:ietf:params:oauth:token-type:access_token"


@pytest.mark.parametrize("told", [None, True, "now", -5, 1.7e12, NOW + 600])
def test_a_company_that_does_not_say_when_a_person_showed_themself_shows_no_fresh_factor(
    company: Company, told: object
) -> None:
    how = {} if told is None else {"auth_time": told}
    token = company.exchange(company.token(groups=["chiefs"], amr=["pwd", "mfa"], **how)).access_token

    caller = other_process(company.world)[1].verify(token)
    assert caller.methods == ("pwd", "mfa") and caller.auth_time is None
    with pytest.raises(StepUpRequired):
        check_step_up(company.world.context.directory.snapshot(), caller, "principals", "create", NOW)


def made_by_directory(company: Company, directory_id: str) -> None:
    """Have a person who was made by SCIM and never came."""
    made = Principal("user", "alice", "sales", ("role:seller",), "", issuer="acme", directory_id=directory_id)
    company.world.context.principals.insert(made)
    company.world.context.directory.refresh(at_once=True)


@pytest.mark.parametrize(
    ("claim", "directory_id", "comes"),
    [
        ("", "08a8", {}),
        ("oid", "e-1", {"oid": "e-1"}),
        ("oid", "e-1", {"oid": "e-1", "preferred_username": "Alice@acme.test"}),
    ],
)
def test_whom_the_directory_made_comes_first_with_its_own_id(
    company: Company, claim: str, directory_id: str, comes: dict[str, object]
) -> None:
    company.update(directory_claim=claim, rules=[], provision=False)
    made_by_directory(company, directory_id)

    assert company.exchange(company.token(**comes)).access_token
    assert company.world.context.principals.get("user-alice").external_id == "08a8"
    assert company.exchange(company.token(oid="moved")).access_token, "from then on its sub says who it is"


@pytest.mark.parametrize(
    ("claim", "directory_id", "comes"),
    [
        ("", "e-1", {}),
        ("oid", "e-1", {}),
        ("oid", "e-1", {"oid": "e-2"}),
        ("oid", "e-1", {"oid": ["e-1"]}),
        ("oid", "", {"oid": ""}),
        ("oid", "", {}),
        ("oid", "08a8", {"oid": "e-1"}),
    ],
)
def test_nobody_becomes_whom_the_directory_made_by_taking_their_login(
    company: Company, claim: str, directory_id: str, comes: dict[str, object]
) -> None:
    company.update(directory_claim=claim, rules=[], provision=False)
    made_by_directory(company, directory_id)

    assert company.refused(company.token(**comes)) == "CREDENTIALS_REFUSED"
    assert company.world.context.principals.get("user-alice").external_id == ""


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_each_algorithm_of_the_list_is_taken(company: Company, algorithm: str) -> None:
    company.issuer.turn("k2", algorithm)

    assert company.exchange().access_token


BAD: dict[str, Callable[[Company], str]] = {
    "another key": lambda c: c.token(key=a_key()),
    "an unknown key": lambda c: c.token(headers={"kid": "k9"}),
    "no key id": lambda c: jwt.encode({"iss": c.issuer.url}, c.issuer.key, "EdDSA"),
    "no algorithm": lambda c: jwt.encode({"iss": c.issuer.url}, None, "none", headers={"kid": "k1"}),
    "a shared secret": lambda c: c.token(key="x" * 32, algorithm="HS256"),
    "PS256": lambda c: c.token(key=a_key("PS256"), algorithm="PS256"),
    "a logout token": lambda c: c.token(headers={"typ": "logout+jwt"}),
    "another issuer": lambda c: c.token(iss="https://elsewhere.test"),
    "the issuer with a slash": lambda c: c.token(iss=c.issuer.url + "/"),
    "no issuer": lambda c: c.token(iss=None),
    "another audience": lambda c: c.token(aud="other"),
    "no audience": lambda c: c.token(aud=None),
    "several audiences, for another": lambda c: c.token(aud=["kehu", "other"], azp="other"),
    "several audiences, for nobody": lambda c: c.token(aud=["kehu", "other"]),
    "for another": lambda c: c.token(azp="other"),
    "over": lambda c: c.token(exp=int(NOW) - 31),
    "no end": lambda c: c.token(exp=None),
    "an endless end": lambda c: c.token(exp=1e400),
    "a true end": lambda c: c.token(exp=True),
    "old": lambda c: c.token(iat=int(NOW) - 631),
    "of the future": lambda c: c.token(iat=int(NOW) + 31),
    "no time of issue": lambda c: c.token(iat=None),
    "not yet": lambda c: c.token(nbf=int(NOW) + 31),
    "no subject": lambda c: c.token(sub=None),
    "an empty subject": lambda c: c.token(sub=""),
    "a subject that is no text": lambda c: c.token(sub=["08a8"]),
    "no user name": lambda c: c.token(preferred_username=None),
    "a user name that is a list": lambda c: c.token(preferred_username=["alice"]),
    "a user name that is no login": lambda c: c.token(preferred_username="爱丽丝"),
    "a user name with a line": lambda c: c.token(preferred_username="alice\n"),
    "no group": lambda c: c.token(groups=None),
    "a group of nobody": lambda c: c.token(groups=["canteen"]),
    "part of a group": lambda c: c.token(groups="sales-team-2"),
    "a nonce of somebody else": lambda c: c.token(nonce="n-2"),
    "cut": lambda c: c.token()[:-3],
    "rubbish": lambda c: "a.b.c",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_of_a_company_gets_none_of_ours(company: Company, name: str) -> None:
    assert company.refused(BAD[name](company)) == "CREDENTIALS_REFUSED"
    assert company.world.context.principals.get("user-alice") is None


def test_a_nonce_must_be_the_one_that_was_sent(company: Company) -> None:
    token = company.token(nonce="n-1")

    assert company.refused(token) == company.refused(token, nonce="n-2") == "CREDENTIALS_REFUSED"
    assert company.refused(company.token(), nonce="n-1") == "CREDENTIALS_REFUSED"
    assert company.exchange(token, nonce="n-1")


def test_a_token_is_exchanged_once_however_its_signature_is_written(company: Company) -> None:
    token = company.token()
    company.exchange(token)

    assert company.refused(token) == company.refused(token + "=") == "CREDENTIALS_REFUSED"


def test_a_name_that_is_given_again_is_not_the_person(company: Company) -> None:
    company.exchange()

    assert company.refused(company.token(sub="another")) == "CREDENTIALS_REFUSED"


def test_a_company_never_signs_in_our_own_people_nor_another_companys(company: Company) -> None:
    assert company.refused(company.token(preferred_username="root")) == "CREDENTIALS_REFUSED"
    assert company.refused(company.token(preferred_username="root@company.test")) == "CREDENTIALS_REFUSED"
    company.exchange()
    with running_issuer() as second:
        create(company.world, second.url, issuer_id="other")
        assert Company(company.world, second).refused() == "CREDENTIALS_REFUSED"


def test_a_disabled_person_stays_out_whatever_its_company_says(company: Company) -> None:
    token = company.exchange().access_token
    holder, verifier = other_process(company.world)
    company.world.stub().DisablePrincipal(access.DisablePrincipalRequest(principal_id="user-alice"), timeout=8)
    poll(company.world, holder)

    assert company.refused() == "CREDENTIALS_REFUSED"
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_changed_claims_change_the_person_and_end_its_older_tokens(company: Company) -> None:
    old = company.exchange().access_token
    company.world.clock.forward(1)
    new = company.exchange(company.token(groups=["reporting"])).access_token
    _, verifier = other_process(company.world)
    company.world.clock.forward(1)

    assert verifier.verify(new).department == "analytics"
    with pytest.raises(Unauthenticated):
        verifier.verify(old)
    links = company.world.context.directory.links()
    assert ("user:alice", "role:analyst", "analytics") in links
    assert ("user:alice", "role:seller", "sales") not in links


def test_a_new_key_is_found_by_its_id_and_the_old_ones_tokens_end_with_it(company: Company) -> None:
    old = company.token()
    company.exchange()
    company.issuer.turn("k2")
    clock = [1000.0]
    companies = company.world.context.companies
    companies._clock = lambda: clock[0]
    companies._known.clear()

    assert company.exchange().access_token
    assert company.refused(old) == "CREDENTIALS_REFUSED"


def test_unknown_key_ids_do_not_make_us_ask_more_than_now_and_then(issuer: TinyIssuer) -> None:
    clock = [0.0]
    companies = Companies(loopback=True, clock=lambda: clock[0])
    assert companies.key(issuer.url, "k1")
    before = len(issuer.asked)

    for second in range(600):
        clock[0] = float(second)
        for turn in range(5):
            assert companies.key(issuer.url, f"made-up-{second}-{turn}") is None

    asked = (len(issuer.asked) - before) // 2  # two pages each
    assert 1 <= asked <= 8, f"asked {asked} times in ten minutes"


def test_after_a_quiet_time_a_new_key_is_looked_for_as_soon_as_ever(issuer: TinyIssuer) -> None:
    clock = [0.0]
    companies = Companies(loopback=True, clock=lambda: clock[0])
    for second in range(600):
        clock[0] = float(second)
        assert companies.key(issuer.url, f"made-up-{second}") is None

    clock[0] += PAUSES[-1] + QUIET_SECONDS
    assert companies.key(issuer.url, "made-up") is None
    issuer.turn("k2")
    clock[0] += PAUSES[0]
    assert companies.key(issuer.url, "k2"), "what somebody made up long ago keeps nobody waiting"


def test_keys_are_kept_while_the_issuer_is_silent_but_not_for_ever(issuer: TinyIssuer) -> None:
    clock = [0.0]
    companies = Companies(loopback=True, clock=lambda: clock[0])
    assert companies.key(issuer.url, "k1")
    issuer.pages.clear()

    clock[0] = KEPT_SECONDS + 1
    assert companies.key(issuer.url, "k1"), "an hour of silence stops nobody"
    clock[0] = STALE_SECONDS + 1
    assert companies.key(issuer.url, "k1") is None


def test_keys_we_do_not_take_are_left_out(issuer: TinyIssuer) -> None:
    good = jwk(issuer.key, "EdDSA", "k1")
    from cryptography.hazmat.primitives.asymmetric import rsa

    small = rsa.generate_private_key(65537, 1024)
    others = [{**good, "kid": "enc", "use": "enc"}, {"kty": "oct", "k": "c2Vj", "kid": "oct"}, {"kid": "none"}, 7,
              jwk(small, "RS256", "small"), {**good, "x": "???", "kid": "broken"}]  # fmt: skip
    issuer.pages["/keys"] = {"keys": [*others, good]}

    assert set(Companies(loopback=True).discover(issuer.url)) == {"k1"}


BAD_PAGES: dict[str, Callable[[TinyIssuer], dict[str, object]]] = {
    "of another issuer": lambda i: {"/.well-known/openid-configuration": {"issuer": "https://x", "jwks_uri": "https://x"}},
    "keys by http elsewhere": lambda i: {
        "/.well-known/openid-configuration": {"issuer": i.url, "jwks_uri": "http://keys.company.test/keys"}
    },
    "keys in a file": lambda i: {"/.well-known/openid-configuration": {"issuer": i.url, "jwks_uri": "file:///etc/passwd"}},
    "no keys": lambda i: {"/keys": {"keys": []}},
    "not found": lambda i: {"/.well-known/openid-configuration": None},
    "a redirect": lambda i: {"/.well-known/openid-configuration": f"{i.url}/elsewhere"},
    "no JSON": lambda i: {"/keys": b"<html>"},
    "a list": lambda i: {"/.well-known/openid-configuration": []},
    "endless": lambda i: {"/keys": b" " * 300_000},
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "identity, gzip", "br"])
def test_a_reply_that_is_encoded_is_never_unpacked(issuer: TinyIssuer, encoding: str) -> None:
    body = json.dumps(issuer.pages["/keys"]).encode() + b" " * 1_000_000
    for each in encoding.split(", "):
        body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(each, bytes)(body)
    issuer.encoding, issuer.pages["/keys"] = encoding, body

    with pytest.raises(IssuerSilent, match="encoded"):
        fetch_json(f"{issuer.url}/keys")


def test_a_reply_that_says_it_is_not_encoded_is_read(issuer: TinyIssuer) -> None:
    issuer.encoding = "Identity"
    assert fetch_json(f"{issuer.url}/keys") == issuer.pages["/keys"]


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("said", [OK + b"x-long: ", OK + b"content-length: 90\r\n\r\n", b""])
def test_an_issuer_that_drips_its_reply_holds_nobody_longer_than_one_that_is_silent(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.access.company.TIMEOUT_SECONDS", 0.8)
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(said)
            while not over.wait(0.1):
                connection.sendall(b"x" if said else b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        began = time.monotonic()
        with pytest.raises(IssuerSilent):
            fetch_json(f"http://127.0.0.1:{listener.getsockname()[1]}/keys")
        took = time.monotonic() - began
        over.set()
        thread.join()
    assert took < 5, "the bound is for all of it, not for each byte"


@pytest.mark.parametrize("name", BAD_PAGES)
def test_an_issuer_that_cannot_be_discovered_is_refused_when_it_is_named(issuer: TinyIssuer, name: str) -> None:
    issuer.pages.update(BAD_PAGES[name](issuer))
    with pytest.raises(IssuerSilent):
        Companies(loopback=True).discover(issuer.url)
    with running_world() as world:
        assert bad_fields(lambda: create(world, issuer.url)) == ["issuer.url"]
        assert world.context.issuers.all() == []


@pytest.mark.parametrize(
    ("url", "loopback", "safe"),
    [
        ("https://login.company.test", False, True), ("https://login.company.test:8443/tenant", False, True),
        ("http://login.company.test", True, False), ("http://127.0.0.1:5556/dex", True, True),
        ("http://127.0.0.1:5556/dex", False, False), ("http://127.0.0.1.company.test", True, False),
        ("http://127.0.0.1@company.test", True, False), ("https://a:b@company.test", True, False),
        ("https://company.test?x=1", True, False), ("https://company.test#x", True, False), ("https://", True, False),
        ("ftp://company.test", True, False), ("file:///etc/passwd", True, False), ("https://x:99999999", True, False),
    ],
)  # fmt: skip
def test_only_https_is_asked_for_keys_or_this_machine_where_allowed(url: str, loopback: bool, safe: bool) -> None:
    assert is_safe(url, loopback) is safe


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"audiences": []}, "issuer.audiences"),
        ({"rules": []}, "issuer.rules"),
        ({"rules": [pb.ClaimRule(department="sales", role="role:king")]}, "issuer.rules[0].role"),
        ({"rules": [pb.ClaimRule(department="nowhere", role="role:seller")]}, "issuer.rules[0].department"),
        ({"issuer_id": ""}, "issuer.issuer_id"),
    ],
)
def test_an_issuer_that_would_let_everybody_in_or_nobody_is_refused(issuer: TinyIssuer, changes, field) -> None:
    with running_world() as world:
        assert bad_fields(lambda: create(world, issuer.url, **changes)) == [field]


def test_an_issuer_out_of_use_lets_nobody_in_and_ends_its_peoples_tokens(company: Company) -> None:
    token = company.exchange().access_token
    holder, verifier = other_process(company.world)
    assert company.update(disabled=True).disabled
    poll(company.world, holder)

    assert company.refused() == "CREDENTIALS_REFUSED"
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    company.world.clock.forward(1)
    company.update(disabled=False)
    again = company.exchange().access_token
    company.world.stub().DeleteIssuer(pb.DeleteIssuerRequest(issuer_id="acme"), timeout=8)
    poll(company.world, holder)

    assert company.refused() == "CREDENTIALS_REFUSED"
    with pytest.raises(Unauthenticated):
        verifier.verify(again)


@pytest.mark.parametrize("step", ["save", "delete"])
def test_when_the_process_dies_as_it_takes_an_issuer_out_of_use_its_peoples_tokens_have_ended_already(
    company: Company, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = company.exchange().access_token
    holder, verifier = other_process(company.world)
    issuers = company.world.context.issuers
    write = getattr(issuers, step)

    def dies(given: object) -> None:
        write(given)
        raise SystemError

    monkeypatch.setattr(issuers, step, dies)
    with pytest.raises(grpc.RpcError):
        if step == "save":
            company.update(disabled=True)
        else:
            company.world.stub().DeleteIssuer(pb.DeleteIssuerRequest(issuer_id="acme"), timeout=8)
    poll(company.world, holder)

    assert company.refused() == "CREDENTIALS_REFUSED"
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_to_take_an_issuer_out_of_use_again_ends_what_its_people_got_meanwhile(company: Company) -> None:
    token = company.exchange().access_token
    holder, verifier = other_process(company.world)
    issuers = company.world.context.issuers
    issuers.save(replace(issuers.all()[0], disabled=True))  # as by a process that died before it ended the tokens
    company.update(disabled=True)
    poll(company.world, holder)

    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_without_provision_only_people_that_were_made_before_come_in(company: Company) -> None:
    company.update(provision=False)

    assert company.refused() == "CREDENTIALS_REFUSED"
    assert company.world.context.principals.get("user-alice") is None


def test_a_person_of_a_company_gets_no_password_here(company: Company) -> None:
    company.exchange()
    with pytest.raises(grpc.RpcError) as error:
        company.world.stub().RotateSecret(access.RotateSecretRequest(principal_id="user-alice"), timeout=8)
    assert refusal(error.value)[1] == "PERSON_OF_ISSUER"

    caller = "user:alice@sales"
    with pytest.raises(grpc.RpcError) as error:
        company.world.stub(caller).CreateRecoveryCodes(people_pb2.CreateRecoveryCodesRequest(), timeout=8)
    assert refusal(error.value)[1] == "PERSON_OF_ISSUER"
    assert not company.world.context.principals.get("user-alice").recovery_hashes

    for password in ("", "hash of "):
        request = access.CreateTokenRequest(grant_type="password", username="alice", password=password, totp="000000")
        with pytest.raises(grpc.RpcError) as error:
            company.world.stub(caller="").CreateToken(request, timeout=8)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_company_cannot_take_the_last_administrator_away(issuer: TinyIssuer) -> None:
    rules = [
        pb.ClaimRule(claim="groups", value="admins", department="administration", role="role:administrator"), *RULES,
    ]  # fmt: skip
    with running_world() as world:
        create(world, issuer.url, rules=rules)
        company = Company(world, issuer)
        company.exchange(company.token(groups=["admins"]))
        stub = world.stub(caller="user:alice@administration")
        stub.DisablePrincipal(access.DisablePrincipalRequest(principal_id="user-root"), timeout=8)
        world.clock.forward(2)

        assert company.refused() == "CREDENTIALS_REFUSED"
        assert world.context.principals.get("user-alice").roles == ("role:administrator",)


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[Issuers]:
    if request.param == "memory":
        yield MemoryIssuers()
        return
    with emptied(request, "issuers"):
        records.ensure_indexes((IssuerRecord,))
        yield MongoIssuers()


ACME = Issuer(
    "acme", "https://acme.test", ("kehu",), "email", (ClaimRule("g", "销售", "sales", "role:seller"),), True, "hr",
    directory_claim="oid",
)


def test_issuers_are_kept_whole_and_apart_by_url(store: Issuers) -> None:
    stored = store.insert(ACME, "r1")
    other = store.insert(replace(ACME, id="b", url="https://b.test"))

    assert replace(stored, version=0, create_time=None, update_time=None) == ACME
    assert store.get("acme").rules == ACME.rules
    assert [found.id for found in store.all()] == ["acme", "b"]
    assert store.by_url("https://b.test").id == other.id
    assert store.by_url("https://c.test") is None
    assert store.insert(ACME, "r1").version == 1
    for taken in (replace(ACME, id="c"), replace(ACME, url="https://c.test")):
        with pytest.raises(IssuerExists):
            store.insert(taken, "r2")


def test_of_two_changes_of_an_issuer_the_second_is_refused(store: Issuers) -> None:
    stored = store.insert(ACME)
    store.save(replace(stored, disabled=True))

    with pytest.raises(Conflict):
        store.save(replace(stored, provision=False))
    assert (store.get("acme").disabled, store.get("acme").provision) == (True, True)
    assert (store.delete("acme"), store.delete("acme"), store.get("acme")) == (True, False, None)
