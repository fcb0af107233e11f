"""The master key behind a small protocol: in a file, in a hardware module (PKCS#11), or with a key service (KMS).

A data key is stored wrapped only. Whoever keeps the master key never sees a customer's data, and we never see the
master key, but for the file of one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, TypeAlias

from services.chassis.crypto.keys import SealBroken, add_key, remove_key
from services.chassis.crypto.sealing import Sealer, key_id_of
from services.chassis.crypto.settings import FILE, Protection
from services.chassis.crypto.suites import AES_256_GCM
from services.chassis.errors import Unavailable

GROUP = "kehu.master_keys"  # of entry points: name = "package.module:factory"
FOREIGN = 0x10  # begins what another keeper than the file wrapped; then the length of its name, its name
FILE_NAME = "master"


class MasterKeyUnavailable(Unavailable):
    """Whoever keeps the master key does not answer: nothing was wrapped or unwrapped; try again later."""


class MasterKeeper(Protocol):
    """What keeps master keys: wraps and unwraps data keys by the hundred, has versions, the newest of which wraps.

    A plug-in is a factory `(keys_dir, settings, cipher) -> MasterKeeper` under an entry point of group
    `kehu.master_keys`. Whenever its keeper does not answer it raises MasterKeyUnavailable; it never wraps with anything
    but the master key, and never returns a data key as it is.
    """

    def wrap(self, data_keys: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return each 32-byte data key wrapped by the newest version, bound to its id."""

    def unwrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys; SealBroken when one was changed, moved to another id, or its version is gone."""

    def version_of(self, wrapped: bytes) -> str:
        """Return which version wrapped it, without asking anybody."""

    def newest(self) -> str:
        """Return the version that wraps now."""

    def versions(self) -> list[str]:
        """Return the versions that unwrap, oldest first."""

    def create(self) -> str:
        """Make a new version, which wraps from now on, and return it; SealBroken where that is the operator's to do."""

    def retire(self, version: str) -> None:
        """Destroy a version that is not the newest."""


Factory: TypeAlias = Callable[[Path, Mapping[str, str], str], MasterKeeper]


