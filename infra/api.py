"""A caller of the gateway's HTTP API: signs in per department, repeats safely what failed, says what was refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from infra.stack import read_private, write_private

RETRY_SECONDS = 90.0  # how long a service that is away is waited for: the supervisor brings it back
RETRIED = frozenset({429, 502, 503, 504})
TOKEN_MARGIN_SECONDS = 60.0
POLL_SECONDS = 0.5
Json = dict[str, object]


class ApiError(Exception):
    """The gateway refused a call: its status, its reason, and what it says to do."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason


class OperationFailed(Exception):
    """A long operation ended with an error."""


@dataclass(slots=True)
class Session:
    """Calls as one caller for one purpose; renews its token, waits out outages.

    A write with a key carries it as Idempotency-Key: repeated because its answer was lost, it is not done twice.
    """

    base_url: str
    sign_in: Callable[[], Json] = field(repr=False)
    purpose: str = ""
    _http: httpx.Client = field(init=False)
    _token: str = field(default="", init=False, repr=False)
    _renew_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.base_url, timeout=60, trust_env=False)

    def get(self, path: str, **params: object) -> Json:
        """Read."""
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Json | None = None, *, key: str = "", **params: object) -> Json:
        """Create or do; `key` makes a repeat the same call, for methods that keep request ids."""
        return self._call("POST", path, params=params, json=body or {}, key=key)

    def upload(self, path: str, file: Path, *, key: str = "", **form: str) -> Json:
        """Send a file with the form's fields before it."""
        return self._call("POST", path, file=file, form=form, key=key)

    def pages(self, path: str, of: str, **params: object) -> Iterator[Json]:
        """Yield the entries of every page of a list."""
        token = ""
        while True:
            page = self.get(path, **{"page_size": 1000, **params, **({"page_token": token} if token else {})})
            yield from entries(page, of)
            token = str(page.get("next_page_token", ""))
            if not token:
                return

    def finished(self, operation: Json, progress: Callable[[Json], None] = lambda metadata: None) -> Json:
        """Wait for a long operation and return its response.

        Raises:
            OperationFailed: it ended with an error.
        """
        while not operation.get("done"):
            progress(_mapping(operation.get("metadata")))
            time.sleep(POLL_SECONDS)
            operation = self.get(f"/v1/{operation['name']}")
        if operation.get("error"):
            raise OperationFailed(f"{operation['name']}: {_mapping(operation['error']).get('message', '')}")
        return _mapping(operation.get("response"))

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: Json | None = None,
        file: Path | None = None,
        form: Mapping[str, str] | None = None,
        key: str = "",
    ) -> Json:
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            reply = self._send(method, path, params, json, file, form, key)
            if reply is not None and reply.status_code not in RETRIED:
                return _checked(reply)
            if time.monotonic() > deadline:
                raise ApiError(reply.status_code if reply is not None else 0, "NO_ANSWER", f"{method} {path}")
            time.sleep(POLL_SECONDS)

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, object] | None,
        json: Json | None,
        file: Path | None,
        form: Mapping[str, str] | None,
        key: str,
    ) -> httpx.Response | None:
        """Send once; None when nobody answered."""
        try:
            headers = self._headers() | ({"Idempotency-Key": key} if key else {})
            if file is None:
                return self._http.request(method, path, params=_flat(params), json=json, headers=headers)
            with file.open("rb") as content:
                files = {"file": (file.name, content)}
                return self._http.request(method, path, data=dict(form or {}), files=files, headers=headers)
        except httpx.TransportError:
            return None

    def _headers(self) -> dict[str, str]:
        if time.monotonic() >= self._renew_at:
            token = self.sign_in()
            self._token = str(token["access_token"])
            self._renew_at = time.monotonic() + float(str(token["expires_in"])) - TOKEN_MARGIN_SECONDS
        return {"Authorization": f"Bearer {self._token}"} | ({"X-Purpose": self.purpose} if self.purpose else {})


def _flat(params: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (params or {}).items()}


def entries(document: Json, name: str) -> list[Json]:
    """Return a repeated field of a reply; proto JSON leaves out what is empty."""
    value = document.get(name, [])
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _checked(reply: httpx.Response) -> Json:
    """Return the JSON of a good reply.

    Raises:
        ApiError: it was refused.
    """
    document = _mapping(reply.json()) if reply.content else {}
    if reply.is_success:
        return document
    faults = document.get("errors")
    detail = str(document.get("detail", document.get("error_description", "")))
    if isinstance(faults, list) and faults:
        detail += "; ".join(f" {fault.get('pointer')}: {fault.get('detail')}" for fault in faults[:5])
    raise ApiError(reply.status_code, str(document.get("reason", document.get("error", ""))), detail)


class SignIns:
    """The ways to sign in that a stack's credentials.json gives."""

    def __init__(self, credentials_file: Path) -> None:
        document = json.loads(credentials_file.read_text())
        self._token_url: str = document["token_url"]
        self._token_file = credentials_file.with_name("administrator-token.json")
        self._clients = {client["department"]: client for client in document["clients"]}
        self._administrator: dict[str, str] = document["administrator"]
        self.base_url = self._token_url.removesuffix("/oauth2/token")

    def department(self, name: str, purpose: str = "") -> Session:
        """Return a session of a department's app."""
        client = self._clients[name]
        form = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
        return Session(self.base_url, lambda: self._token({"grant_type": "client_credentials", **form}), purpose)

    def administrator(self, purpose: str = "administration") -> Session:
        """Return a session of the administrator, signed in by password and one-time code."""
        return Session(self.base_url, self._administrator_token, purpose)

    def _administrator_token(self) -> Json:
        """Return a token of an earlier command while it holds, for a one-time code is good once; else a new one."""
        cached = read_private(self._token_file)
        left = float(str(cached.get("ends_at", 0))) - time.time()
        if left > 2 * TOKEN_MARGIN_SECONDS:
            return {"access_token": cached["access_token"], "expires_in": left}
        token = self._password_token()
        ends_at = time.time() + float(str(token["expires_in"]))
        write_private(self._token_file, {"access_token": token["access_token"], "ends_at": ends_at})
        return token

    def _password_token(self) -> Json:
        import pyotp

        known = self._administrator
        form = {"grant_type": "password", "username": known["username"], "password": known["password"]}
        code = pyotp.TOTP(known["totp_secret"])
        try:
            return self._token({**form, "totp": code.now()})
        except ApiError as error:
            if error.reason != "CREDENTIALS_REFUSED":
                raise
        time.sleep(code.interval - time.time() % code.interval + 0.5)  # this code was used: wait for the next
        return self._token({**form, "totp": code.now()})

    def _token(self, form: Mapping[str, str]) -> Json:
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            reply = httpx.post(self._token_url, data=dict(form), timeout=30, trust_env=False)
            if reply.status_code not in RETRIED or time.monotonic() > deadline:
                return _checked(reply)
            time.sleep(POLL_SECONDS)
