"""A real OpenID Connect provider, dex, as a company issuer: the code flow, the exchange, rotation of its keys."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from kehu.access.v1 import access_pb2 as access
from kehu.access.v1 import issuers_pb2 as pb

from infra.processes import free_port
from services.access.domain.issuers import EXCHANGE, TOKEN_TYPES
from tests.access.test_api import other_process, refusal
from tests.access.world import World, running_world

TOOLS = Path(__file__).parents[2] / ".tools"
BACK = "http://127.0.0.1/callback"
MISSING = "dex is not built: run tests/access/dex/build.sh (needs Go)"


@dataclass
class Dex:
    """A running dex, as a person's browser and our client see it."""

    url: str

    def sign_in(self, connector: str, client: str = "kehu", **asked: str) -> str:
        """Return the ID token of a sign-in by the authorization code flow."""
        query = {"client_id": client, "redirect_uri": BACK, "response_type": "code", "state": "s",
                 "scope": "openid email profile groups", **asked}  # fmt: skip
        with httpx.Client(trust_env=False, timeout=10) as browser:
            reply = browser.get(f"{self.url}/auth", params=query)
            for _ in range(8):
                if reply.is_redirect:
                    where = httpx.URL(self.url).join(reply.headers["location"])
                    if str(where).startswith(BACK):
                        return self._token(browser, client, where.params["code"])
                    reply = browser.get(where)
                elif 'name="login"' in reply.text:
                    form = {"login": "alice@company.test", "password": "company password"}
                    reply = browser.post(reply.url, data=form)
                else:
                    link = re.search(rf'href="([^"]*/auth/{connector}\?[^"]*)"', reply.text)
                    assert link, f"dex shows no connector {connector}: {reply.status_code}"
                    reply = browser.get(httpx.URL(self.url).join(link[1].replace("&amp;", "&")))
        raise AssertionError("dex sent no code")

    def _token(self, browser: httpx.Client, client: str, code: str) -> str:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
        reply = browser.post(f"{self.url}/token", data=form, auth=(client, "company secret"))
        return str(reply.raise_for_status().json()["id_token"])


@pytest.fixture(scope="module")
def dex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dex]:
    if not (TOOLS / "bin" / "dex").exists():
        if os.environ.get("KEHU_REQUIRE_SERVERS") == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    port = free_port()
    url = f"http://127.0.0.1:{port}/dex"
    command = [str(TOOLS / "bin" / "dex"), "-listen", f"127.0.0.1:{port}", "-issuer", url,
               "-web", str(TOOLS / "dex-web"), "-rotate", "6s"]  # fmt: skip
    log = (tmp_path_factory.mktemp("dex") / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/keys", trust_env=False, timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield Dex(url)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture
def world(dex: Dex) -> Iterator[World]:
    with running_world() as running:
        running.clock.time = datetime.now(UTC)
        rules = [
            pb.ClaimRule(claim="groups", value="authors", department="marketing", role="role:marketer"),
            pb.ClaimRule(claim="email", value="alice@company.test", department="sales", role="role:seller"),
        ]
        issuer = pb.Issuer(
            issuer_id="acme", url=dex.url, audiences=["kehu"], login_claim="email", rules=rules, provision=True
        )
        running.stub().CreateIssuer(pb.CreateIssuerRequest(issuer=issuer), timeout=8)
        yield running


def exchange(world: World, token: str, nonce: str = "") -> str:
    world.clock.time = datetime.now(UTC)
    request = access.CreateTokenRequest(
        grant_type=EXCHANGE, subject_token=token, subject_token_type=TOKEN_TYPES[0], nonce=nonce
    )
    return world.stub(caller="").CreateToken(request, timeout=8).access_token


def test_people_of_dex_sign_in_with_what_their_claims_mean(world: World, dex: Dex) -> None:
    verify = {}
    for connector in ("local", "mock"):
        token = exchange(world, dex.sign_in(connector, nonce="n-1"), "n-1")
        verify[connector] = other_process(world)[1].verify(token)

    assert (verify["local"].subject, verify["local"].department) == ("user:alice", "sales")
    assert (verify["mock"].subject, verify["mock"].department) == ("user:kilgore", "marketing")


def test_a_token_dex_made_for_another_client_is_refused(world: World, dex: Dex) -> None:
    with pytest.raises(grpc.RpcError) as error:
        exchange(world, dex.sign_in("mock", client="other"))

    assert refusal(error.value)[1] == "CREDENTIALS_REFUSED"


def test_dex_turns_its_keys_and_people_still_come_in(world: World, dex: Dex) -> None:
    def keys() -> set[str]:
        found = httpx.get(f"{dex.url}/keys", trust_env=False, timeout=5).json()["keys"]
        return {key["kid"] for key in found}

    exchange(world, dex.sign_in("mock"))
    before, end = keys(), time.monotonic() + 60
    while before & keys() == before and time.monotonic() < end:
        time.sleep(0.5)
    assert keys() - before, "dex did not turn its keys"
    time.sleep(5.1)  # the pause after an asking

    assert exchange(world, dex.sign_in("mock"))
