"""For receivers of webhooks: is a delivery ours, unchanged and fresh (Standard Webhooks 1.0). Needs no library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

TOLERANCE_SECONDS = 300
STAMP_DIGITS = 12
KEY_BYTES = 24  # the least of Standard Webhooks; ours have 32


class SignatureWrong(Exception):
    """The delivery is not from us, was changed, or is old: answer 401 and do nothing."""


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> dict[str, object]:
    """Return the content of a delivery; `body` is the bytes as they came, header names in any case.

    Raises:
        SignatureWrong: do not believe it.
        ValueError: the secret is empty, cut off or none of a webhook: nothing can be verified with it.
    """
    key = key_of(secret)
    given = {name.lower(): value for name, value in headers.items()}
    message_id, stamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    moment = time.time() if now is None else now
    is_number = stamp.isascii() and stamp.isdigit() and len(stamp) <= STAMP_DIGITS
    if not message_id or not is_number or abs(moment - int(stamp)) > TOLERANCE_SECONDS:
        raise SignatureWrong("the delivery has no id, or its time is not now")
    try:
        signed = f"{message_id}.{stamp}.".encode() + body
        signatures = given.get("webhook-signature", "").encode().split(b" ")
    except UnicodeError:
        raise SignatureWrong("the headers are not text") from None
    wanted = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    if not any(hmac.compare_digest(wanted, each) for each in signatures):
        raise SignatureWrong("no signature fits")
    content: dict[str, object] = json.loads(body)
    return content


def key_of(secret: str) -> bytes:
    """Return the key of a secret as it was shown.

    Raises:
        ValueError: it is not one, or shorter than any that is given out.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES:
        raise ValueError("the secret is not one of a webhook: give it whole, whsec_ and what follows, as it was shown")
    return key
