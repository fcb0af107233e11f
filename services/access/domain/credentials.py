"""What an app proves itself with, and how it is judged: secrets, signed assertions, TLS certificates."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.access.domain.errors import CredentialInvalid, CredentialLimit, CredentialNotFound, CredentialsRefused
from services.access.domain.issuers import is_safe
from services.access.domain.principals import INITIAL, Credential, Passwords, Principal
from services.chassis.errors import FieldViolation

KeyOfSet = Callable[[str, str], Mapping[str, object] | None]  # of the set at a URL the key of this id

LIVING = 2  # of a kind at once: the one in use and the one that replaces it
KEPT = 20  # ended ones included
RSA_BITS = 2048
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 §6
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 300
ASSERTION_LEEWAY_SECONDS = 5
ASSERTION_KEPT = timedelta(seconds=2 * ASSERTION_SECONDS)  # how long a spent one is remembered
AMR = {
    "secret": "client_secret", "key": "private_key_jwt", "key_set": "private_key_jwt", "certificate": "tls_client_auth",
}  # fmt: skip
VALUES = {"key": "public_jwk", "certificate": "certificate_pem", "key_set": "jwks_uri"}  # field that gives its value


@dataclass(frozen=True, slots=True)
class Presented:
    """What an app shows at the token endpoint; `thumbprint` is of the certificate its connection was made with."""

    client_id: str
    secret: str = field(default="", repr=False)
    assertion: str = field(default="", repr=False)
    thumbprint: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """An app that proved itself: by which credential, what its token is bound to, what must be spent first."""

    app: Principal
    credential_id: str
    method: str
    thumbprint: str = ""
    assertion_id: str = ""  # spend it, or refuse
    expire_time: datetime | None = None


def prove(app: Principal | None, shown: Presented, audience: Sequence[str], now: datetime, passwords: Passwords,
          decoy: str, published: KeyOfSet = lambda url, key_id: None) -> Proof:  # fmt: skip
    """Return the proof of an app; an unknown one's secret takes as long to refuse. `published` finds keys of a set.

    An app with a certificate proves itself over a living one alone, whatever else it shows, and its tokens are bound
    to it (RFC 8705 §3): one that ended is not to make a secret enough.

    Raises:
        CredentialsRefused: whatever is wrong.
    """
    if bool(shown.secret) and bool(shown.assertion):
        raise CredentialsRefused  # one way of proving at a time (RFC 6749 §2.3)
    known = living(app, now) if app is not None and app.kind == "app" and app.enabled else ()
    needs_certificate = app is not None and any(c.kind == "certificate" for c in app.credentials)
    certificates = (c for c in known if c.kind == "certificate")
    bound = next((c for c in certificates if hmac.compare_digest(c.value, shown.thumbprint)), None)
    jti = ""
    if shown.assertion:
        used, jti = _by_assertion(known, shown, audience, now, published)
    elif shown.secret or bound is None:
        used = _by_secret(app, known, shown.secret, passwords, decoy)
    else:
        used = bound
    if app is None or not known or used is None or (needs_certificate and bound is None):
        raise CredentialsRefused
    ends = [c.expire_time for c in (used, bound) if c is not None and c.expire_time is not None]
    return Proof(app, used.id, AMR[used.kind], bound.value if bound else "", jti, min(ends, default=None))


def _by_secret(
    app: Principal | None, known: Sequence[Credential], secret: str, passwords: Passwords, decoy: str
) -> Credential | None:
    """Return the secret that was shown; one hash is computed in every case, for its time tells who exists."""
    named = secret.partition(".")[0] if "." in secret else INITIAL
    found = next((c for c in known if c.kind == "secret" and c.id == named), None)
    right = passwords.matches(found.value if found else decoy, secret)
    return found if right else None


def _by_assertion(
    known: Sequence[Credential], shown: Presented, audience: Sequence[str], now: datetime, published: KeyOfSet
) -> tuple[Credential | None, str]:
    """Return the key or key set that signed a good assertion (RFC 7523 §3), and the id to spend."""
    for candidate in sorted(known, key=lambda found: found.kind == "key_set"):  # what needs no asking first
        try:
            key = _key_of(candidate, shown.assertion, published)
            claims = _assertion_claims(key, shown.assertion, audience) if key is not None else None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            continue
        if claims is not None and _is_timely(claims, now) and claims["iss"] == claims["sub"] == shown.client_id:
            jti = claims["jti"]
            if isinstance(jti, str) and 8 <= len(jti) <= 256:
                return candidate, f"{shown.client_id} {jti}"
    return None, ""


def _key_of(candidate: Credential, assertion: str, published: KeyOfSet) -> Mapping[str, object] | None:
    """Return the JWK that may have signed, of a set the one that the assertion names; None when there is none."""
    if candidate.kind == "key_set":
        named = jwt.get_unverified_header(assertion).get("kid")
        return published(candidate.value, named) if isinstance(named, str) and named else None
    return dict(json.loads(candidate.value)) if candidate.kind == "key" else None


def _assertion_claims(key: Mapping[str, object], assertion: str, audience: Sequence[str]) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        assertion,
        jwt.PyJWK(dict(key), algorithm=_algorithms(key)[0]).key,
        algorithms=list(_algorithms(key)),
        audience=list(audience),
        options={
            "require": ["iss", "sub", "aud", "exp", "jti"],
            "verify_exp": False, "verify_nbf": False, "verify_iat": False,  # by our own clock
        },
    )  # fmt: skip
    if isinstance(claims["aud"], list) and len(claims["aud"]) != 1:
        raise ValueError("an assertion for several is good elsewhere too")
    return claims


def _is_timely(claims: dict[str, object], now: datetime) -> bool:
    clock = now.timestamp()
    end, begin = claims["exp"], claims.get("nbf", 0)
    for value in (end, begin):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
    assert isinstance(end, int | float) and isinstance(begin, int | float)
    late = clock + ASSERTION_SECONDS + ASSERTION_LEEWAY_SECONDS
    return clock - ASSERTION_LEEWAY_SECONDS < end <= late and begin <= clock + ASSERTION_LEEWAY_SECONDS


def named_client(assertion: str) -> str:
    """Return whom an unverified assertion names, empty when it cannot be read."""
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
        return str(claims.get("sub", ""))[:64]
    except (jwt.PyJWTError, ValueError, RecursionError):
        return ""


def living(app: Principal, now: datetime) -> tuple[Credential, ...]:
    """Return the credentials of an app that count now, the secret it was made with included."""
    return tuple(c for c in all_of(app) if c.expire_time is None or now < c.expire_time)


def all_of(app: Principal) -> tuple[Credential, ...]:
    """Return all credentials of an app, the oldest first."""
    if not app.secret_hash:
        return app.credentials
    return (Credential(INITIAL, "secret", app.secret_hash, create_time=app.create_time), *app.credentials)


def with_credential(app: Principal, new: Credential, now: datetime) -> Principal:
    """Return the app with another credential.

    Raises:
        CredentialLimit: it has two living ones of the kind, or twenty in all.
        CredentialInvalid: it has this key or certificate already.
    """
    known = all_of(app)
    if new.kind != "secret" and any(c.value == new.value for c in known):
        raise _invalid(VALUES[new.kind], "the app has it already")
    same = sum(c.kind == new.kind for c in living(app, now))
    if same >= LIVING or len(known) >= KEPT:
        limit = str(LIVING if same >= LIVING else KEPT)
        raise CredentialLimit("Retire a credential of this app first.", metadata={"limit": limit})
    return replace(app, credentials=(*app.credentials, new))


def without_credential(app: Principal, credential_id: str) -> Principal:
    """Return the app without a credential.

    Raises:
        CredentialNotFound: it has none of this id.
    """
    if credential_id == INITIAL and app.secret_hash:
        return replace(app, secret_hash="")
    left = tuple(c for c in app.credentials if c.id != credential_id)
    if len(left) == len(app.credentials):
        raise CredentialNotFound("The app has no credential of this id.", metadata={"credential_id": credential_id})
    return replace(app, credentials=left)


def without_secrets(app: Principal) -> Principal:
    """Return the app without any of its later secrets."""
    return replace(app, credentials=tuple(c for c in app.credentials if c.kind != "secret"))


def checked_end(expire_time: datetime | None, now: datetime) -> datetime | None:
    """Return when a credential ends.

    Raises:
        CredentialInvalid: that is past.
    """
    if expire_time is not None and expire_time <= now:
        raise _invalid("expire_time", "must be in the future")
    return expire_time


def read_jwk(text: str) -> str:
    """Return a public key as canonical JSON.

    Raises:
        CredentialInvalid: it is no JWK, holds a private key, or is of a kind or size we do not take.
    """
    try:
        parsed = json.loads(text)
        if not isinstance(parsed, dict) or PRIVATE_MEMBERS & set(parsed):
            raise ValueError("a public key only")
        key = jwt.PyJWK(parsed, algorithm=_algorithms(parsed)[0]).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
        raise _invalid("public_jwk", "give one public JWK: RSA from 2048 bits, P-256 or Ed25519") from None
    sizes = isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS
    if not sizes and not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise _invalid("public_jwk", f"use RSA with {RSA_BITS} bits at least, P-256 or Ed25519")
    kept = {name: parsed[name] for name in ("kty", "crv", "x", "y", "n", "e", "kid") if name in parsed}
    return json.dumps(kept, sort_keys=True)


def _algorithms(jwk: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a key of this type may sign with; the token's header never decides it (RFC 8725 §3.1)."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        return ("RS256", "PS256")
    if (kind, curve) == ("EC", "P-256"):
        return ("ES256",)
    if (kind, curve) == ("OKP", "Ed25519"):
        return ("EdDSA",)
    raise ValueError("kind of key")


def read_certificate(pem: str, now: datetime) -> tuple[str, datetime]:
    """Return the thumbprint (`x5t#S256`, RFC 8705 §3.1) of a certificate and when it ends.

    Raises:
        CredentialInvalid: it is no certificate, has ended, or is an authority's.
    """
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnicodeEncodeError):
        raise _invalid("certificate_pem", "give one X.509 certificate as PEM") from None
    try:
        is_authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if is_authority:
        raise _invalid("certificate_pem", "give the app's own certificate, not an authority's")
    if found.not_valid_after_utc <= now:
        raise _invalid("certificate_pem", "this certificate has ended")
    return thumbprint(found.public_bytes(Encoding.DER)), found.not_valid_after_utc


def thumbprint(der: bytes) -> str:
    """Return SHA-256 of a certificate, base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def read_key_set(url: str, loopback: bool) -> str:
    """Return where an app publishes its keys.

    Raises:
        CredentialInvalid: it is not a safe address.
    """
    if not is_safe(url, loopback):
        raise _invalid("jwks_uri", "use https, without user, query or fragment")
    return url


def _invalid(name: str, description: str) -> CredentialInvalid:
    return CredentialInvalid(
        "The credential has a bad field.", violations=[FieldViolation(f"credential.{name}", description)]
    )
