"""Company issuers: what their tokens must be, and whom their claims mean here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.access.domain.errors import CredentialsRefused, IssuerInvalid
from services.access.domain.principals import LOGIN, Principal
from services.access.domain.vocabulary import DEPARTMENTS
from services.chassis.errors import FieldViolation

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693
TOKEN_TYPES = ("urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt")
FRESH_SECONDS = 600  # an exchange follows a sign-in at the company; an old token found in a log buys nothing
LEEWAY_SECONDS = 30  # clocks of other companies
TYPES = (None, "JWT", "at+jwt", "application/at+jwt")
LOGIN_CLAIM = "preferred_username"
DIRECTORY_CLAIM = "sub"
RSA_BITS = 2048
AMR = frozenset({"pwd", "otp", "hwk", "swk", "mfa", "fpt", "face", "pin", "sms", "sc", "user"})  # RFC 8176 §2


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """A claim with this value means this role in this department; an empty claim means everybody."""

    claim: str
    value: str
    department: str
    role: str

    def matches(self, claims: Mapping[str, object]) -> bool:
        """Tell whether the claim is the value, or a list that holds it."""
        found = claims.get(self.claim) if self.claim else self.value
        return self.value in found if isinstance(found, list) else self.value == found


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OpenID Connect provider we trust, and what its claims mean; `version` is the stored version."""

    id: str
    url: str
    audiences: tuple[str, ...]
    login_claim: str = LOGIN_CLAIM
    rules: tuple[ClaimRule, ...] = ()
    provision: bool = False
    scim_client: str = ""
    disabled: bool = False
    directory_claim: str = DIRECTORY_CLAIM
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom a company's token means: department and roles are empty when SCIM decides them."""

    login: str
    external_id: str
    directory_id: str  # empty when the token does not say it
    department: str
    roles: tuple[str, ...]
    methods: tuple[str, ...]
    auth_time: datetime | None
    expire_time: datetime


def checked_issuer(issuer: Issuer, known_roles: Iterable[str], loopback: bool) -> Issuer:
    """Return the issuer when its fields make sense.

    Raises:
        IssuerInvalid: naming each bad field.
    """
    bad = []
    if not is_safe(issuer.url, loopback):
        bad.append(FieldViolation("issuer.url", "use https, without user, query or fragment"))
    if not issuer.audiences:
        bad.append(FieldViolation("issuer.audiences", "name our client id there: tokens for others must not count"))
    if issuer.provision and not issuer.rules:
        bad.append(FieldViolation("issuer.rules", "say what claims mean, or let SCIM make people"))
    roles = set(known_roles)
    for position, rule in enumerate(issuer.rules):
        if rule.role not in roles:
            bad.append(FieldViolation(f"issuer.rules[{position}].role", "no role of the current policy has this name"))
        if rule.department not in DEPARTMENTS:
            bad.append(FieldViolation(f"issuer.rules[{position}].department", f"use one of {', '.join(DEPARTMENTS)}"))
    if bad:
        raise IssuerInvalid("The issuer has bad fields.", violations=bad)
    return issuer


def is_safe(url: str, loopback: bool) -> bool:
    """Tell whether a URL may be asked for keys: https, or plain http to this machine where that is allowed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    plain = loopback and parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")
    extras = parts.username or parts.password or parts.query or parts.fragment
    return bool(host) and not extras and (parts.scheme == "https" or plain)


def usable_keys(document: object) -> dict[str, dict[str, object]]:
    """Return the signing keys of a JWKS by kid; what we do not take is left out."""
    found = document.get("keys") if isinstance(document, dict) else None
    keys = [key for key in found if isinstance(key, dict)] if isinstance(found, list) else []
    return {str(key["kid"]): key for key in keys if "kid" in key and key.get("use", "sig") == "sig" and _usable(key)}


def algorithms(jwk: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a key may sign with: by its type, never by the token's header; none when we do not take it."""
    kinds = {("RSA", None): ("RS256",), ("EC", "P-256"): ("ES256",), ("OKP", "Ed25519"): ("EdDSA",)}
    return kinds.get((str(jwk.get("kty")), jwk.get("crv")), ())  # type: ignore[arg-type]


def _usable(jwk: Mapping[str, object]) -> bool:
    try:
        names = algorithms(jwk)
        key = jwt.PyJWK(dict(jwk), algorithm=names[0]).key if names else None
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)


def peek(token: str) -> tuple[str, str]:
    """Return `iss` and `kid` of a token that nobody verified yet.

    Raises:
        CredentialsRefused: it is no JWT.
    """
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise CredentialsRefused from None
    if header.get("typ") not in TYPES or not isinstance(header.get("kid"), str):
        raise CredentialsRefused
    return str(claims.get("iss", "")), str(header["kid"])


