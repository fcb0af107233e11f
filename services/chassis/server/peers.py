"""Who is at the other end of a connection: one of our processes by its certificate, or nobody.

Certificates are SPIFFE X.509-SVIDs (standards/X509-SVID.md §2 to §5): one URI, no authority, for signatures only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from cryptography import x509

from services.chassis import errors
from services.chassis.config import SERVICES, TRUST_DOMAIN

GATEWAY = "gateway"
PREFIX = f"spiffe://{TRUST_DOMAIN}/"
NOT_OURS = "the peer's certificate names no Kehu process"


class PeerUnknown(errors.Unauthenticated):
    """The peer's certificate is not one of ours."""

    reason = "PEER_UNKNOWN"


class Connection(Protocol):
    """As much of a call's context as is asked."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what TLS found out about the peer."""


def peer_of(context: Connection, now: Callable[[], float] = time.time) -> str:
    """Return the name of the process whose certificate the peer showed; TLS verified its chain at the handshake.

    Raises:
        PeerUnknown: it is no process of ours, no leaf, or ended meanwhile: a connection does not outlive it.
    """
    for pem in context.auth_context().get("x509_pem_cert", ()):
        name, not_after = _leaf(pem)
        if name and now() < not_after:
            return name
    raise PeerUnknown(NOT_OURS)


@lru_cache(maxsize=256)
def _leaf(pem: bytes) -> tuple[str, float]:
    """Return the process a certificate names and when it ends; no name when it is no X.509-SVID leaf."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        uris = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
        if len(uris) != 1 or not _signs_nothing(found.extensions):
            return "", 0.0
    except (ValueError, x509.ExtensionNotFound):
        return "", 0.0
    name = uris[0].removeprefix(PREFIX)
    is_ours = uris[0].startswith(PREFIX) and (name in SERVICES or name == GATEWAY)
    return (name if is_ours else ""), found.not_valid_after_utc.timestamp()


def _signs_nothing(extensions: x509.Extensions) -> bool:
    """Tell whether a certificate is for authentication only: whoever signs others must not be a peer."""
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            return False
        if isinstance(value, x509.KeyUsage) and not _authenticates(value):
            return False
    return True


def _authenticates(usage: x509.KeyUsage) -> bool:
    return usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign
