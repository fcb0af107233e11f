"""WebAuthn (W3C Web Authentication Level 2): challenges, what an authenticator is asked, how its answer is judged.

Attestation is not asked for: which make a key is of decides nothing here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.access.domain.principals import Authenticator, Principal, with_authenticator

GOOD_FOR = timedelta(minutes=5)
NAME = "Kehu"
ALGORITHMS = (-8, -7, -257)  # EdDSA, ES256, RS256 (COSE, RFC 9053 and 8812), the best first
LONGEST_CREDENTIAL_ID = 1023  # bytes (§7.1 step 25)
RSA_BITS = 2048
TRANSPORTS = ("usb", "nfc", "ble", "smart-card", "hybrid", "internal")
CONTEXT = b"kehu webauthn challenge\x001"  # no token of ours begins so: one signature is never taken for the other
DECOY = b"kehu webauthn decoy\x00"
NOBODYS_KEY = bytes.fromhex(  # the base point of P-256, as COSE: judged where nobody is known
    "a5010203262001"
    "2158206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "2258204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)

Use = Literal["sign-in", "passkey", "step-up"]
Json = dict[str, Any]
T = TypeVar("T")


class Refused(Exception):
    """An answer is not what was asked for."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """What people's authenticators know us as: a domain, and the origins of the pages that may ask; none: off."""

    id: str = ""
    origins: tuple[str, ...] = ()


def new_challenge(key: Ed25519PrivateKey, use: Use, principal_id: str, now: datetime, nonce: bytes) -> bytes:
    """Return a challenge for one use of one person (of anybody with an empty id), signed in place of being stored."""
    body = struct.pack(">I", int((now + GOOD_FOR).timestamp())) + nonce + _whose(use, principal_id)
    return body + key.sign(CONTEXT + body)


