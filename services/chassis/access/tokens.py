"""Verify bearer tokens: EdDSA access tokens as RFC 9068 shapes them, checked as RFC 8725 demands."""

from __future__ import annotations

import base64
import hmac
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.chassis.access.snapshot import PolicySnapshot
from services.chassis.access.values import Caller
from services.chassis.errors import Unauthenticated

TOKEN_BYTES = 4096  # ours are about 600
LIFETIME_SECONDS = 900  # issue §2: a token lives fifteen minutes at most
LEEWAY_SECONDS = 5  # clocks of our own processes
CACHED_TOKENS = 4096
DEVICE_CLAIMS = 20
SUBJECT = re.compile(r"(user|app):[a-z0-9][a-z0-9._-]{0,62}")
SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # base64 decoding drops other characters
THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256, base64url
HEADER = frozenset({"alg", "typ", "kid"})  # jku, x5u, jwk, crit and the like are not obeyed but refused
REFUSED = "The access token is not valid; ask the token endpoint for a new one."


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token whose signature and claims were right, with what must be looked at again each time."""

    caller: Caller
    key_id: str
    not_before: float
    issued_at: float
    expires_at: float
    thumbprint: str = ""


class Snapshots(Protocol):
    """Where keys and revocations come from: the SnapshotHolder of a process."""

    @property
    def current(self) -> PolicySnapshot:
        """Return the snapshot in force, or raise Unavailable."""


class TokenVerifier:
    """Turns a bearer token into its caller; a revocation or a withdrawn key counts at once, cached or not."""

    def __init__(self, holder: Snapshots, issuer: str, audience: str, now: Callable[[], float] = time.time) -> None:
        """Take the snapshots that hold keys and revocations, and the only issuer and audience accepted.

        Raises:
            ValueError: no issuer or no audience: a token of any would pass.
        """
        if not issuer or not audience:
            raise ValueError("token issuer and audience must be configured")
        self._holder, self._issuer, self._audience, self._now = holder, issuer, audience, now
        self._cache: OrderedDict[str, _Verified] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, bearer: str, thumbprint: str | None = "") -> Caller:
        """Return the caller of a token, given bare or as an Authorization value; the purpose is not in it.

        `thumbprint` is of the certificate the caller's connection was made with, empty for none: a token bound to a
        certificate (RFC 8705) counts with that one only. None asks for no proof: to end a token, holding it is enough.

        Raises:
            Unauthenticated: whatever is wrong with it, in one wording.
            Unavailable: no snapshot was loaded yet.
        """
        token = bearer[7:].strip() if bearer[:7].lower() == "bearer " else bearer
        snapshot = self._holder.current
        verified = self._cache.get(token)
        if verified is None:
            verified = self._verify_anew(token, snapshot)
            self._remember(token, verified)
        now, caller = self._now(), verified.caller
        timely = verified.not_before - LEEWAY_SECONDS <= now < verified.expires_at + LEEWAY_SECONDS
        revoked = snapshot.revocations.covers(caller.token_id, caller.subject, verified.issued_at)
        if not timely or revoked or verified.key_id not in snapshot.keys:
            with self._lock:
                self._cache.pop(token, None)
            raise Unauthenticated(REFUSED)
        bound = verified.thumbprint
        if bound and thumbprint is not None and not hmac.compare_digest(bound.encode(), thumbprint.encode()):
            raise Unauthenticated(REFUSED)
        return caller

    def _remember(self, token: str, verified: _Verified) -> None:
        with self._lock:
            self._cache[token] = verified
            while len(self._cache) > CACHED_TOKENS:
                self._cache.popitem(last=False)

    def _verify_anew(self, token: str, snapshot: PolicySnapshot) -> _Verified:
        try:
            if len(token) > TOKEN_BYTES or not SHAPE.fullmatch(token):
                raise ValueError("shape")
            key_id = _key_id(token)
            claims = self._claims(token, snapshot.keys[key_id])
            return self._checked(claims, key_id)
        except (jwt.PyJWTError, InvalidSignature, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unauthenticated(REFUSED) from error

    def _claims(self, token: str, public_key: str) -> dict[str, object]:
        """Return the claims of a token with a right signature, issuer and audience."""
        claims: dict[str, object] = jwt.decode(
            token,
            Ed25519PublicKey.from_public_bytes(_unbase64(public_key)),
            algorithms=["EdDSA"],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={
                "require": ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,  # by our own clock, below
            },
        )
        _without_doubles(_unbase64(token.split(".")[1]))
        if claims["aud"] != self._audience:  # a list of audiences would make the token good elsewhere too
            raise ValueError("aud")
        return claims

    def _checked(self, claims: dict[str, object], key_id: str) -> _Verified:
        subject, department = _text(claims, "sub"), _text(claims, "department")
        match = SUBJECT.fullmatch(subject)
        times = [_seconds(claims, name) for name in ("nbf", "iat", "exp")]
        if match is None or not department or not times[1] < times[2] <= times[1] + LIFETIME_SECONDS:
            raise ValueError("claims")
        if times[1] > self._now() + LEEWAY_SECONDS:
            raise ValueError("iat")
        methods = claims.get("amr", [])
        if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
            raise ValueError("amr")
        at = datetime.fromtimestamp(_seconds(claims, "auth_time"), UTC) if "auth_time" in claims else None
        token_id, device = _text(claims, "jti"), _device(claims.get("device", {}))
        caller = Caller(subject, match[1], department, "", token_id, at, tuple(methods), device=device)
        return _Verified(caller, key_id, times[0], times[1], times[2], _thumbprint(claims))


def _key_id(token: str) -> str:
    """Return the key id of a header that says no more than it should."""
    header = _without_doubles(_unbase64(token.split(".", 1)[0]))
    if not isinstance(header, dict) or not set(header) <= HEADER:
        raise ValueError("header")
    if header.get("typ") != "at+jwt" or header.get("alg") != "EdDSA" or not isinstance(header.get("kid"), str):
        raise ValueError("header")
    return str(header["kid"])


def _thumbprint(claims: dict[str, object]) -> str:
    """Return the certificate a token is bound to; a confirmation of another kind is refused, not passed over."""
    if "cnf" not in claims:
        return ""
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise ValueError("cnf")
    found = confirmation["x5t#S256"]
    if not isinstance(found, str) or not THUMBPRINT.fullmatch(found):
        raise ValueError("cnf")
    return found


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _without_doubles(raw: bytes) -> object:
    """Parse JSON, refusing an object that names a key twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("double")
        return found

    return json.loads(raw, object_pairs_hook=unique)


def _text(claims: dict[str, object], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value or len(value) > 128:
        raise ValueError(name)
    return value


def _device(claim: object) -> tuple[tuple[str, str], ...]:
    """Return what the issuer says of the device: up to 20 short texts by name."""
    if not isinstance(claim, dict) or len(claim) > DEVICE_CLAIMS:
        raise ValueError("device")
    return tuple((name, _text(claim, name)) for name in sorted(claim))


def _seconds(claims: dict[str, object], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e11:
        raise ValueError(name)
    return float(value)
