"""The ways into a gateway that a stack's credentials.json gives; clients wait while the supervisor mends the stack."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from kehu.client import AppSecret, Kehu, KehuProblem, SignIn, Token, TokenEndpoint
from kehu.client.signing import STEP_UP

from infra.stack import read_private, write_private

PATIENCE_SECONDS = 90.0  # how long a process that is away is waited for: the supervisor brings it back
LEAST_TOKEN_SECONDS = 120.0


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

    def department(self, name: str, purpose: str = "") -> Kehu:
        """Return a client of a department's app."""
        app = self._apps[name]
        return self.app(app["client_id"], app["client_secret"], purpose)

    def app(self, client_id: str, client_secret: str, purpose: str = "") -> Kehu:
        """Return a client of any app."""
        return self._client(AppSecret(client_id, client_secret), purpose)

    def person(self, department: str, purpose: str) -> Kehu:
        """Return a client of a department's person, signed in by password and one-time code."""
        person = self._people[department]
        token_file = self._folder / f"{person['username']}-token.json"
        sign_in = PersonSignIn(person["username"], person["password"], person["totp_secret"], token_file)
        return self._client(sign_in, purpose)

    def administrator(self, purpose: str = "administration") -> Kehu:
        """Return a client of the administrator, signed in by password and one-time code."""
        return self.person("administration", purpose)

    def _client(self, sign_in: SignIn, purpose: str) -> Kehu:
        return Kehu(self._base_url, sign_in, purpose, deadline_seconds=self._patience_seconds, repeats_writes=True)


class PersonSignIn(SignIn):
    """A person signs in by password and one-time code; the token is kept for later commands, for a code is good once.

    A token whose second factor is too old for a call is replaced by one that shows a new code.
    """

    def __init__(self, username: str, password: str, totp_secret: str, token_file: Path) -> None:
        self._form = {"grant_type": "password", "username": username, "password": password}
        self._totp_secret = totp_secret
        self._token_file = token_file
        self._given = ""

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return the token of an earlier command, unless it was given before and is asked for again; else a new one."""
        kept = read_private(self._token_file)
        left = float(str(kept.get("ends_at", 0))) - time.time()
        if left > LEAST_TOKEN_SECONDS and kept["access_token"] != self._given:
            self._given = str(kept["access_token"])
            return Token(self._given, left)
        return self._asked(endpoint, self._form)

    def confirm(self, endpoint: TokenEndpoint, token: str) -> Token:
        """Return a token that shows a new code."""
        return self._asked(endpoint, {"grant_type": STEP_UP, "subject_token": token})

    def _asked(self, endpoint: TokenEndpoint, form: Mapping[str, str]) -> Token:
        import pyotp

        code = pyotp.TOTP(self._totp_secret)
        try:
            token = endpoint.ask({**form, "totp": code.now()}, None)
        except KehuProblem as problem:
            if problem.reason != "CREDENTIALS_REFUSED":
                raise
            time.sleep(code.interval - time.time() % code.interval + 0.5)  # this code was used: wait for the next
            token = endpoint.ask({**form, "totp": code.now()}, None)
        self._given = token.access_token
        write_private(self._token_file, {"access_token": token.access_token, "ends_at": time.time() + token.expires_in})
        return token
