"""How an installation protects: a cipher for each classification, and who keeps the master key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.chassis.crypto.suites import AES_256_GCM, CODES

PERSONAL, SENSITIVE = "personal", "sensitive"
FILE = "file"


@dataclass(frozen=True, slots=True)
class Protection:
    """What the KEHU_CIPHERS, KEHU_MASTER_KEY… variables say.

    `ciphers` names one per classification, `settings` are those of keepers as `keeper.name`; an unwrapped data key
    stays in memory for `cache_seconds` at most, and at most `cache_keys` do.
    """

    ciphers: Mapping[str, str] = field(default_factory=dict)
    master_key: str = FILE
    former: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    cache_seconds: float = 600.0
    cache_keys: int = 4096

    def cipher(self, classification: str) -> str:
        """Return the cipher of a classification."""
        return self.ciphers.get(classification, AES_256_GCM)

    @property
    def cipher_of_keys(self) -> str:
        """Return the cipher of what may hold anything: keys, events, files; that of the strictest classification."""
        return self.cipher(SENSITIVE)


def faults(protection: Protection) -> list[str]:
    """Return what is wrong with the names in it."""
    return [
        f"KEHU_CIPHERS: {name}={cipher} must be personal or sensitive = {' or '.join(CODES)}"
        for name, cipher in protection.ciphers.items()
        if name not in (PERSONAL, SENSITIVE) or cipher not in CODES
    ]