def challenge_in(answer: str, keys: Iterable[Ed25519PrivateKey], use: Use, principal_id: str, now: datetime) -> bytes:
    """Return the challenge an answer is to, when it is ours, for this use and person, and not over.

    Raises:
        Refused: it is not.
    """
    try:
        client_data = json.loads(_bytes(json.loads(answer)["response"]["clientDataJSON"]))
        challenge = _bytes(client_data["challenge"])
        body, signature = challenge[:-64], challenge[-64:]
        ends, whose = struct.unpack(">I16x16s", body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        raise Refused from None
    if whose != _whose(use, principal_id) or datetime.fromtimestamp(ends, UTC) <= now:
        raise Refused
    if not any(_signed(key, CONTEXT + body, signature) for key in keys):
        raise Refused
    return challenge


def spending(challenge: bytes) -> str:
    """Return what is spent of a challenge: all but the signature."""
    return f"webauthn {_text(challenge[:-64])}"


def request_options(party: RelyingParty, challenge: bytes, allowed: Sequence[Json], verified: bool) -> str:
    """Return what a browser is to ask its authenticators (§5.5), as JSON."""
    return json.dumps({
        "challenge": _text(challenge),
        "timeout": int(GOOD_FOR.total_seconds() * 1000),
        "rpId": party.id,
        "allowCredentials": list(allowed),
        "userVerification": "required" if verified else "preferred",
    })  # fmt: skip


def creation_options(party: RelyingParty, person: Principal, challenge: str, handle: str) -> str:
    """Return what a browser is to ask a new authenticator (§5.4), as JSON; a person's other ones are excluded."""
    return json.dumps({
        "rp": {"id": party.id, "name": NAME},
        "user": {"id": handle, "name": person.login, "displayName": person.login},
        "challenge": challenge,
        "pubKeyCredParams": [{"type": "public-key", "alg": number} for number in ALGORITHMS],
        "timeout": int(GOOD_FOR.total_seconds() * 1000),
        "excludeCredentials": descriptors(person),
        "authenticatorSelection": {"residentKey": "preferred", "userVerification": "preferred"},
        "attestation": "none",
    })  # fmt: skip


def descriptors(person: Principal) -> list[Json]:
    """Return the person's credentials, told by their ids and how they are reached."""
    found = _credentials(person)
    return [{"type": "public-key", "id": one.credential_id, "transports": list(one.transports)} for one in found]


def _credentials(person: Principal | None) -> list[Authenticator]:
    """Return those that count."""
    return [one for one in person.authenticators if one.kind == "webauthn" and one.active] if person else []


def allowed_at_sign_in(person: Principal | None, username: str, key: Ed25519PrivateKey) -> list[Json]:
    """Return the credentials to name before somebody proved anything; for who has none an invented one (§14.6.2)."""
    known = [one["id"] for one in descriptors(person)] if person is not None else []
    invented = _text(hashlib.sha256(key.sign(DECOY + username.encode())).digest())
    return [{"type": "public-key", "id": id} for id in known or [invented]]


def handle_in(answer: str) -> str:
    """Return the user handle a passkey gave with its answer, base64url; empty when there is none."""
    try:
        return str(json.loads(answer)["response"].get("userHandle") or "")[:128]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def registered(party: RelyingParty, answer: str, pending: Authenticator, taken: Iterable[str]) -> Authenticator:
    """Return a credential that was just made, active (§7.1).

    Args:
        party: who asked.
        answer: the credential, as `PublicKeyCredential.toJSON` gives it.
        pending: what was begun; its secret is the challenge.
        taken: the ids of the person's other credentials.

    Raises:
        Refused: it is not what was asked for.
    """
    import webauthn  # 0.3 s: only where somebody uses it

    def judged() -> Authenticator:
        _check_page(answer)
        _check_attestation(answer)
        found = webauthn.verify_registration_response(
            credential=answer, expected_challenge=_bytes(pending.secret), expected_rp_id=party.id,
            expected_origin=list(party.origins), supported_pub_key_algs=_algorithms(),
        )  # fmt: skip
        id = _text(found.credential_id)
        if id in taken or len(found.credential_id) > LONGEST_CREDENTIAL_ID:
            raise Refused
        _check_key(found.credential_public_key)
        return Authenticator(
            pending.id, "webauthn", pending.display_name, pending.create_time, credential_id=id,
            public_key=_text(found.credential_public_key), sign_count=found.sign_count, transports=_transports(answer),
        )  # fmt: skip

    return _judged(judged)


def answering(
    party: RelyingParty, answer: str, challenge: bytes, verified: bool, now: datetime
) -> Callable[[Principal | None], Principal | None]:
    """Return what judges an answer of a person's authenticator (§7.2), for `Shown`; nobody's takes as long to refuse.

    Args:
        party: who asked.
        answer: the assertion, as `PublicKeyCredential.toJSON` gives it.
        challenge: what it must be an answer to; empty when it was not ours or is used up.
        verified: whether the authenticator must have verified the person itself.
        now: the time it is used.
    """

    def judge(person: Principal | None) -> Principal | None:
        import webauthn

        def judged() -> Principal:
            _check_page(answer)
            given, handle = json.loads(answer), handle_in(answer)
            known = next((one for one in _credentials(person) if one.credential_id == given["rawId"]), None)
            found = webauthn.verify_authentication_response(
                credential=answer, expected_challenge=challenge, expected_rp_id=party.id,
                expected_origin=list(party.origins),
                credential_public_key=_bytes(known.public_key) if known else NOBODYS_KEY,
                credential_current_sign_count=known.sign_count if known else 0, require_user_verification=verified,
            )  # fmt: skip
            if person is None or known is None or not challenge or handle not in ("", person.user_handle):
                raise Refused
            return with_authenticator(person, replace(known, sign_count=found.new_sign_count, last_use_time=now))

        try:
            return _judged(judged) if party.id else None
        except Refused:
            return None

    return judge


def _judged(judge: Callable[[], T]) -> T:
    """Return a verdict; whatever the reading of a stranger's bytes raises is a refusal."""
    try:
        return judge()
    except Refused:
        raise
    except Exception:
        raise Refused from None


def _check_page(answer: str) -> None:
    """Refuse what a page of ours asked for inside of somebody else's (§13.4.2)."""
    if json.loads(_bytes(json.loads(answer)["response"]["clientDataJSON"])).get("crossOrigin", False) is not False:
        raise Refused


def _check_attestation(answer: str) -> None:
    """Let none pass, and one a key signed for itself, which browsers leave as it is (§5.1.3 step 20)."""
    from webauthn.helpers import parse_attestation_object

    found = parse_attestation_object(_bytes(json.loads(answer)["response"]["attestationObject"]))
    if found.fmt != "none" and not (found.fmt == "packed" and not found.att_stmt.x5c):
        raise Refused


def _check_key(public_key: bytes) -> None:
    """Refuse keys that are too short, or not on the curve."""
    from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography

    key = decoded_public_key_to_cryptography(decode_credential_public_key(public_key))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        raise Refused


def _algorithms() -> list[Any]:
    from webauthn.helpers.cose import COSEAlgorithmIdentifier

    return [COSEAlgorithmIdentifier(number) for number in ALGORITHMS]


def _transports(answer: str) -> tuple[str, ...]:
    """Return how the credential is reached, as far as the standard has words for it; a hint to browsers only."""
    given = json.loads(answer)["response"].get("transports")
    return tuple(word for word in TRANSPORTS if isinstance(given, list) and word in given)


def _signed(key: Ed25519PrivateKey, message: bytes, signature: bytes) -> bool:
    try:
        key.public_key().verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _whose(use: Use, principal_id: str) -> bytes:
    return hashlib.sha256(f"{use} {principal_id}".encode()).digest()[:16]


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
