"""Key files: one key a line, the newest last; read again when they change, so no process needs a restart."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.crypto.suites import KEY_BYTES
from services.chassis.durable import write_whole

KEY_ID_BYTES = 4
LOOK_SECONDS = 1.0  # how often a file in use is looked at


class SealBroken(Exception):
    """The bytes were changed, cut, sealed for another purpose or place, or their key is gone."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a key file: its public id, its 32 secret bytes, and when it begins to seal (seconds since 1970)."""

    key_id: bytes
    secret: bytes = field(repr=False)
    seals_from: int = 0


def read_keys(name: str, keys_dir: Path) -> tuple[Key, ...]:
    """Return the keys of `<name>.key`, newest last; a missing file is made with one fresh key, mode 0600.

    Raises:
        SealBroken: when a line of the file is not `hex-id base64-key [seconds]`.
    """
    path = keys_dir / f"{name}.key"
    if not path.exists():
        _publish(path, _line(_new_key()), exclusive=True)
    return _keys_of(path)


def _keys_of(path: Path) -> tuple[Key, ...]:
    keys = []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").split("\n"), start=1):
        if line.strip():
            keys.append(_parse_line(line, path, number))
    if not keys:
        raise SealBroken(f"{path.name} holds no key: restore it from its backup")
    return tuple(keys)


def add_key(name: str, keys_dir: Path, seals_from: int = 0) -> Key:
    """Append a fresh key; older keys go on opening what they sealed, and seal until `seals_from` (seconds since 1970).

    Where processes read copies of the file that are renewed at different times (secrets of Kubernetes), let the time
    be one at which all have it.
    """
    with _alone(keys_dir):
        keys = read_keys(name, keys_dir)
        made = _new_key(seals_from)
        _publish(keys_dir / f"{name}.key", "".join(map(_line, (*keys, made))), exclusive=False)
    return made


def remove_key(name: str, keys_dir: Path, key_id: bytes) -> None:
    """Remove a key for ever: what it sealed cannot be opened any more.

    Raises:
        SealBroken: it is the newest or the only one, or seals until the time of the newest comes.
    """
    with _alone(keys_dir):
        keys = read_keys(name, keys_dir)
        if key_id in (keys[-1].key_id, _sealing(keys).key_id):
            raise SealBroken(f"{name}.key seals with this key: add another first, and wait until its time has come")
        kept = [key for key in keys if key.key_id != key_id]
        _publish(keys_dir / f"{name}.key", "".join(map(_line, kept)), exclusive=False)


@contextlib.contextmanager
def _alone(keys_dir: Path) -> Iterator[None]:
    """Let one process at a time change key files: of two that read the same keys, one would lose the other's."""
    keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(keys_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _sealing(keys: Sequence[Key]) -> Key:
    """Return the last key whose time has come."""
    if not keys[-1].seals_from:
        return keys[-1]
    now = time.time()
    return next((key for key in reversed(keys) if key.seals_from <= now), keys[0])


def _new_key(seals_from: int = 0) -> Key:
    return Key(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(KEY_BYTES), seals_from)


def _line(key: Key) -> str:
    after = f" {key.seals_from}" if key.seals_from else ""
    return f"{key.key_id.hex()} {base64.b64encode(key.secret).decode()}{after}\n"


def _parse_line(line: str, path: Path, number: int) -> Key:
    try:
        key_id, encoded, *after = line.split()
        key = Key(bytes.fromhex(key_id), base64.b64decode(encoded, validate=True), int(after[0]) if after else 0)
    except ValueError:
        key = Key(b"", b"")
    if len(key.key_id) != KEY_ID_BYTES or len(key.secret) != KEY_BYTES:
        raise SealBroken(f"{path.name} line {number} is not a key: restore the file from its backup")
    return key


def _publish(path: Path, text: str, *, exclusive: bool) -> None:
    """Write the file whole or not at all; with `exclusive`, the first of several processes wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        write_whole(path, text.encode("ascii"), exclusive=exclusive)


class KeyFile:
    """A key file in use: looked at once a second, and at once when a key is asked for that it lacks."""

    def __init__(self, name: str, keys_dir: Path) -> None:
        """Read, or make, `<name>.key` in `keys_dir`."""
        self._path = keys_dir / f"{name}.key"
        self._lock = threading.Lock()
        self._stamp = self._now_stamp()
        self._keys = read_keys(name, keys_dir)
        self._looked = time.monotonic()

    def keys(self) -> Sequence[Key]:
        """Return the keys, newest last; the same object as long as the file does not change."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()
        return self._keys

    def look(self) -> Sequence[Key]:
        """Read the file again if it changed; a file that is away or being repaired leaves what was read before."""
        with self._lock:
            self._looked = time.monotonic()
            stamp = self._now_stamp()
            if stamp != self._stamp:
                with contextlib.suppress(OSError, SealBroken):
                    self._keys, self._stamp = _keys_of(self._path), stamp
        return self._keys

    def newest(self) -> Key:
        """Return the key that seals now: the last whose time has come."""
        return _sealing(self.keys())

    def find(self, key_id: bytes) -> Key | None:
        """Return a key by id."""
        found = next((key for key in self.keys() if key.key_id == key_id), None)
        return found or next((key for key in self.look() if key.key_id == key_id), None)

    def _now_stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_ino, found.st_size)
