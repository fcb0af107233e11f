"""See the TLS certificate a client connected with: told by a proxy we were configured to believe, by nobody else.

The proxy ends TLS, asks for client certificates, removes what clients write into the header themselves, and sets
`Client-Cert` as RFC 9440 says (`:BASE64-OF-DER:`), or to the URL-encoded PEM that nginx can write.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import unquote_to_bytes

from gateway.limits import address_of
from gateway.problems import refusal
from gateway.reasons import Reason
from gateway.wire import Exchange

HEADER = b"client-cert"
FIELD = re.compile(rb":([A-Za-z0-9+/]+={0,2}):")
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
BYTES = 16_000


class CertificateReader:
    """Takes the client's certificate from the header when the connection comes from one of the networks."""

    def __init__(self, proxies: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def thumbprint(self, exchange: Exchange) -> str:
        """Return the certificate's SHA-256, base64url (RFC 8705 §3.1); empty when there is none to believe.

        Raises:
            Problem: a proxy we believe wrote something else into the header.
        """
        raw = exchange.headers.get(HEADER)
        if not raw or not self._believes(exchange.peer):
            return ""
        der = der_of(raw)
        if der is None:
            raise refusal(400, Reason.BAD_HEADER, "Client-Cert must be :BASE64: (RFC 9440) or URL-encoded PEM")
        return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")

    def _believes(self, peer: str) -> bool:
        if not self._proxies:
            return False
        try:
            address = address_of(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def der_of(raw: bytes) -> bytes | None:
    """Return the certificate in a header, None when it is in neither form."""
    if len(raw) > BYTES:
        return None
    match = FIELD.fullmatch(raw) or PEM.fullmatch(unquote_to_bytes(raw))
    if match is None:
        return None
    try:
        der = base64.b64decode(b"".join(match[1].split()), validate=True)
    except binascii.Error:
        return None
    return der if der[:1] == b"\x30" else None  # an ASN.1 sequence
