"""What apps prove themselves with: secrets in rotation, signed assertions, TLS certificates."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.access.v1 import access_pb2 as access
from kehu.access.v1 import credentials_pb2 as pb

from services.access.bootstrap import seed
from services.access.company import STALE_SECONDS
from services.access.domain.credentials import ASSERTION_TYPE, thumbprint
from services.access.domain.principals import Credential, Principal
from services.access.store import mongo
from services.access.store.once import MemoryOnce, MemoryUses, MongoOnce, MongoUses, Once, Uses
from services.chassis import records
from services.chassis.crypto import Sealer
from services.chassis.errors import Unauthenticated
from tests.access.stores import BOTH, emptied
from tests.access.test_api import other_process, poll, refusal
from tests.access.tiny_issuer import TinyIssuer, running_issuer
from tests.access.world import PEOPLE, START, TOKEN_ENDPOINT, World, running_world
from tests.harness import bad_fields

APP = "app-marketing-app"
KEYS: dict[str, Callable[[], object]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
}
ALGORITHMS = jwt.algorithms.get_default_algorithms()


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def sign_in(world: World, thumb: str = "", **how: str) -> access.CreateTokenResponse:
    request = access.CreateTokenRequest(grant_type="client_credentials", **{"client_id": "marketing-app", **how})
    metadata = [("x-client-certificate", thumb)] if thumb else []
    return world.stub(caller="").CreateToken(request, timeout=5, metadata=metadata)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return refusal(error.value)[1]


def add(world: World, kind: int, **fields: object) -> pb.Credential:
    request = pb.CreateCredentialRequest(principal_id=APP, credential=pb.Credential(kind=kind, **fields))
    return world.stub().CreateCredential(request, timeout=5)


def add_secret(world: World, **fields: object) -> pb.Credential:
    return add(world, pb.CREDENTIAL_KIND_SECRET, **fields)


def retire(world: World, credential_id: str) -> None:
    world.stub().DeleteCredential(pb.DeleteCredentialRequest(principal_id=APP, credential_id=credential_id), timeout=5)


def listed(world: World) -> dict[str, pb.Credential]:
    reply = world.stub().ListCredentials(pb.ListCredentialsRequest(principal_id=APP), timeout=5)
    return {c.name.rpartition("/")[2]: c for c in reply.credentials}


def id_of(credential: pb.Credential) -> str:
    return credential.name.rpartition("/")[2]


def jwk_of(key: object) -> str:
    name = "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else (
        "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
    )  # fmt: skip
    return ALGORITHMS[name].to_jwk(key.public_key())


def a_certificate(days: int = 30, is_authority: bool = False) -> tuple[str, str]:
    """Return a self-signed certificate as PEM and its thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(START - timedelta(days=40))
    builder = builder.not_valid_after(START + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode(), thumbprint(made.public_bytes(Encoding.DER))


def test_two_secrets_work_at_once_and_the_first_is_retired_by_its_last_use(world: World) -> None:
    second = add_secret(world, display_name="autumn").client_secret
    old = sign_in(world, client_secret="marketing secret").access_token
    world.clock.forward(60)
    new = sign_in(world, client_secret=second).access_token
    before = listed(world)
    holder, verifier = other_process(world)

    retire(world, "initial")
    poll(world, holder)

    assert [before[name].last_use_time.ToJsonString()[11:19] for name in before] == ["08:00:00", "08:01:00"]
    with pytest.raises(Unauthenticated):
        verifier.verify(old)
    assert verifier.verify(new).subject == "app:marketing-app", "the other secret's tokens go on"
    assert refused(lambda: sign_in(world, client_secret="marketing secret")) == "CREDENTIALS_REFUSED"
    assert sign_in(world, client_secret=second).access_token


def test_a_third_secret_waits_until_one_is_retired_also_when_many_ask_at_once(world: World) -> None:
    outcomes: list[str] = []

    def ask() -> None:
        try:
            outcomes.append(id_of(add_secret(world)))
        except grpc.RpcError as error:
            outcomes.append(refusal(error)[1])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(listed(world)) == 2
    assert sum(outcome not in ("CREDENTIAL_LIMIT", "ETAG_MISMATCH") for outcome in outcomes) == 1
    retire(world, "initial")
    assert add_secret(world).client_secret


def test_a_secret_ends_and_no_token_outlives_it(world: World) -> None:
    ends = Timestamp()
    ends.FromDatetime(START + timedelta(seconds=100))
    secret = add_secret(world, expire_time=ends).client_secret

    world.clock.forward(40)
    token = sign_in(world, client_secret=secret)
    world.clock.forward(61)

    assert token.expires_in == 60
    assert refused(lambda: sign_in(world, client_secret=secret)) == "CREDENTIALS_REFUSED"


def test_a_repeated_create_makes_one_secret_and_does_not_show_it_again(world: World) -> None:
    request = pb.CreateCredentialRequest(
        principal_id=APP, credential=pb.Credential(kind=pb.CREDENTIAL_KIND_SECRET), request_id="once"
    )
    first, again = (world.stub().CreateCredential(request, timeout=5) for _ in range(2))

    assert (first.name, bool(first.client_secret)) == (again.name, not again.client_secret)
    assert len(listed(world)) == 2


def test_a_new_secret_for_an_app_whose_secret_got_out_ends_all_its_secrets(world: World) -> None:
    second = add_secret(world).client_secret
    world.stub().RotateSecret(access.RotateSecretRequest(principal_id=APP), timeout=5)

    for secret in ("marketing secret", second):
        assert refused(lambda secret=secret: sign_in(world, client_secret=secret)) == "CREDENTIALS_REFUSED"


def test_a_retired_first_secret_does_not_come_back_with_a_restart(world: World) -> None:
    add_secret(world)
    retire(world, "initial")
    seed(world.context, PEOPLE)

    assert refused(lambda: sign_in(world, client_secret="marketing secret")) == "CREDENTIALS_REFUSED"


def test_what_is_not_there_cannot_be_retired(world: World) -> None:
    assert refused(lambda: retire(world, "abc")) == "CREDENTIAL_NOT_FOUND"


@dataclass
class Signer:
    """An app's key; signs assertions, right and wrong."""

    world: World
    key: object
    algorithm: str = "EdDSA"

    def assertion(self, key: object = None, algorithm: str = "", header: dict | None = None, **changes: object) -> str:
        now = int(self.world.clock.time.timestamp())
        right = {"iss": "marketing-app", "sub": "marketing-app", "aud": TOKEN_ENDPOINT, "exp": now + 300,
                 "iat": now, "jti": uuid.uuid4().hex}  # fmt: skip
        claims = {name: value for name, value in {**right, **changes}.items() if value is not None}
        return jwt.encode(claims, key or self.key, algorithm=algorithm or self.algorithm, headers=header)

    def sign_in(self, assertion: str, **how: str) -> access.CreateTokenResponse:
        given = {"client_id": "", "client_assertion_type": ASSERTION_TYPE, **how}
        return sign_in(self.world, client_assertion=assertion, **given)


@pytest.fixture
def signer(world: World) -> Signer:
    key = ed25519.Ed25519PrivateKey.generate()
    add(world, pb.CREDENTIAL_KIND_PUBLIC_KEY, public_jwk=jwk_of(key))
    return Signer(world, key)


@pytest.mark.parametrize("algorithm", KEYS)
def test_an_app_signs_in_by_an_assertion_of_its_own_key(world: World, algorithm: str) -> None:
    key = KEYS[algorithm]()
    made = add(world, pb.CREDENTIAL_KIND_PUBLIC_KEY, public_jwk=jwk_of(key))
    signer = Signer(world, key, algorithm)

    token = signer.sign_in(signer.assertion()).access_token

    caller = other_process(world)[1].verify(token)
    assert (caller.subject, caller.methods) == ("app:marketing-app", ("private_key_jwt",))
    assert listed(world)[id_of(made)].HasField("last_use_time")


BAD_ASSERTIONS: dict[str, Callable[[Signer], str]] = {
    "another key": lambda s: s.assertion(key=ed25519.Ed25519PrivateKey.generate()),
    "no algorithm": lambda s: jwt.encode(jwt.decode(s.assertion(), options={"verify_signature": False}), None, "none"),
    "a shared secret": lambda s: s.assertion(key="x" * 32, algorithm="HS256"),
    "RS256": lambda s: s.assertion(key=KEYS["RS256"](), algorithm="RS256"),
    "another issuer": lambda s: s.assertion(iss="office-app"),
    "another subject": lambda s: s.assertion(sub="office-app"),
    "both another": lambda s: s.assertion(iss="office-app", sub="office-app"),
    "another audience": lambda s: s.assertion(aud="https://elsewhere.test/token"),
    "several audiences": lambda s: s.assertion(aud=[TOKEN_ENDPOINT, "https://elsewhere.test"]),
    "no audience": lambda s: s.assertion(aud=None),
    "over": lambda s: s.assertion(exp=int(START.timestamp()) - 6),
    "too long": lambda s: s.assertion(exp=int(START.timestamp()) + 400),
    "endless": lambda s: s.assertion(exp=1e400),
    "true": lambda s: s.assertion(exp=True),
    "no end": lambda s: s.assertion(exp=None),
    "not yet": lambda s: s.assertion(nbf=int(START.timestamp()) + 60),
    "no id": lambda s: s.assertion(jti=None),
    "a short id": lambda s: s.assertion(jti="1"),
    "a long id": lambda s: s.assertion(jti="x" * 300),
    "an id that is no text": lambda s: s.assertion(jti=12345678),
    "critical": lambda s: s.assertion(header={"crit": ["exp"]}),
    "cut": lambda s: s.assertion()[:-3],
    "rubbish": lambda s: "x.y.z",
}


@pytest.mark.parametrize("name", BAD_ASSERTIONS)
def test_a_bad_assertion_is_refused_in_the_same_words(signer: Signer, name: str) -> None:
    assert refused(lambda: signer.sign_in(BAD_ASSERTIONS[name](signer))) == "CREDENTIALS_REFUSED"


def test_an_assertion_counts_once_and_with_nothing_beside_it(signer: Signer) -> None:
    assertion = signer.assertion()
    assert signer.sign_in(assertion)

    assert refused(lambda: signer.sign_in(assertion)) == "CREDENTIALS_REFUSED"
    fresh = signer.assertion()
    for how in (
        {"client_secret": "marketing secret"}, {"client_id": "office-app"}, {"client_assertion_type": "saml"},
    ):  # fmt: skip
        assert refused(lambda how=how: signer.sign_in(fresh, **how)) == "CREDENTIALS_REFUSED"
    assert signer.sign_in(fresh), "a refused one was not spent"


@pytest.fixture
def publisher(world: World) -> Iterator[TinyIssuer]:
    """An app's own pages, with its keys on one of them, which its credential names."""
    with running_issuer() as running:
        add(world, pb.CREDENTIAL_KIND_KEY_SET, jwks_uri=f"{running.url}/keys")
        yield running


def test_an_app_changes_the_keys_it_publishes_without_asking_anybody(world: World, publisher: TinyIssuer) -> None:
    first = Signer(world, publisher.key)
    token = first.sign_in(first.assertion(header={"kid": "k1"})).access_token
    publisher.turn("k2")
    world.context.companies._clock = lambda: time.monotonic() + 600
    second = Signer(world, publisher.key)

    assert second.sign_in(second.assertion(header={"kid": "k2"}))
    assert refused(lambda: first.sign_in(first.assertion(header={"kid": "k1"}))) == "CREDENTIALS_REFUSED"
    assert other_process(world)[1].verify(token).methods == ("private_key_jwt",)


@pytest.mark.parametrize("header", [None, {"kid": "k9"}, {"kid": ""}])
def test_of_a_key_set_only_the_key_that_is_named_is_tried(
    world: World, publisher: TinyIssuer, header: dict | None
) -> None:
    signer = Signer(world, publisher.key)

    assert refused(lambda: signer.sign_in(signer.assertion(header=header))) == "CREDENTIALS_REFUSED"
    other = signer.assertion(key=ed25519.Ed25519PrivateKey.generate(), header={"kid": "k1"})
    assert refused(lambda: signer.sign_in(other)) == "CREDENTIALS_REFUSED"


def test_made_up_key_ids_do_not_make_us_ask_an_app_more_than_now_and_then(
    world: World, publisher: TinyIssuer
) -> None:
    signer, before = Signer(world, publisher.key), len(publisher.asked)

    for turn in range(20):
        assert refused(lambda turn=turn: signer.sign_in(signer.assertion(header={"kid": f"x{turn}"})))
    assert len(publisher.asked) - before <= 2


def test_keys_that_cannot_be_read_any_more_prove_nothing(world: World, publisher: TinyIssuer) -> None:
    signer = Signer(world, publisher.key)
    assert signer.sign_in(signer.assertion(header={"kid": "k1"}))
    publisher.pages.clear()
    world.context.companies._clock = lambda: time.monotonic() + STALE_SECONDS + 1

    assert refused(lambda: signer.sign_in(signer.assertion(header={"kid": "k1"}))) == "CREDENTIALS_REFUSED"


@pytest.mark.parametrize("path", ["/nothing", "/.well-known/openid-configuration", "/keys?x=1", None])
def test_a_key_set_that_cannot_be_read_is_refused_when_it_is_named(world: World, path: str | None) -> None:
    with running_issuer() as running:
        url = f"{running.url}{path}" if path else "file:///etc/passwd"
        assert bad_fields(lambda: add(world, pb.CREDENTIAL_KIND_KEY_SET, jwks_uri=url)) == ["credential.jwks_uri"]
    assert not any(found.jwks_uri for found in listed(world).values())


def test_a_key_set_is_retired_like_any_credential(world: World, publisher: TinyIssuer) -> None:
    signer = Signer(world, publisher.key)
    (made,) = [found for found in listed(world).values() if found.jwks_uri]
    assert (made.kind, made.jwks_uri) == (pb.CREDENTIAL_KIND_KEY_SET, f"{publisher.url}/keys")
    retire(world, id_of(made))

    assert refused(lambda: signer.sign_in(signer.assertion(header={"kid": "k1"}))) == "CREDENTIALS_REFUSED"


BAD_KEYS = {
    "private": lambda: ALGORITHMS["EdDSA"].to_jwk(ed25519.Ed25519PrivateKey.generate()),
    "symmetric": lambda: json.dumps({"kty": "oct", "k": "c2VjcmV0"}),
    "short RSA": lambda: jwk_of(rsa.generate_private_key(65537, 1024)),
    "P-384": lambda: ALGORITHMS["ES384"].to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key()),
    "a set": lambda: json.dumps({"keys": []}),
    "no JSON": lambda: "{",
    "deep": lambda: "[" * 2000,
    "none": lambda: "",
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_that_proves_nothing_or_should_not_be_shown_is_refused(world: World, name: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        add(world, pb.CREDENTIAL_KIND_PUBLIC_KEY, public_jwk=BAD_KEYS[name]())

    assert refusal(error.value)[1] == "CREDENTIAL_INVALID"
    assert len(listed(world)) == 1


def test_an_app_with_a_certificate_gets_tokens_over_it_only_and_bound_to_it(world: World, signer: Signer) -> None:
    pem, thumb = a_certificate()
    stranger = a_certificate()[1]
    shown = add(world, pb.CREDENTIAL_KIND_CERTIFICATE, certificate_pem=pem)

    assert (shown.thumbprint, shown.certificate_pem, shown.expire_time.seconds) == (
        thumb, "", int((START + timedelta(days=30)).timestamp()),
    )  # fmt: skip
    for thief in ("", stranger):
        assert refused(lambda t=thief: sign_in(world, t, client_secret="marketing secret")) == "CREDENTIALS_REFUSED"
        assert refused(lambda t=thief: sign_in(world, t)) == "CREDENTIALS_REFUSED"
        signed = {"client_assertion": signer.assertion(), "client_assertion_type": ASSERTION_TYPE, "client_id": ""}
        assert refused(lambda t=thief, how=signed: sign_in(world, t, **how)) == "CREDENTIALS_REFUSED"
    _, verifier = other_process(world)
    for how in ({}, {"client_secret": "marketing secret"}):
        token = sign_in(world, thumb, **how).access_token
        assert verifier.verify(token, thumb).subject == "app:marketing-app"
        for thief in ("", stranger, thumb[:-1]):
            with pytest.raises(Unauthenticated):
                verifier.verify(token, thief)


def test_a_certificate_that_ends_does_not_make_the_secret_enough(world: World) -> None:
    pem, thumb = a_certificate()
    shown = add(world, pb.CREDENTIAL_KIND_CERTIFICATE, certificate_pem=pem)
    world.clock.time = START + timedelta(days=31)
    for shows in ("", thumb):
        assert refused(lambda t=shows: sign_in(world, t, client_secret="marketing secret")) == "CREDENTIALS_REFUSED"

    _, app, _, credential = shown.name.split("/")
    world.stub().DeleteCredential(pb.DeleteCredentialRequest(principal_id=app, credential_id=credential), timeout=8)
    assert sign_in(world, "", client_secret="marketing secret").access_token, "an administrator said so"


def test_another_apps_certificate_signs_nobody_else_in(world: World) -> None:
    pem, thumb = a_certificate()
    add(world, pb.CREDENTIAL_KIND_CERTIFICATE, certificate_pem=pem)

    assert refused(lambda: sign_in(world, thumb, client_id="office-app")) == "CREDENTIALS_REFUSED"
    assert sign_in(world, thumb, client_id="office-app", client_secret="office secret"), "no certificate is asked of it"


def test_whoever_holds_a_bound_token_may_end_it(world: World) -> None:
    pem, thumb = a_certificate()
    add(world, pb.CREDENTIAL_KIND_CERTIFICATE, certificate_pem=pem)
    token = sign_in(world, thumb).access_token
    holder, verifier = other_process(world)

    world.stub(caller="").RevokeToken(access.RevokeTokenRequest(token=token), timeout=5)
    poll(world, holder)

    with pytest.raises(Unauthenticated):
        verifier.verify(token, thumb)


@pytest.mark.parametrize("pem", ["", "rubbish", a_certificate(days=-1)[0], a_certificate(is_authority=True)[0]])
def test_what_is_no_living_certificate_of_an_app_is_refused(world: World, pem: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        add(world, pb.CREDENTIAL_KIND_CERTIFICATE, certificate_pem=pem)

    assert refusal(error.value)[1] == "CREDENTIAL_INVALID"


@dataclass
class Shared:
    """One implementation of what processes share."""

    uses: Uses
    once: Once


@pytest.fixture(params=BOTH)
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    if request.param == "memory":
        yield Shared(MemoryUses(), MemoryOnce())
        return
    with emptied(request, "credential_uses", "spent", "principals"):
        uses, once = MongoUses(), MongoOnce()
        uses.ensure_indexes()
        once.ensure_indexes()
        yield Shared(uses, once)


def test_of_many_that_spend_an_id_at_once_one_does(shared: Shared) -> None:
    won: list[bool] = []
    ask = lambda: won.append(shared.once.spend("app 1", START, START + timedelta(seconds=60)))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(won) == [False] * 7 + [True]
    assert shared.once.spend("app 2", START + timedelta(seconds=61), START + timedelta(seconds=120))


def test_the_latest_use_of_each_credential_is_kept(shared: Shared) -> None:
    for seconds in (5, 9, 7):
        shared.uses.note("app-a", "initial", START + timedelta(seconds=seconds))
    shared.uses.note("app-b", "x1", START)

    assert shared.uses.of("app-a") == {"initial": START + timedelta(seconds=9)}


@pytest.mark.mongo
def test_credentials_are_stored_with_their_principal(shared: Shared, tmp_path: Path) -> None:
    if isinstance(shared.uses, MemoryUses):
        pytest.skip("the principals in memory keep the value itself")
    store = mongo.MongoPrincipals(Sealer("access", tmp_path))
    records.ensure_indexes(mongo.RECORDS)
    credential = Credential("c1", "secret", "hash", "autumn", START, START + timedelta(days=1), "r1")
    app = store.insert(Principal("app", "shop", "marketing", (), "", credentials=(credential,)))

    assert store.get(app.id).credentials == (credential,)
