"""The ways into a gateway that a stack's credentials.json gives; clients wait while the supervisor mends the stack."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from gateway.client import ClientCredentials, Json, KehuClient, KehuProblem, SignIn, fetch_token
from infra.stack import read_private, write_private

PATIENCE_SECONDS = 90.0  # how long a process that is away is waited for: the supervisor brings it back
LEAST_TOKEN_SECONDS = 120.0


class SignIns:
    """Clients of one stack; their writes carry ids or keys, or do no harm when they are done twice."""

    def __init__(self, credentials_file: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        document = json.loads(credentials_file.read_text())
        self._token_file = credentials_file.with_name("administrator-token.json")
        self._apps = {client["department"]: client for client in document["clients"]}
        self._administrator: dict[str, str] = document["administrator"]
        self._patience_seconds = patience_seconds
        self._base_url = str(document["token_url"]).removesuffix("/oauth2/token")

    def department(self, name: str, purpose: str = "") -> KehuClient:
        """Return a client of a department's app."""
        app = self._apps[name]
        return self.app(app["client_id"], app["client_secret"], purpose)

    def app(self, client_id: str, client_secret: str, purpose: str = "") -> KehuClient:
        """Return a client of any app."""
        return self._client(ClientCredentials(client_id, client_secret), purpose)

    def administrator(self, purpose: str = "administration") -> KehuClient:
        """Return a client of the administrator, signed in by password and one-time code."""
        return self._client(self._administrator_token, purpose)

    def _client(self, sign_in: SignIn, purpose: str) -> KehuClient:
        patience = self._patience_seconds
        return KehuClient(
            self._base_url, sign_in, purpose, timeout_seconds=60, patience_seconds=patience, repeats_writes=True
        )

    def _administrator_token(self, http: httpx.Client) -> Json:
        """Return a token of an earlier command while it holds, for a one-time code is good once; else a new one."""
        cached = read_private(self._token_file)
        left = float(str(cached.get("ends_at", 0))) - time.time()
        if left > LEAST_TOKEN_SECONDS:
            return {"access_token": cached["access_token"], "expires_in": left}
        token = self._password_token(http)
        ends_at = time.time() + float(str(token["expires_in"]))
        write_private(self._token_file, {"access_token": token["access_token"], "ends_at": ends_at})
        return token

    def _password_token(self, http: httpx.Client) -> Json:
        import pyotp

        known = self._administrator
        form = {"grant_type": "password", "username": known["username"], "password": known["password"]}
        code = pyotp.TOTP(known["totp_secret"])
        try:
            return fetch_token(http, {**form, "totp": code.now()})
        except KehuProblem as problem:
            if problem.reason != "CREDENTIALS_REFUSED":
                raise
        time.sleep(code.interval - time.time() % code.interval + 0.5)  # this code was used: wait for the next
        return fetch_token(http, {**form, "totp": code.now()})
