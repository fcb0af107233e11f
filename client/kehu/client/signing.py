"""How a caller gets its tokens; none of these shows its secret when printed."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

GRANTS = "urn:ietf:params:oauth:grant-type"
STEP_UP = "urn:kehu:params:oauth:grant-type:step-up"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the seconds it lives."""

    access_token: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """POST /oauth2/token: `ask` sends a form, with the client's id and secret by HTTP Basic where there are any."""

    url: str
    ask: Callable[[Mapping[str, str], tuple[str, str] | None], Token]


class SignIn(ABC):
    """A way to get tokens; derive from it for one of your own."""

    certificate: tuple[Path, Path] | None = None

    @abstractmethod
    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token; asked for again before it ends, and when it is refused.

        Raises:
            KehuProblem: it was refused.
        """

    def confirm(self, endpoint: TokenEndpoint, token: str) -> Token | None:
        """Return a token that shows a fresh second factor (RFC 9470), None when there is no way to get one."""
        return None


@dataclass(frozen=True, slots=True)
class AppSecret(SignIn):
    """An app signs in by its id and secret (RFC 6749 §4.4)."""

    client_id: str
    client_secret: str = field(repr=False)

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token."""
        return endpoint.ask({"grant_type": "client_credentials"}, (self.client_id, self.client_secret))


@dataclass(frozen=True, slots=True)
class AppKey(SignIn):
    """An app signs in by a JWT that it signs itself (private_key_jwt, RFC 7523); needs PyJWT.

    `algorithm` is that of the registered key: EdDSA, ES256, PS256 or RS256. `audience` is the token endpoint's URL as
    Kehu knows it, when it differs from the one that is asked; `key_id` is the key's `kid` in a published key set.
    """

    client_id: str
    private_key_pem: str | bytes = field(repr=False)
    algorithm: str = "EdDSA"
    audience: str = ""
    key_id: str = ""

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token."""
        import jwt

        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience or endpoint.url,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": uuid.uuid4().hex,
        }
        header = {"kid": self.key_id} if self.key_id else None
        assertion = jwt.encode(claims, self.private_key_pem, self.algorithm, headers=header)
        form = {"client_assertion_type": ASSERTION, "client_assertion": assertion}
        return endpoint.ask({"grant_type": "client_credentials", **form}, None)


@dataclass(frozen=True, slots=True)
class AppCertificate(SignIn):
    """An app signs in by the TLS certificate of its connections (RFC 8705); its tokens count over these only."""

    client_id: str
    certificate_file: Path
    key_file: Path = field(repr=False)

    @property
    def certificate(self) -> tuple[Path, Path]:  # type: ignore[override]
        """The PEM files of certificate and key."""
        return self.certificate_file, self.key_file

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token."""
        return endpoint.ask({"grant_type": "client_credentials", "client_id": self.client_id}, None)


@dataclass(frozen=True, slots=True)
class Person(SignIn):
    """A person signs in by password and one-time code; `code` is asked for a new one each time.

    What needs a fresh second factor asks for another code and is then sent again.
    """

    username: str
    password: str = field(repr=False)
    code: Callable[[], str] = field(repr=False)

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token."""
        form = {"grant_type": "password", "username": self.username, "password": self.password}
        return endpoint.ask({**form, "totp": self.code()}, None)

    def confirm(self, endpoint: TokenEndpoint, token: str) -> Token | None:
        """Return a token that shows another code."""
        return endpoint.ask({"grant_type": STEP_UP, "subject_token": token, "totp": self.code()}, None)


@dataclass(frozen=True, slots=True)
class CompanyToken(SignIn):
    """A person of a company issuer: `issue` returns a fresh ID token of it, which is exchanged (RFC 8693)."""

    issue: Callable[[], str] = field(repr=False)
    nonce: str = field(default="", repr=False)

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return a new token."""
        form = {"subject_token": self.issue(), "subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}
        nonce = {"nonce": self.nonce} if self.nonce else {}
        return endpoint.ask({"grant_type": f"{GRANTS}:token-exchange", **form, **nonce}, None)


@dataclass(frozen=True, slots=True)
class GivenToken(SignIn):
    """Tokens that come from elsewhere: `token` returns the one in use now."""

    token: Callable[[], str] = field(repr=False)
    seconds: float = 60.0  # that it is used before it is asked for again

    def begin(self, endpoint: TokenEndpoint) -> Token:
        """Return the token."""
        return Token(self.token(), self.seconds)
