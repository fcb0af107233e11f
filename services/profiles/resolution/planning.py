"""The plan of a full pass: what differs from the stored profiles, found by a process of its own, kept sealed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol
from zlib import crc32

import orjson

from services.profiles.domain.model import MatchModel, model_to_json
from services.profiles.store import Store
from services.profiles.values import Profile, StoredRecord
from services.profiles.vault import Vault

ITEMS_PER_PART = 500
END = "end"


class Engine(Protocol):
    """Resolves pages of profiles."""

    def differences(self, model: MatchModel, pages: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield what differs, then the figures; see resolution.full_pass."""


class ChildEngine:
    """Runs the full pass in a child process: compiled code and millions of records weigh on that, and go with it."""

    def differences(self, model: MatchModel, pages: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield what differs, then the figures.

        Raises:
            RuntimeError: the child ended before it was done; the system may lack memory.
        """
        yield from _talk("full_pass", model_to_json(model).encode(), pages)


def learnt(asked: Mapping[str, Any], pages: Iterable[bytes]) -> dict[str, Any]:
    """Return what a child process learns from pages of profiles; see resolution.learning.

    Raises:
        RuntimeError: the child ended before it was done; the system may lack memory.
    """
    return next(_talk("learning", orjson.dumps(asked), pages))


def _talk(module: str, head: bytes, pages: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Run a module of resolution in a child process: say what is asked, then the pages; yield its answers."""
    argv = [sys.executable, "-m", f"services.profiles.resolution.{module}"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(_framed(head))
            for page in pages:
                child.stdin.write(_framed(page))
            child.stdin.write(_framed(b""))
            child.stdin.flush()
            while True:
                item = orjson.loads(_frame(child.stdout))
                yield item
                if item["kind"] == END:
                    return
        except (BrokenPipeError, EOFError) as error:
            raise RuntimeError(f"the resolving process ended with {child.wait()}") from error
        finally:
            child.kill()


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _frame(stream: Any) -> bytes:
    size = stream.read(4)
    content = stream.read(int.from_bytes(size, "big"))
    if len(size) < 4 or len(content) < int.from_bytes(size, "big"):
        raise EOFError
    return bytes(content)


def mark_of(record: StoredRecord) -> int:
    """Return a number that changes when the record does; the sum over records tells whether any changed."""
    return crc32(f"{record.key}/{record.number}".encode())


def page_of(vault: Vault, store: Store, profiles: Iterable[Profile]) -> bytes:
    """Return profiles with their records opened, as the engine reads them; those that were erased are left out."""
    profiles = list(profiles)
    ciphers = vault.ciphers(store, profiles)
    return orjson.dumps(
        [
            [item.profile_id, [[mark_of(r), orjson.Fragment(vault.open_plain(r, ciphers))] for r in item.records]]
            for item in profiles
            if all(record.key_id in ciphers.by_id for record in item.records)
        ]
    )


class Plan:
    """Parts of a plan in the store, sealed; ids of records may tell of persons."""

    def __init__(self, store: Store, vault: Vault, plan_id: str) -> None:
        self._store = store
        self._vault = vault
        self.plan_id = plan_id

    def write(self, items: Iterable[dict[str, Any]]) -> Iterator[int]:
        """Keep items in parts and yield how many parts there are, after each."""
        waiting: list[dict[str, Any]] = []
        parts = 0
        for item in items:
            waiting.append(self._blind(item))
            if len(waiting) == ITEMS_PER_PART:
                parts = self._keep(parts, waiting)
                yield parts
                waiting = []
        if waiting:
            yield self._keep(parts, waiting)

    def _blind(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with tokens for the phones and e-mails in it: what was opened is not kept."""
        tokens = [self._vault.token(kind, value) for kind, value in item.get("shared", ())]
        return {**item, "shared": tokens} if tokens else item

    def _keep(self, number: int, items: list[dict[str, Any]]) -> int:
        sealed = self._vault.uploads.seal(orjson.dumps(items), self._place(number))
        self._store.add_chunk(self.plan_id, number, sealed)
        return number + 1

    def read(self, parts: int, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the items after the first `after`, each with its number from 1.

        Raises:
            LookupError: a part is gone.
        """
        for number in range(after // ITEMS_PER_PART, parts):
            sealed = self._store.chunk(self.plan_id, number)
            if sealed is None:
                raise LookupError("a part of the plan is gone")
            items = orjson.loads(self._vault.uploads.open(sealed, self._place(number)))
            for at, item in enumerate(items, number * ITEMS_PER_PART + 1):
                if at > after:
                    yield at, item

    def drop(self, parts: int) -> None:
        """Forget it; a part that was written and not counted too."""
        self._store.drop_upload(self.plan_id, parts + 1)

    def _place(self, number: int) -> bytes:
        return f"{self.plan_id}/{number}".encode()