class FileKeeper:
    """Master keys in `master.key`: for one machine, or where the file is a mounted secret."""

    def __init__(self, keys_dir: Path, settings: Mapping[str, str] | None = None, cipher: str = AES_256_GCM) -> None:
        """Read, or make, `master.key` in `keys_dir`."""
        self._keys_dir = keys_dir
        self._sealer = Sealer(FILE_NAME, keys_dir, cipher)

    def wrap(self, data_keys: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys sealed under the newest master key."""
        return {key_id: self._sealer.seal(data_key, key_id.encode()) for key_id, data_key in data_keys.items()}

    def unwrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys."""
        return {key_id: self._sealer.open(value, key_id.encode()) for key_id, value in wrapped.items()}

    def version_of(self, wrapped: bytes) -> str:
        """Return the id of the key that wrapped it."""
        return key_id_of(wrapped).hex()

    def newest(self) -> str:
        """Return the id of the newest key."""
        return self._sealer.newest_key_id.hex()

    def versions(self) -> list[str]:
        """Return the ids in the file."""
        return [key_id.hex() for key_id in self._sealer.key_ids()]

    def create(self) -> str:
        """Append a key to the file."""
        try:
            made = add_key(FILE_NAME, self._keys_dir)
        except OSError:
            raise SealBroken("master.key is not writable here: add the key where the secret is kept") from None
        self._sealer.key_ids()
        return made.key_id.hex()

    def retire(self, version: str) -> None:
        """Remove a key from the file."""
        try:
            remove_key(FILE_NAME, self._keys_dir, bytes.fromhex(version))
        except OSError:
            raise SealBroken("master.key is not writable here: remove the key where the secret is kept") from None
        self._sealer.key_ids()


def _keeper(name: str, keys_dir: Path, protection: Protection) -> MasterKeeper:
    if name == FILE:
        return FileKeeper(keys_dir, {}, protection.cipher_of_keys)
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise SealBroken(f"there is no keeper of master keys named {name}: install its package")
    factory: Factory = found.load()
    prefix = f"{name}."
    mine = {key.removeprefix(prefix): value for key, value in protection.settings.items() if key.startswith(prefix)}
    return factory(keys_dir, mine, protection.cipher_of_keys)


class MasterKey:
    """The keeper that the configuration names, and those of before, which only unwrap."""

    def __init__(self, keys_dir: Path, protection: Protection | None = None) -> None:
        """Open the keepers.

        Raises:
            SealBroken: one is unknown or wrongly configured.
        """
        chosen = protection or Protection()
        self._name = chosen.master_key
        self._keepers = {name: _keeper(name, keys_dir, chosen) for name in (chosen.master_key, *chosen.former)}
        self._current = self._keepers[self._name]

    def wrap(self, data_keys: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return each data key wrapped by the newest master key, bound to its id.

        Raises:
            MasterKeyUnavailable: its keeper does not answer.
        """
        wrapped = self._current.wrap(data_keys) if data_keys else {}
        return {key_id: self._head(self._name) + value for key_id, value in wrapped.items()}

    def unwrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys.

        Raises:
            SealBroken: one was changed, belongs to another id, or its master key is gone.
            MasterKeyUnavailable: a keeper does not answer.
        """
        by_keeper: dict[str, dict[str, bytes]] = {}
        for key_id, value in wrapped.items():
            name, body = _split(value)
            by_keeper.setdefault(name, {})[key_id] = body
        found: dict[str, bytes] = {}
        for name, part in by_keeper.items():
            if name not in self._keepers:
                raise SealBroken(f"data keys were wrapped by {name}: name it among the former keepers")
            found.update(self._keepers[name].unwrap(part))
        return found

    def version_of(self, wrapped: bytes) -> str:
        """Return `keeper/version` of what wrapped it."""
        name, body = _split(wrapped)
        keeper = self._keepers.get(name)
        return f"{name}/{keeper.version_of(body) if keeper else '?'}"

    def newest(self) -> str:
        """Return `keeper/version` of what wraps now."""
        return f"{self._name}/{self._current.newest()}"

    def versions(self) -> list[str]:
        """Return all that unwrap, as `keeper/version`, those of the current keeper last."""
        names = [*(name for name in self._keepers if name != self._name), self._name]
        return [f"{name}/{version}" for name in names for version in self._keepers[name].versions()]

    def is_stale(self, wrapped: bytes) -> bool:
        """Tell whether an older master key wrapped it, so that it should be wrapped again."""
        return self.version_of(wrapped) != self.newest()

    def rewrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the same data keys under the newest master key."""
        return self.wrap(self.unwrap(wrapped))

    def create(self) -> str:
        """Make a new version with the current keeper and return `keeper/version`."""
        return f"{self._name}/{self._current.create()}"

    def retire(self, version: str) -> None:
        """Destroy a version, given as `keeper/version`, that is not the newest.

        Raises:
            SealBroken: it is the newest, or unknown.
        """
        name, _, number = version.partition("/")
        if version == self.newest():
            raise SealBroken("this master key wraps now: make another first")
        if version not in self.versions():
            raise SealBroken("there is no such master key")
        self._keepers[name].retire(number)

    @staticmethod
    def _head(name: str) -> bytes:
        return b"" if name == FILE else bytes((FOREIGN, len(name))) + name.encode()


def _split(wrapped: bytes) -> tuple[str, bytes]:
    """Return the name of the keeper and what it wrapped."""
    if wrapped[:1] != bytes((FOREIGN,)) or len(wrapped) < 2:
        return FILE, wrapped
    end = 2 + wrapped[1]
    return wrapped[2:end].decode("ascii", "replace"), wrapped[end:]
