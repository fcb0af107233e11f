"""The ways into a gateway that a stack's credentials.json gives; clients wait while the supervisor mends the stack."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.client import ClientCredentials, Json, KehuClient, KehuProblem, SignIn, fetch_token
from infra.stack import read_private, write_private

PATIENCE_SECONDS = 90.0  # how long a process that is away is waited for: the supervisor brings it back
LEAST_TOKEN_SECONDS = 120.0
FRESH_SECONDS = 240.0  # a person's token is used again for so long: it then still passes for step-up (300 s)


class SignIns:
    """Clients of one stack; their writes carry ids or keys, or do no harm when they are done twice."""

    def __init__(self, credentials_file: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        document = json.loads(credentials_file.read_text())
        self._folder = credentials_file.parent
        self._apps = {client["department"]: client for client in document["clients"]}
        self._people = {person["department"]: person for person in document.get("people", ())}
        self._people["administration"] = document["administrator"]
        self._patience_seconds = patience_seconds
        self._base_url = str(document["token_url"]).removesuffix("/oauth2/token")

    def department(self, name: str, purpose: str = "") -> KehuClient:
        """Return a client of a department's app."""
        app = self._apps[name]
        return self.app(app["client_id"], app["client_secret"], purpose)

    def app(self, client_id: str, client_secret: str, purpose: str = "") -> KehuClient:
        """Return a client of any app."""
        return self._client(ClientCredentials(client_id, client_secret), purpose)

    def person(self, department: str, purpose: str) -> KehuClient:
        """Return a client of a department's person, signed in by password and one-time code."""
        person = self._people[department]
        token_file = self._folder / f"{person['username']}-token.json"
        sign_in = PersonSignIn(person["username"], person["password"], person["totp_secret"], token_file)
        return self._client(sign_in, purpose)

    def administrator(self, purpose: str = "administration") -> KehuClient:
        """Return a client of the administrator, signed in by password and one-time code."""
        return self.person("administration", purpose)

    def _client(self, sign_in: SignIn, purpose: str) -> KehuClient:
        patience = self._patience_seconds
        return KehuClient(
            self._base_url, sign_in, purpose, timeout_seconds=60, patience_seconds=patience, repeats_writes=True
        )


@dataclass(frozen=True, slots=True)
class PersonSignIn:
    """A person signs in by password and one-time code; the token is kept for later commands while it is fresh.

    A client asks again when its token is refused, also for want of a fresh second factor: by then it is not fresh.
    """

    username: str
    password: str = field(repr=False)
    totp_secret: str = field(repr=False)
    token_file: Path

    def __call__(self, http: httpx.Client) -> Json:
        """Return a token of an earlier command, for a one-time code is good once; else a new one."""
        cached, now = read_private(self.token_file), time.time()
        left = float(str(cached.get("ends_at", 0))) - now
        if left > LEAST_TOKEN_SECONDS and now - float(str(cached.get("began_at", 0))) < FRESH_SECONDS:
            return {"access_token": cached["access_token"], "expires_in": left}
        token = self._new_token(http)
        ends_at = now + float(str(token["expires_in"]))
        write_private(self.token_file, {"access_token": token["access_token"], "began_at": now, "ends_at": ends_at})
        return token

    def _new_token(self, http: httpx.Client) -> Json:
        import pyotp

        form = {"grant_type": "password", "username": self.username, "password": self.password}
        code = pyotp.TOTP(self.totp_secret)
        try:
            return fetch_token(http, {**form, "totp": code.now()})
        except KehuProblem as problem:
            if problem.reason != "CREDENTIALS_REFUSED":
                raise
        time.sleep(code.interval - time.time() % code.interval + 0.5)  # this code was used: wait for the next
        return fetch_token(http, {**form, "totp": code.now()})
