"""The two ciphers: AES-256-GCM (NIST SP 800-38D) and SM4-GCM (GB/T 32907-2016 in the mode of RFC 8998).

Each takes a 32-byte secret, a 12-byte nonce that never repeats, and associated data; both append a 16-byte tag.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SM4_KEY_BYTES = 16
_SM4_LABEL = b"kehu/sm4-gcm"


class Aead(Protocol):
    """A cipher under one key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Return ciphertext and tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Return the plain bytes; InvalidTag when anything differs."""


class Sm4Gcm:
    """SM4-GCM under a 128-bit key derived from a 256-bit secret, so that no key serves two ciphers."""

    __slots__ = ("_algorithm",)

    def __init__(self, secret: bytes) -> None:
        """Derive the key: the first 128 bits of HMAC-SHA256 of a fixed label."""
        self._algorithm = SM4(hmac.digest(secret, _SM4_LABEL, "sha256")[:SM4_KEY_BYTES])

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Return ciphertext and tag."""
        encryptor = Cipher(self._algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated_data)
        return encryptor.update(data) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            InvalidTag: something was changed, or the key, nonce or associated data is another.
        """
        if len(data) < TAG_BYTES:
            raise InvalidTag
        decryptor = Cipher(self._algorithm, modes.GCM(nonce, data[-TAG_BYTES:])).decryptor()
        decryptor.authenticate_additional_data(associated_data)
        return decryptor.update(data[:-TAG_BYTES]) + decryptor.finalize()


AES_256_GCM, SM4_GCM = "aes-256-gcm", "sm4-gcm"
CODES: Mapping[str, int] = {AES_256_GCM: 1, SM4_GCM: 2}  # the byte that names the cipher in what it sealed
_BY_CODE: Mapping[int, type[AESGCM] | type[Sm4Gcm]] = {1: AESGCM, 2: Sm4Gcm}


def aead_of(code: int, secret: bytes) -> Aead | None:
    """Return the cipher of a code under a secret, None for an unknown code."""
    made = _BY_CODE.get(code)
    return made(secret) if made else None


def check_available(name: str) -> None:
    """Try a cipher once.

    Raises:
        UnsupportedAlgorithm: OpenSSL of this machine is built without it.
    """
    cipher = aead_of(CODES[name], bytes(KEY_BYTES))
    assert cipher is not None
    cipher.encrypt(bytes(NONCE_BYTES), b"", b"")


__all__ = [
    "AES_256_GCM", "CODES", "KEY_BYTES", "NONCE_BYTES", "SM4_GCM", "TAG_BYTES", "Aead", "InvalidTag", "Sm4Gcm",
    "UnsupportedAlgorithm", "aead_of", "check_available",
]  # fmt: skip
