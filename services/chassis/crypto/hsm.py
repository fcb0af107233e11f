"""Master keys in a hardware security module through PKCS#11 v2.40: AES-256 keys that never leave it (CKM_AES_GCM).

Needs the extra `hsm`. Settings: `pkcs11.module` (the vendor's library), `pkcs11.token` (its label), `pkcs11.pin_file`,
and `pkcs11.label` (of our keys, kehu-master when not given). A version is the CKA_ID of a key, a number in hex.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from services.chassis.crypto.keys import SealBroken
from services.chassis.crypto.master import MasterKeyUnavailable
from services.chassis.crypto.suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES

VERSION_BYTES = 4
LOOK_SECONDS = 5.0  # how often the module is asked for newer keys
_REQUIRED = ("module", "token", "pin_file")


class Pkcs11Keeper:
    """A MasterKeeper on a PKCS#11 token; one session, used by one thread at a time, opened again after a failure."""

    def __init__(self, keys_dir: Path, settings: Mapping[str, str], cipher: str) -> None:
        """Open the token and make the first key when there is none.

        Raises:
            SealBroken: a setting is missing.
        """
        missing = [f"pkcs11.{name}" for name in _REQUIRED if not settings.get(name)]
        if missing:
            raise SealBroken(f"KEHU_MASTER_KEY_SETTINGS lacks {', '.join(missing)}")
        self._settings = settings
        self._label = settings.get("label", "kehu-master")
        self._lock = threading.RLock()
        self._session: Any = None
        self._keys: dict[str, list[Any]] = {}
        self._looked = 0.0
        if not self.versions():
            self.create()

    def wrap(self, data_keys: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys encrypted by the newest key of the token."""
        version = self.newest()
        return self._each(data_keys, lambda key_id, value: self._encrypt(version, key_id, value))

    def unwrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys."""
        return self._each(wrapped, self._decrypt)

    def version_of(self, wrapped: bytes) -> str:
        """Return the id of the key that wrapped it."""
        return wrapped[:VERSION_BYTES].hex()

    def newest(self) -> str:
        """Return the id of the newest key."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            return self.versions()[-1]
        return max(self._keys)

    def versions(self) -> list[str]:
        """Return the ids of the keys on the token, in the order they were made.

        Processes that start at once may each make the first key: several of one id, any of which may have wrapped.
        """
        with self._opened() as session:
            from pkcs11 import Attribute, KeyType, ObjectClass

            kind = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
            query = {**kind, Attribute.LABEL: self._label}
            keys: dict[str, list[Any]] = {}
            for key in session.get_objects(query):
                keys.setdefault(key.id.hex(), []).append(key)
            self._keys = keys
            self._looked = time.monotonic()
            return sorted(self._keys)

    def create(self) -> str:
        """Make a key on the token, which cannot be read out."""
        version = f"{int((self.versions() or ['0'])[-1], 16) + 1:0{VERSION_BYTES * 2}x}"
        with self._opened() as session:
            from pkcs11 import Attribute, KeyType, MechanismFlag

            session.generate_key(
                KeyType.AES, KEY_BYTES * 8, id=bytes.fromhex(version), label=self._label, store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
            )  # fmt: skip
        self.versions()
        return version

    def retire(self, version: str) -> None:
        """Destroy a key on the token."""
        with self._opened():
            for key in self._of(version):
                key.destroy()
        self.versions()

    def _each(self, values: Mapping[str, bytes], work: Callable[[str, bytes], bytes]) -> dict[str, bytes]:
        with self._opened():
            return {key_id: work(key_id, value) for key_id, value in values.items()}

    def _encrypt(self, version: str, key_id: str, data_key: bytes) -> bytes:
        from pkcs11 import GCMParams, Mechanism

        nonce = os.urandom(NONCE_BYTES)
        params = GCMParams(nonce, key_id.encode(), TAG_BYTES * 8)
        body = self._of(version)[0].encrypt(data_key, mechanism=Mechanism.AES_GCM, mechanism_param=params)
        return bytes.fromhex(version) + nonce + bytes(body)

    def _decrypt(self, key_id: str, wrapped: bytes) -> bytes:
        if len(wrapped) != VERSION_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES:
            raise SealBroken("a wrapped data key is cut")
        version = self.version_of(wrapped)
        plain = self._tried(self._of(version), key_id, wrapped)
        if plain is None:  # another process may have made one of the same id since we looked
            self.versions()
            plain = self._tried(self._of(version), key_id, wrapped)
        if plain is None:
            raise SealBroken("a wrapped data key was changed or moved")
        return plain

    @staticmethod
    def _tried(keys: list[Any], key_id: str, wrapped: bytes) -> bytes | None:
        from pkcs11 import GCMParams, Mechanism
        from pkcs11.exceptions import EncryptedDataInvalid, EncryptedDataLenRange, FunctionFailed, GeneralError

        nonce, body = wrapped[VERSION_BYTES:][:NONCE_BYTES], wrapped[VERSION_BYTES + NONCE_BYTES :]
        params = GCMParams(nonce, key_id.encode(), TAG_BYTES * 8)
        for key in keys:
            with suppress(EncryptedDataInvalid, EncryptedDataLenRange, FunctionFailed, GeneralError):
                return bytes(key.decrypt(body, mechanism=Mechanism.AES_GCM, mechanism_param=params))
        return None

    def _of(self, version: str) -> list[Any]:
        if version not in self._keys:
            self.versions()
        if version not in self._keys:
            raise SealBroken("the master key of this data key is gone")
        return self._keys[version]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Give the session to one thread; what the module reports besides broken seals means that it is away."""
        from pkcs11.exceptions import PKCS11Error

        with self._lock:
            try:
                if self._session is None:
                    self._session = self._open()
                yield self._session
            except (PKCS11Error, OSError, RuntimeError) as error:
                self._session, self._keys, self._looked = None, {}, 0.0
                raise MasterKeyUnavailable(f"the hardware module does not answer ({type(error).__name__})") from None

    def _open(self) -> Any:
        import pkcs11

        pin = Path(self._settings["pin_file"]).read_text(encoding="utf-8").strip()
        token = pkcs11.lib(self._settings["module"]).get_token(token_label=self._settings["token"])
        try:
            return token.open(user_pin=pin, rw=True)
        except pkcs11.exceptions.UserAlreadyLoggedIn:  # a process logs in once, for all its sessions
            return token.open(rw=True)
