"""Signing in by what a stack's credentials.json says."""

from __future__ import annotations

import json
import stat
from urllib.parse import parse_qs

import pyotp

from infra.api import SignIns
from tests.infra.conftest import TOTP_SECRET


def test_a_departments_writes_wait_until_the_stack_is_mended(gateway):
    gateway.answers["/v1/sources/a"] = [(503, {}), (502, {}), {"etag": "2"}]

    kehu = SignIns(gateway.credentials).department("sales", "sales")
    assert kehu.profiles.update_source(source={"name": "sources/a"}).etag == "2"


def test_a_sign_in_waits_until_the_stack_is_mended(gateway):
    gateway.answers["/oauth2/token"] = [(503, {}), {"access_token": "t", "expires_in": 900}]
    gateway.answers["/v1/sources/a"] = [{"etag": "2"}]

    assert SignIns(gateway.credentials).department("sales").profiles.get_source(name="sources/a").etag == "2"


def test_the_administrator_signs_in_by_password_and_code_once_for_several_commands(gateway):
    gateway.answers["/v1/policies"] = [{}]
    for _ in range(2):
        SignIns(gateway.credentials).administrator().access.list_policies()

    form = {name: values[0] for name, values in parse_qs(gateway.bodies[0]).items()}
    assert (form["grant_type"], form["username"], form["password"]) == ("password", "a", "p")
    assert pyotp.TOTP(TOTP_SECRET).verify(form["totp"], valid_window=1)
    assert gateway.asked["/oauth2/token"] == 1


def test_a_token_that_ends_soon_is_not_used_again(gateway):
    gateway.answers["/v1/policies"] = [{}]
    gateway.answers["/oauth2/token"] = [{"access_token": "t", "expires_in": 90}]
    for _ in range(2):
        SignIns(gateway.credentials).administrator().access.list_policies()

    assert gateway.asked["/oauth2/token"] == 2


def test_a_kept_token_that_is_refused_is_replaced(gateway):
    gateway.answers["/v1/policies"] = [{}]
    SignIns(gateway.credentials).administrator().access.list_policies()
    gateway.answers["/v1/policies"] = [(401, {"reason": "TOKEN_INVALID"}), {}]
    SignIns(gateway.credentials).administrator().access.list_policies()

    assert gateway.asked["/oauth2/token"] == 2


def test_a_write_refused_for_want_of_a_fresh_factor_is_sent_again_with_one(gateway):
    gateway.answers["/oauth2/token"] = [
        {"access_token": "old", "expires_in": 900}, {"access_token": "new", "expires_in": 900},
    ]  # fmt: skip
    refused = (401, {"status": 401, "reason": "STEP_UP_REQUIRED"})
    gateway.answers["/v1/profiles/x:erase"] = [refused, {"name": "operations/o", "done": True}]

    profiles = SignIns(gateway.credentials).administrator().profiles
    assert profiles.erase_profile(name="profiles/x", reason="asked").is_done
    form = {name: values[0] for name, values in parse_qs(gateway.bodies[2]).items()}
    assert (form["grant_type"], form["subject_token"]) == ("urn:kehu:params:oauth:grant-type:step-up", "old")
    assert pyotp.TOTP(TOTP_SECRET).verify(form["totp"], valid_window=1)
    assert json.loads((gateway.folder / "a-token.json").read_text())["access_token"] == "new"


def test_only_the_owner_may_read_the_administrators_token(gateway):
    gateway.answers["/v1/policies"] = [{}]
    SignIns(gateway.credentials).administrator().access.list_policies()

    assert stat.S_IMODE((gateway.folder / "a-token.json").stat().st_mode) == 0o600
