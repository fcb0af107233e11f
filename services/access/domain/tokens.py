"""Access tokens: JWTs by RFC 9068, signed with Ed25519 (RFC 8037), fifteen minutes at most."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.access.domain.principals import Principal
from services.chassis.access.stepping import assurance

LIFETIME_SECONDS = 900
METHODS = {"app": ("client_secret",), "user": ("pwd", "otp")}  # amr values (RFC 8176)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs tokens; its id is the start of the hash of its public half."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """The public half, base64url without padding: the `x` of its JWK."""
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @property
    def key_id(self) -> str:
        """The id in token headers."""
        return hashlib.sha256(self.public.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Grant:
    """How a token was earned: `amr`, the certificate it is bound to, the latest it may end."""

    methods: tuple[str, ...]
    thumbprint: str = ""
    expire_time: datetime | None = None
    auth_time: datetime | None = None  # when the person proved itself; None: nobody said, so nothing is fresh

    def seconds(self, now: datetime) -> int:
        """Return how long a token issued now lives: never longer than what it was got by."""
        if self.expire_time is None:
            return LIFETIME_SECONDS
        return max(1, min(LIFETIME_SECONDS, int((self.expire_time - now).total_seconds())))


@dataclass(frozen=True, slots=True)
class Issuer:
    """Writes tokens with the newest of its keys; the older ones only verify."""

    keys: Sequence[SigningKey]
    issuer: str
    audience: str

    def issue(self, principal: Principal, token_id: str, now: datetime, grant: Grant | None = None) -> str:
        """Return a token for the principal; `iat` keeps fractions, so that a revocation cuts sharply."""
        grant = grant or Grant(METHODS[principal.kind], auth_time=now)
        key = self.keys[-1]
        issued = now.timestamp()
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": principal.subject,
            "client_id": principal.login if principal.kind == "app" else "people",
            "department": principal.department,
            "amr": list(grant.methods),
            "iat": issued,
            "nbf": int(issued),
            "exp": int(issued) + grant.seconds(now),
            "jti": token_id,
        }
        if grant.thumbprint:
            claims["cnf"] = {"x5t#S256": grant.thumbprint}  # RFC 8705 §3.1
        if principal.kind == "user":
            claims["acr"] = assurance(grant.methods)
            if grant.auth_time:
                claims["auth_time"] = int(grant.auth_time.timestamp())
        return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": key.key_id})


@dataclass(frozen=True, slots=True)
class Revocation:
    """A token id (`token:…`) or a subject whose tokens issued up to `at` no longer count, kept until none lives."""

    id: str
    at: datetime
    expire_time: datetime


def revoke_token(token_id: str, now: datetime) -> Revocation:
    """Return the revocation of one token."""
    return Revocation(f"token:{token_id}", now, now + timedelta(seconds=2 * LIFETIME_SECONDS))


def revoke_subject(subject: str, now: datetime) -> Revocation:
    """Return the revocation of all tokens a subject has been given so far."""
    return Revocation(subject, now, now + timedelta(seconds=2 * LIFETIME_SECONDS))


def revoke_session(subject: str, session_id: str, now: datetime) -> Revocation:
    """Return the revocation of all tokens of a person's session; their ids begin with it."""
    return revoke_credential(subject, session_id, now)


def revoke_credential(subject: str, credential_id: str, now: datetime) -> Revocation:
    """Return the revocation of all tokens an app got by one credential; their ids begin with it."""
    return Revocation(f"{subject}#{credential_id}", now, now + timedelta(seconds=2 * LIFETIME_SECONDS))
