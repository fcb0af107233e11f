"""Blind indexes: keyed tokens by which an equal value is found again, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

from services.chassis.crypto.keys import read_keys

_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # RFC 2104
TOKEN_BYTES = 16  # 128 bits: no accidental collision below 2^64 values
SHARED = "index"  # the key file of release 0.1, one for all purposes


class BlindIndex:
    """Turn a normalized value into a token that finds it again but tells nothing without the key.

    Each purpose has a key file of its own, `index-<purpose>.key`, so that tokens of one table say nothing about those
    of another. An installation of release 0.1 has `index.key` and goes on with it: its stored tokens are of that key.
    The first key of a file counts for ever: docs/protection.md says for each purpose why.
    """

    def __init__(self, keys_dir: Path, purpose: str = "") -> None:
        """Read, or make, the key file of a purpose."""
        is_shared = not purpose or self._has_shared(keys_dir, purpose)
        self._root = read_keys(SHARED if is_shared else f"{SHARED}-{purpose}", keys_dir)[0].secret
        self._kinds: dict[str, tuple[Any, Any]] = {}

    @staticmethod
    def _has_shared(keys_dir: Path, purpose: str) -> bool:
        return (keys_dir / f"{SHARED}.key").exists() and not (keys_dir / f"{SHARED}-{purpose}.key").exists()

    def token(self, kind: str, normalized: str) -> str:
        """Return 22 URL-safe characters: HMAC-SHA256, cut to 128 bits, under a key of the value's kind."""
        inner, outer = self._kinds.get(kind) or self._begun(kind)
        inside, outside = inner.copy(), outer.copy()
        inside.update(normalized.encode())
        outside.update(inside.digest())
        return base64.urlsafe_b64encode(outside.digest()[:TOKEN_BYTES])[:-2].decode()

    def _begun(self, kind: str) -> tuple[Any, Any]:
        """Return both hashes of a kind's HMAC with its key taken in: a token is a third of the work that way."""
        key = hmac.digest(self._root, b"kehu/blind-index/" + kind.encode(), "sha256")
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        begun = hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))
        self._kinds[kind] = begun
        return begun
