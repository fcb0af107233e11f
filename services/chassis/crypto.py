"""Keys in files, sealed bytes, a data key per customer, and keyed tokens for exact look-up.

Every ciphertext is AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D), bound by its associated data to
the purpose and the place it belongs to; what a key of this installation sealed names that key in its header.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
KEY_ID_BYTES = 4
FORMAT = b"\x01"
HEADER_BYTES = len(FORMAT) + KEY_ID_BYTES
TOKEN_BYTES = 16  # 128 bits: no accidental collision below 2^64 values


class SealBroken(Exception):
    """The bytes were changed, cut, sealed for another purpose or place, or their key is gone."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a key file: its public id and its 32 secret bytes."""

    key_id: bytes
    secret: bytes = field(repr=False)


def read_keys(name: str, keys_dir: Path) -> tuple[Key, ...]:
    """Return the keys of `<name>.key`, newest last; a missing file is made with one fresh key, mode 0600.

    Raises:
        SealBroken: when a line of the file is not `hex-id base64-key`.
    """
    path = keys_dir / f"{name}.key"
    if not path.exists():
        _publish(path, _new_line(), exclusive=True)
    keys = []
    for number, line in enumerate(path.read_text(encoding="ascii").split("\n"), start=1):
        if line.strip():
            keys.append(_parse_line(line, path, number))
    if not keys:
        raise SealBroken(f"{path.name} holds no key: restore it from its backup")
    return tuple(keys)


def add_key(name: str, keys_dir: Path) -> Key:
    """Append a fresh key that seals from now on; older keys go on opening what they sealed.

    Processes see it when they next start.
    """
    read_keys(name, keys_dir)
    path = keys_dir / f"{name}.key"
    _publish(path, path.read_text(encoding="ascii") + _new_line(), exclusive=False)
    return read_keys(name, keys_dir)[-1]


def _new_line() -> str:
    return f"{secrets.token_hex(KEY_ID_BYTES)} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def _parse_line(line: str, path: Path, number: int) -> Key:
    try:
        key_id, encoded = line.split()
        key = Key(bytes.fromhex(key_id), base64.b64decode(encoded, validate=True))
    except ValueError:
        key = Key(b"", b"")
    if len(key.key_id) != KEY_ID_BYTES or len(key.secret) != KEY_BYTES:
        raise SealBroken(f"{path.name} line {number} is not a key: restore the file from its backup")
    return key


