"""Data keys in memory: unwrapped, as few as needed, for as short as useful."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from services.chassis.crypto.master import MasterKey
from services.chassis.crypto.sealing import FieldCipher
from services.chassis.crypto.suites import KEY_BYTES


class DataKeys:
    """Make and unwrap data keys, keeping ciphers of recent customers in memory, bounded in number and time.

    While the keeper of the master key is away, what is kept goes on opening; new keys are refused.
    """

    def __init__(
        self,
        master: MasterKey,
        cache_size: int = 4096,
        cache_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap with `master`; the caller keeps the wrapped keys."""
        self.master = master
        self._cache_size = cache_size
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._ciphers: OrderedDict[tuple[str, bytes], tuple[FieldCipher, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._swept = clock()

    def new(self, key_ids: Sequence[str]) -> dict[str, tuple[bytes, FieldCipher]]:
        """Return fresh data keys by id: wrapped for the store, and the cipher that uses it.

        Raises:
            MasterKeyUnavailable: the keeper of the master key does not answer; nothing was made.
        """
        made = {key_id: secrets.token_bytes(KEY_BYTES) for key_id in key_ids}
        wrapped = self.master.wrap(made)
        found = {key_id: (wrapped[key_id], FieldCipher(key_id, made[key_id])) for key_id in made}
        self._keep({(key_id, value): cipher for key_id, (value, cipher) in found.items()})
        return found

    def ciphers(self, wrapped: Mapping[str, bytes]) -> dict[str, FieldCipher]:
        """Return the ciphers of wrapped data keys by id; those not in memory are unwrapped together.

        Raises:
            SealBroken: a key was changed, belongs to another id, or its master key is gone.
            MasterKeyUnavailable: one is not in memory and the keeper of the master key does not answer.
        """
        found, now = {}, self._clock()
        with self._lock:
            self._sweep(now)
            for entry in wrapped.items():
                held = self._ciphers.get(entry)
                if held is not None and held[1] > now:
                    self._ciphers.move_to_end(entry)
                    found[entry[0]] = held[0]
        missing = {key_id: value for key_id, value in wrapped.items() if key_id not in found}
        if missing:
            opened = {key_id: FieldCipher(key_id, key) for key_id, key in self.master.unwrap(missing).items()}
            self._keep({(key_id, missing[key_id]): cipher for key_id, cipher in opened.items()})
            found.update(opened)
        return found

    def forget(self, key_id: str) -> None:
        """Drop what this process holds of a destroyed key."""
        with self._lock:
            for entry in [entry for entry in self._ciphers if entry[0] == key_id]:
                del self._ciphers[entry]

    def __len__(self) -> int:
        return len(self._ciphers)

    def _keep(self, ciphers: Mapping[tuple[str, bytes], FieldCipher]) -> None:
        now = self._clock()
        with self._lock:
            for entry, cipher in ciphers.items():
                self._ciphers[entry] = (cipher, now + self._cache_seconds)
                self._ciphers.move_to_end(entry)
            while len(self._ciphers) > self._cache_size:
                self._ciphers.popitem(last=False)

    def _sweep(self, now: float) -> None:
        """Drop what is too old, ten times in its lifetime."""
        if now - self._swept < self._cache_seconds / 10:
            return
        self._swept = now
        for entry in [entry for entry, (_, until) in self._ciphers.items() if until <= now]:
            del self._ciphers[entry]