def verified_claims(
    issuer: Issuer, jwk: Mapping[str, object], token: str, nonce: str, now: datetime
) -> dict[str, object]:
    """Return the claims of a company's token that is good now (OIDC Core §3.1.3.7).

    Raises:
        CredentialsRefused: signature, issuer, audience, times or nonce are wrong.
    """
    try:
        claims: dict[str, object] = jwt.decode(
            token,
            jwt.PyJWK(dict(jwk), algorithm=algorithms(jwk)[0]).key,
            algorithms=list(algorithms(jwk)),
            audience=list(issuer.audiences),
            issuer=issuer.url,
            options={
                "require": ["iss", "sub", "aud", "exp", "iat"],
                "verify_exp": False, "verify_nbf": False, "verify_iat": False,  # by our own clock
            },
        )  # fmt: skip
        _check(claims, issuer.audiences, nonce, now.timestamp())
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
        raise CredentialsRefused from None
    return claims


def _check(claims: Mapping[str, object], audiences: Sequence[str], nonce: str, now: float) -> None:
    end, issued, begin = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if not now - LEEWAY_SECONDS < end or begin > now + LEEWAY_SECONDS:
        raise ValueError("times")
    if not now - FRESH_SECONDS - LEEWAY_SECONDS < issued <= now + LEEWAY_SECONDS:
        raise ValueError("iat")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (several or "azp" in claims) and claims.get("azp") not in audiences:
        raise ValueError("azp")
    if claims.get("nonce", "") != nonce:
        raise ValueError("nonce")


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name, 0) if name == "nbf" else claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise ValueError(name)
    return float(value)


def visitor(issuer: Issuer, claims: Mapping[str, object], known_roles: Iterable[str]) -> Visitor:
    """Return whom verified claims mean; a role that the policy knows no longer gives nothing.

    Raises:
        CredentialsRefused: no login can be made of them, or the issuer's rules know nothing of this person.
    """
    raw = claims.get(issuer.login_claim)
    login = login_of(raw) if isinstance(raw, str) else ""
    subject = claims["sub"]
    if not login or not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise CredentialsRefused
    known = frozenset(known_roles)
    matching = [rule for rule in issuer.rules if rule.role in known and rule.matches(claims)]
    if issuer.rules and not matching:
        raise CredentialsRefused
    department = matching[0].department if matching else ""
    roles = tuple(dict.fromkeys(rule.role for rule in matching if rule.department == department))
    told = claims.get(issuer.directory_claim)
    directory_id = told if isinstance(told, str) else ""
    amr = claims.get("amr")
    methods = tuple(m for m in amr if isinstance(m, str) and m in AMR)[:10] if isinstance(amr, list) else ()
    at = claims.get("auth_time")
    latest = _seconds(claims, "iat") + LEEWAY_SECONDS
    is_told = isinstance(at, int | float) and not isinstance(at, bool) and 0 < at <= latest
    auth_time = datetime.fromtimestamp(float(at), UTC) if is_told else None  # type: ignore[arg-type]
    end = datetime.fromtimestamp(_seconds(claims, "exp"), UTC) + timedelta(seconds=LEEWAY_SECONDS)
    return Visitor(login, subject, directory_id, department, roles, methods, auth_time, end)


def login_of(text: str) -> str:
    """Return the login made of a user name or e-mail address, empty when none can be."""
    login = text.partition("@")[0].lower()
    return login if LOGIN.fullmatch(login) else ""


def new_person(issuer: Issuer, found: Visitor) -> Principal:
    """Return the person a first sign-in makes; it has no password here."""
    return Principal(
        "user", found.login, found.department, found.roles, "", issuer=issuer.id, external_id=found.external_id
    )


def belongs(person: Principal, issuer: Issuer, found: Visitor) -> bool:
    """Tell whether a person is this one of this issuer; a login alone proves nothing (OIDC Core §5.7).

    Names are given twice, and at some issuers people change theirs: who comes for the first time is who the directory
    made only when the token says the directory's own id of them.
    """
    if person.issuer != issuer.id:
        return False
    if person.external_id:
        return person.external_id == found.external_id
    return bool(found.directory_id) and person.directory_id == found.directory_id


def as_json(rules: Sequence[ClaimRule]) -> str:
    """Return rules as stored."""
    return json.dumps([[rule.claim, rule.value, rule.department, rule.role] for rule in rules], ensure_ascii=False)


def rules_of(text: str) -> tuple[ClaimRule, ...]:
    """Return stored rules."""
    return tuple(ClaimRule(*row) for row in json.loads(text or "[]"))
