"""Sealed bytes: of a service, under a key file of its own; and of a customer, under that customer's data key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from services.chassis.crypto.keys import KEY_ID_BYTES, Key, KeyFile, SealBroken
from services.chassis.crypto.suites import AES_256_GCM, CODES, NONCE_BYTES, TAG_BYTES, Aead, InvalidTag, aead_of

HEADER_BYTES = 1 + KEY_ID_BYTES
MARK = 0xC5  # begins a sealed field that names its cipher; those of release 0.1 begin with their nonce


class Sealer:
    """Seal bytes for one purpose with the newest key of its file, and open what any key of it sealed.

    Sealed bytes are: the cipher's code, 4 bytes of key id, 12 of nonce, ciphertext, 16 of tag. Purpose, code and key id
    are authenticated with them.
    """

    def __init__(self, purpose: str, keys_dir: Path, cipher: str = AES_256_GCM) -> None:
        """Read, or make, `<purpose>.key` in `keys_dir`; seal with the cipher of this name."""
        self._file = KeyFile(purpose, keys_dir)
        self._purpose = purpose.encode()
        self._code = CODES[cipher]
        self._seen: Sequence[Key] = ()
        self._ciphers: dict[bytes, Aead] = {}

    @property
    def newest_key_id(self) -> bytes:
        """Id of the key that seals now; what carries another id waits to be sealed again."""
        return self._file.newest().key_id

    def key_ids(self) -> list[bytes]:
        """Return the ids of all keys that open, oldest first."""
        return [key.key_id for key in self._file.look()]

    def seal(self, plain: bytes, aad: bytes = b"") -> bytes:
        """Return header, nonce and ciphertext; the same `aad` is needed to open them."""
        return self._sealed(self._code, plain, aad)

    def sealed_again(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """Return the same sealed by the newest key, and by the cipher it was sealed by."""
        plain = self.open(sealed, aad)
        return self._sealed(sealed[0], plain, aad)

    def _sealed(self, code: int, plain: bytes, aad: bytes) -> bytes:
        header = bytes((code,)) + self._file.newest().key_id
        cipher = self._cipher(header)
        assert cipher is not None
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + cipher.encrypt(nonce, plain, self._bind(header, aad))

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """Return the bytes that were sealed.

        Raises:
            SealBroken: when anything was changed, or `aad` or the purpose differ, or the key is unknown.
        """
        header, body = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
        cipher = self._cipher(header)
        if cipher is None or len(body) < NONCE_BYTES + TAG_BYTES:
            raise SealBroken(f"not sealed for {self._purpose.decode()} by a key of this installation")
        try:
            return cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], self._bind(header, aad))
        except InvalidTag:
            raise SealBroken(f"bytes sealed for {self._purpose.decode()} were changed or moved") from None

    def _cipher(self, header: bytes) -> Aead | None:
        """Return the cipher that a header names; keys taken out of the file are forgotten with it."""
        keys = self._file.keys()
        if keys is not self._seen:
            self._ciphers, self._seen = {}, keys
        found = self._ciphers.get(header)
        if found is None and len(header) == HEADER_BYTES:
            key = self._file.find(header[1:])
            found = aead_of(header[0], key.secret) if key else None
            if found is not None:
                self._ciphers[header] = found
        return found

    def _bind(self, header: bytes, aad: bytes) -> bytes:
        return self._purpose + b"\x00" + header + aad


def key_id_of(sealed: bytes) -> bytes:
    """Return which key sealed the bytes, so that a rotation finds what is left to do."""
    return sealed[1:HEADER_BYTES]


class FieldCipher:
    """Seal and open fields under one data key.

    Sealed bytes are: MARK, the cipher's code, 12 bytes of nonce, ciphertext, 16 of tag. Authenticated with them are the
    cipher, the field's name, the document the field lives in, and the id of the data key.
    """

    __slots__ = ("_ciphers", "_data_key", "key_id")

    def __init__(self, key_id: str, data_key: bytes) -> None:
        """Hold the data key in memory only."""
        self.key_id = key_id
        self._data_key = data_key
        self._ciphers: dict[int, Aead] = {}

    def seal(self, field_name: str, plain: bytes, place: str = "", cipher: str = AES_256_GCM) -> bytes:
        """Return header, nonce and ciphertext; `place` is the document the field lives in."""
        header = bytes((MARK, CODES[cipher]))
        found = self._cipher(header[1])
        assert found is not None
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + found.encrypt(nonce, plain, header + self._bind(field_name, place))

    def open(self, field_name: str, sealed: bytes, place: str = "") -> bytes:
        """Return the field.

        Raises:
            SealBroken: when it was changed, or sealed for another field, place or key.
        """
        bound = self._bind(field_name, place)
        if sealed[:1] == bytes((MARK,)):
            plain = self._open(sealed[1:2], sealed[2:], sealed[:2] + bound)
            if plain is not None:
                return plain
        plain = self._open(b"\x01", sealed, bound)  # of release 0.1: AES-256-GCM, no header
        if plain is None:
            raise SealBroken(f"field {field_name} was changed, cut or moved")
        return plain

    def _open(self, code: bytes, body: bytes, bound: bytes) -> bytes | None:
        cipher = self._cipher(code[0]) if code else None
        if cipher is None or len(body) < NONCE_BYTES + TAG_BYTES:
            return None
        try:
            return cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], bound)
        except InvalidTag:
            return None

    def _cipher(self, code: int) -> Aead | None:
        found = self._ciphers.get(code)
        if found is None and (found := aead_of(code, self._data_key)) is not None:
            self._ciphers[code] = found
        return found

    def _bind(self, field_name: str, place: str) -> bytes:
        return f"{field_name}\x00{place}\x00{self.key_id}".encode()
