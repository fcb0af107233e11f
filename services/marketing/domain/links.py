"""Unsubscribe links: a delivery's id signed with a key, so that nobody can make one up and none names a person."""

from __future__ import annotations

import base64
import binascii
import hmac

ID_BYTES = 16
MAC_BYTES = 16  # HMAC-SHA256 cut to 128 bits (RFC 2104 §5)
_LABEL = b"kehu/unsubscribe/v1/"


def unsubscribe_token(key: bytes, delivery_id: str) -> str:
    """Return 43 URL-safe characters for a delivery id of 32 hexadecimal digits."""
    raw = bytes.fromhex(delivery_id)
    return base64.urlsafe_b64encode(raw + _mac(key, raw)).decode().rstrip("=")


def delivery_of(keys: tuple[bytes, ...], token: str) -> str | None:
    """Return the delivery id of a token that one of the keys signed, else None."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    body, mac = raw[:ID_BYTES], raw[ID_BYTES:]
    if len(raw) != ID_BYTES + MAC_BYTES:
        return None
    is_ours = [hmac.compare_digest(mac, _mac(key, body)) for key in keys]
    return body.hex() if any(is_ours) else None


def _mac(key: bytes, raw: bytes) -> bytes:
    return hmac.digest(key, _LABEL + raw, "sha256")[:MAC_BYTES]
