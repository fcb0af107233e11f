"""For receivers of webhooks: is a delivery ours, unchanged and fresh (Standard Webhooks 1.0). Needs no library."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

TOLERANCE_SECONDS = 300


class SignatureWrong(Exception):
    """The delivery is not from us, was changed, or is old: answer 401 and do nothing."""


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> dict[str, object]:
    """Return the content of a delivery; `body` is the bytes as they came, header names in any case.

    Raises:
        SignatureWrong: do not believe it.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, stamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    moment = time.time() if now is None else now
    if not message_id or not stamp.isascii() or not stamp.isdigit() or abs(moment - int(stamp)) > TOLERANCE_SECONDS:
        raise SignatureWrong("the delivery has no id, or its time is not now")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise SignatureWrong("the secret is not one of a webhook") from None
    expected = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    wanted = "v1," + base64.b64encode(expected).decode()
    if not any(hmac.compare_digest(wanted, each) for each in given.get("webhook-signature", "").split(" ")):
        raise SignatureWrong("no signature fits")
    content: dict[str, object] = json.loads(body)
    return content
