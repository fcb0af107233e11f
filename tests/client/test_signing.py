"""How callers get their tokens, and what a caller is asked when a second factor is needed again."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kehu.client import (
    AppCertificate,
    AppKey,
    AppSecret,
    CompanyToken,
    GivenToken,
    Kehu,
    KehuProblem,
    Person,
    StepUpRequired,
    Unauthenticated,
)

from infra.certificates import ensure_certificates

SOURCE = {"name": "sources/till", "display_name": "till"}
CHALLENGE = (
    'Bearer realm="kehu", error="insufficient_user_authentication", error_description="show it again", '
    'acr_values="aal2", max_age="300"'
)


class Gateway(httpx.MockTransport):
    """Gives tokens t1, t2, …; asks for a second factor while the token is one of `stale`."""

    def __init__(self, stale=(), expires_in=900):
        self.forms, self.basics, self.tokens = [], [], []
        self.stale, self.expires_in = stale, expires_in
        super().__init__(self._answer)

    def _answer(self, request):
        if request.url.path == "/oauth2/token":
            self.forms.append({name: value[0] for name, value in parse_qs(request.content.decode()).items()})
            self.basics.append(request.headers.get("authorization", ""))
            return httpx.Response(200, json={"access_token": f"t{len(self.forms)}", "expires_in": self.expires_in})
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        if token in self.stale:
            body = {"status": 401, "reason": "STEP_UP_REQUIRED", "detail": "show it again", "instance": "r1"}
            return httpx.Response(401, json=body, headers={"WWW-Authenticate": CHALLENGE})
        return httpx.Response(200, json=SOURCE)


def call(sign_in, gateway=None, times=1):
    gateway = gateway or Gateway()
    with Kehu("https://kehu.example", sign_in, "service", transport=gateway) as kehu:
        for _ in range(times):
            assert kehu.profiles.get_source(name="sources/till").display_name == "till"
    return gateway


def test_an_app_signs_in_by_basic_with_both_parts_form_encoded():
    gateway = call(AppSecret("shop", "a+b/c d"), times=2)

    assert gateway.forms == [{"grant_type": "client_credentials"}]
    assert base64.b64decode(gateway.basics[0].removeprefix("Basic ")) == b"shop:a%2Bb%2Fc+d"


def test_an_app_signs_a_statement_that_is_good_once():
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    gateway = call(AppKey("shop", pem), Gateway(expires_in=0), times=2)

    assertions = [form["client_assertion"] for form in gateway.forms]
    claims = [
        jwt.decode(one, key.public_key(), ["EdDSA"], audience="https://kehu.example/oauth2/token") for one in assertions
    ]
    assert {(said["iss"], said["sub"], said["exp"] - said["iat"]) for said in claims} == {("shop", "shop", 60)}
    assert len({said["jti"] for said in claims}) == 2
    assert gateway.forms[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def test_a_person_signs_in_with_a_new_code_each_time():
    codes = iter(["111111", "222222"])
    gateway = call(Person("li.na", "secret", lambda: next(codes)), Gateway(expires_in=10), times=2)

    assert [form["totp"] for form in gateway.forms] == ["111111", "222222"]
    assert gateway.forms[0] == {
        "grant_type": "password", "username": "li.na", "password": "secret", "totp": "111111",
    }  # fmt: skip


def test_a_person_shows_a_second_factor_when_asked_and_the_call_is_sent_again():
    codes = iter(["111111", "222222"])
    gateway = call(Person("li.na", "secret", lambda: next(codes)), Gateway(stale=("t1",)))

    assert gateway.tokens == ["t1", "t2"]
    assert gateway.forms[1] == {
        "grant_type": "urn:kehu:params:oauth:grant-type:step-up", "subject_token": "t1", "totp": "222222",
    }  # fmt: skip


def test_who_cannot_show_a_second_factor_is_told_what_is_asked():
    gateway = Gateway(stale=("t1",))
    with pytest.raises(StepUpRequired) as caught:
        call(AppSecret("shop", "secret"), gateway)

    assert (caught.value.acr_values, caught.value.max_age_seconds) == ("aal2", 300)
    assert len(gateway.forms) == 1


def test_a_second_factor_is_asked_for_once():
    with pytest.raises(StepUpRequired):
        call(Person("li.na", "secret", lambda: "1"), Gateway(stale=("t1", "t2")))


def test_a_company_token_is_exchanged():
    gateway = call(CompanyToken(lambda: "idtoken", nonce="n"))

    assert gateway.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "idtoken",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "nonce": "n",
        }
    ]


def test_a_given_token_is_asked_for_again_after_its_time():
    tokens = iter(["a", "b"])
    gateway = call(GivenToken(lambda: next(tokens), seconds=0), times=2)

    assert (gateway.tokens, gateway.forms) == (["a", "b"], [])


@pytest.mark.parametrize(
    "sign_in",
    [
        AppSecret("shop", "HUSH"),
        AppKey("shop", "HUSH"),
        AppCertificate("shop", Path("c.pem"), Path("HUSH.pem")),
        Person("li.na", "HUSH", lambda: "1"),
        CompanyToken(lambda: "x", nonce="HUSH"),
    ],
    ids=lambda sign_in: type(sign_in).__name__,
)
def test_no_secret_is_printed(sign_in):
    assert "HUSH" not in f"{sign_in!r} {sign_in} {Kehu('http://127.0.0.1:1', sign_in)!r}"


@pytest.mark.parametrize("url", ["http://kehu.example", "kehu.example", "ftp://x", "https://user:word@kehu.example"])
def test_no_secret_is_sent_in_clear(url):
    with pytest.raises(ValueError, match="https://"):
        Kehu(url, AppSecret("shop", "secret"))


def test_an_app_shows_its_certificate_with_every_connection(tmp_path):
    ensure_certificates(tmp_path, ["gateway", "shop"])
    authority, seen = tmp_path / "ca.pem", []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, body):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.path, self.connection.getpeercert()["subject"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self._answer(b'{"access_token": "t", "expires_in": 900}')

        def do_GET(self):
            self._answer(b'{"name": "sources/till"}')

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(tmp_path / "gateway.pem", tmp_path / "gateway.key")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        sign_in = AppCertificate("shop", tmp_path / "shop.pem", tmp_path / "shop.key")
        url = f"https://localhost:{server.server_port}"
        with Kehu(url, sign_in, authority=authority) as kehu:
            kehu.profiles.get_source(name="sources/till")
        bare = Kehu(url, AppSecret("shop", "x"), authority=authority, deadline_seconds=0.1)
        with bare, pytest.raises(KehuProblem):
            bare.profiles.get_source(name="sources/till")
    finally:
        server.shutdown()

    assert [path for path, _ in seen] == ["/oauth2/token", "/v1/sources/till"]


def test_a_refused_token_is_asked_for_once_more_and_then_told(caplog):
    def refuse(request):
        if request.url.path == "/oauth2/token":
            return httpx.Response(200, json={"access_token": "HUSH", "expires_in": 900})
        return httpx.Response(401, json={"status": 401, "reason": "TOKEN_INVALID", "detail": "no"})

    with (
        caplog.at_level(logging.DEBUG),
        Kehu("https://kehu.example", AppSecret("a", "HUSH"), transport=httpx.MockTransport(refuse)) as kehu,
        pytest.raises(Unauthenticated) as caught,
    ):
        kehu.profiles.get_source(name="sources/till")

    assert "HUSH" not in str(caught.value) + caplog.text
