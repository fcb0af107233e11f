"""Signing in by what a stack's credentials.json says."""

from __future__ import annotations

import json
import stat
from urllib.parse import parse_qs

import pyotp

from infra.api import SignIns
from tests.infra.conftest import TOTP_SECRET


def test_a_departments_writes_wait_until_the_stack_is_mended(gateway):
    gateway.answers["/v1/a"] = [(503, {}), (502, {}), {"done": True}]

    assert SignIns(gateway.credentials).department("sales", "sales").post("/v1/a", {"b": 1}) == {"done": True}


def test_a_sign_in_waits_until_the_stack_is_mended(gateway):
    gateway.answers["/oauth2/token"] = [(503, {}), {"access_token": "t", "expires_in": 900}]
    gateway.answers["/v1/a"] = [{"done": True}]

    assert SignIns(gateway.credentials).department("sales").post("/v1/a") == {"done": True}


def test_the_administrator_signs_in_by_password_and_code_once_for_several_commands(gateway):
    gateway.answers["/v1/policies"] = [{}]
    for _ in range(2):
        SignIns(gateway.credentials).administrator().get("/v1/policies")

    form = {name: values[0] for name, values in parse_qs(gateway.bodies[0]).items()}
    assert (form["grant_type"], form["username"], form["password"]) == ("password", "a", "p")
    assert pyotp.TOTP(TOTP_SECRET).verify(form["totp"], valid_window=1)
    assert gateway.asked["/oauth2/token"] == 1


def test_a_token_that_ends_soon_is_not_used_again(gateway):
    gateway.answers["/v1/policies"] = [{}]
    gateway.answers["/oauth2/token"] = [{"access_token": "t", "expires_in": 90}]
    for _ in range(2):
        SignIns(gateway.credentials).administrator().get("/v1/policies")

    assert gateway.asked["/oauth2/token"] == 2


def test_a_persons_token_is_renewed_before_it_is_too_old_for_step_up(gateway, monkeypatch):
    gateway.answers["/v1/policies"] = [{}]
    SignIns(gateway.credentials).administrator().get("/v1/policies")
    token_file = gateway.folder / "a-token.json"
    kept = json.loads(token_file.read_text())

    token_file.write_text(json.dumps({**kept, "began_at": kept["began_at"] - 239}))
    SignIns(gateway.credentials).administrator().get("/v1/policies")
    asked_while_fresh = gateway.asked["/oauth2/token"]
    token_file.write_text(json.dumps({**kept, "began_at": kept["began_at"] - 241}))
    SignIns(gateway.credentials).administrator().get("/v1/policies")

    assert (asked_while_fresh, gateway.asked["/oauth2/token"]) == (1, 2)


def test_a_write_refused_for_want_of_a_fresh_factor_is_sent_again_with_a_new_token(gateway):
    gateway.answers["/v1/x:erase"] = [(401, {"reason": "STEP_UP_REQUIRED"}), {"done": True}]
    client = SignIns(gateway.credentials).administrator()

    assert client.post("/v1/x:erase") == {"done": True}


def test_only_the_owner_may_read_the_administrators_token(gateway):
    gateway.answers["/v1/policies"] = [{}]
    SignIns(gateway.credentials).administrator().get("/v1/policies")

    assert stat.S_IMODE((gateway.folder / "a-token.json").stat().st_mode) == 0o600
