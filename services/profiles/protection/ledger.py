"""The erasure ledger: who was erased, by tokens only; whose records are refused, and whose keys may never come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from services.profiles.store import Store
from services.profiles.vault import Vault

LOOK_SECONDS = 1.0  # how often a process asks for new entries
KNOWN_SECONDS = 3.0  # after which every process knows an entry
OVERLAP_NANOSECONDS = 120 * 10**9  # entries are read again for so long: clocks of machines differ
PAGE = 500


def place_now() -> str:
    """Return the place of an entry that changes now."""
    return f"{time.time_ns():020d}"


class Ledger:
    """What a process knows of the ledger: the tokens of refused records, about 150 bytes each."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._tokens: dict[str, datetime] = {}
        self._newest = 0
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def erased(self, keys: Sequence[str]) -> set[str]:
        """Return which of these source records belong to erased persons."""
        self._look()
        if not self._tokens:
            return set()
        now = datetime.now(UTC)
        until = {key: self._tokens.get(self._vault.erased_token(key)) for key in keys}
        return {key for key, time in until.items() if time is not None and time > now}

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < LOOK_SECONDS:
                return
            after = f"{max(0, self._newest - OVERLAP_NANOSECONDS):020d}"
            while page := self._store.erasures.page({}, after, PAGE, "place"):
                for entry in page:
                    self._tokens.update(dict.fromkeys(entry.tokens, entry.expire_time))
                after = page[-1].place
                self._newest = max(self._newest, int(after))
            self._looked = time.monotonic()


def ledger_of(store: Store, vault: Vault) -> Ledger:
    """Return the one ledger of a store in this process."""
    return _ledger(cast("Hashable", store), cast("Hashable", vault))


@lru_cache(maxsize=4)
def _ledger(store: Hashable, vault: Hashable) -> Ledger:
    return Ledger(cast("Store", store), cast("Vault", vault))