def _publish(path: Path, text: str, *, exclusive: bool) -> None:
    """Write the file whole or not at all; with `exclusive`, the first of several processes wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            try:
                os.link(draft, path)
            except FileExistsError:
                return
        else:
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


class Sealer:
    """Seal bytes for one purpose with the newest key of its file, and open what any key of it sealed."""

    def __init__(self, purpose: str, keys_dir: Path) -> None:
        """Read, or make, `<purpose>.key` in `keys_dir`."""
        keys = read_keys(purpose, keys_dir)
        self._ciphers = {key.key_id: AESGCM(key.secret) for key in keys}
        self._newest = keys[-1].key_id
        self._purpose = purpose.encode()

    @property
    def newest_key_id(self) -> bytes:
        """Id of the key that seals now; what carries another id waits to be sealed again."""
        return self._newest

    def seal(self, plain: bytes, aad: bytes = b"") -> bytes:
        """Return header, nonce and ciphertext; the same `aad` is needed to open them."""
        header = FORMAT + self._newest
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + self._ciphers[self._newest].encrypt(nonce, plain, self._bind(header, aad))

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """Return the bytes that were sealed.

        Raises:
            SealBroken: when anything was changed, or `aad` or the purpose differ, or the key is unknown.
        """
        header, body = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
        cipher = self._ciphers.get(header[len(FORMAT) :])
        if header[:1] != FORMAT or cipher is None or len(body) < NONCE_BYTES + TAG_BYTES:
            raise SealBroken(f"not sealed for {self._purpose.decode()} by a key of this installation")
        try:
            return cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], self._bind(header, aad))
        except InvalidTag:
            raise SealBroken(f"bytes sealed for {self._purpose.decode()} were changed or moved") from None

    def _bind(self, header: bytes, aad: bytes) -> bytes:
        return self._purpose + b"\x00" + header + aad


def key_id_of(sealed: bytes) -> bytes:
    """Return which key sealed the bytes, so that a rotation finds what is left to do."""
    return sealed[len(FORMAT) : HEADER_BYTES]


class MasterKey:
    """Wrap the data keys of customers; destroying a wrapped key destroys all that its data key sealed."""

    def __init__(self, keys_dir: Path) -> None:
        """Read, or make, `master.key` in `keys_dir`."""
        self._sealer = Sealer("master", keys_dir)

    def wrap(self, data_key: bytes, key_id: str) -> bytes:
        """Return the data key sealed under the newest master key, bound to its own id."""
        return self._sealer.seal(data_key, key_id.encode())

    def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the data key.

        Raises:
            SealBroken: when it was changed, belongs to another id, or its master key is gone.
        """
        return self._sealer.open(wrapped, key_id.encode())

    def is_stale(self, wrapped: bytes) -> bool:
        """Tell whether an older master key wrapped it, so that it should be wrapped again."""
        return key_id_of(wrapped) != self._sealer.newest_key_id

    def rewrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the same data key under the newest master key."""
        return self.wrap(self.unwrap(wrapped, key_id), key_id)


class FieldCipher:
    """Seal and open fields under one data key; associated data binds each to its field and the key's id."""

    __slots__ = ("_cipher", "key_id")

    def __init__(self, key_id: str, data_key: bytes) -> None:
        """Hold the data key in memory only."""
        self.key_id = key_id
        self._cipher = AESGCM(data_key)

    def seal(self, field_name: str, plain: bytes, place: str = "") -> bytes:
        """Return nonce and ciphertext; `place` is the document the field lives in."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, self._bind(field_name, place))

    def open(self, field_name: str, sealed: bytes, place: str = "") -> bytes:
        """Return the field.

        Raises:
            SealBroken: when it was changed, or sealed for another field, place or key.
        """
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise SealBroken(f"field {field_name} is cut")
        try:
            return self._cipher.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bind(field_name, place)
            )
        except InvalidTag:
            raise SealBroken(f"field {field_name} was changed or moved") from None

    def _bind(self, field_name: str, place: str) -> bytes:
        return f"{field_name}\x00{place}\x00{self.key_id}".encode()


class DataKeys:
    """Make and unwrap data keys, keeping at most `cache_size` ciphers of recent customers in memory."""

    def __init__(self, master: MasterKey, cache_size: int = 4096) -> None:
        """Wrap with `master`; the caller keeps the wrapped keys."""
        self._master = master
        self._cache_size = cache_size
        self._ciphers: OrderedDict[tuple[str, bytes], FieldCipher] = OrderedDict()
        self._lock = threading.Lock()

    def new(self, key_id: str) -> tuple[bytes, FieldCipher]:
        """Return a fresh data key, wrapped for the store, and the cipher that uses it."""
        data_key = secrets.token_bytes(KEY_BYTES)
        wrapped = self._master.wrap(data_key, key_id)
        cipher = FieldCipher(key_id, data_key)
        self._keep(key_id, wrapped, cipher)
        return wrapped, cipher

    def cipher(self, key_id: str, wrapped: bytes) -> FieldCipher:
        """Return the cipher of a wrapped data key.

        Raises:
            SealBroken: when the key was changed, belongs to another id, or its master key is gone.
        """
        with self._lock:
            known = self._ciphers.get((key_id, wrapped))
            if known is not None:
                self._ciphers.move_to_end((key_id, wrapped))
                return known
        cipher = FieldCipher(key_id, self._master.unwrap(wrapped, key_id))
        self._keep(key_id, wrapped, cipher)
        return cipher

    def forget(self, key_id: str) -> None:
        """Drop what this process holds of a destroyed key."""
        with self._lock:
            for entry in [entry for entry in self._ciphers if entry[0] == key_id]:
                del self._ciphers[entry]

    def __len__(self) -> int:
        return len(self._ciphers)

    def _keep(self, key_id: str, wrapped: bytes, cipher: FieldCipher) -> None:
        with self._lock:
            self._ciphers[(key_id, wrapped)] = cipher
            while len(self._ciphers) > self._cache_size:
                self._ciphers.popitem(last=False)


class BlindIndex:
    """Turn a normalized value into a token that finds it again but tells nothing without the key."""

    KEY_NAME: ClassVar[str] = "index"

    def __init__(self, keys_dir: Path) -> None:
        """Read, or make, `index.key`; its first key counts for ever, for stored tokens cannot be remade."""
        self._root = read_keys(self.KEY_NAME, keys_dir)[0].secret
        self._kinds: dict[str, bytes] = {}

    def token(self, kind: str, normalized: str) -> str:
        """Return 22 URL-safe characters: HMAC-SHA256, cut to 128 bits, under a key of the value's kind."""
        key = self._kinds.get(kind)
        if key is None:
            key = hmac.digest(self._root, b"kehu/blind-index/" + kind.encode(), "sha256")
            self._kinds[kind] = key
        digest = hmac.digest(key, normalized.encode(), "sha256")[:TOKEN_BYTES]
        return base64.urlsafe_b64encode(digest)[:-2].decode()
