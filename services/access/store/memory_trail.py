"""The audit chain and its checkpoints in memory; same promises as MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

from services.access.domain.checkpoints import Checkpoint
from services.access.domain.trail import Block
from services.chassis.errors import AlreadyExists

TAKEN = "a record with this name or key exists already"


class MemoryBlocks:
    """The chain in a dict."""

    def __init__(self) -> None:
        self._rows: dict[int, Block] = {}
        self._batches: dict[str, Block] = {}
        self._lock = threading.Lock()

    def append(self, block: Block) -> None:
        """Add a block."""
        with self._lock:
            if block.sequence in self._rows or block.batch_id in self._batches:
                raise AlreadyExists(TAKEN)
            self._rows[block.sequence] = self._batches[block.batch_id] = block

    def by_batch(self, batch_id: str) -> Block | None:
        """Return the block of a batch."""
        return self._batches.get(batch_id)

    def get(self, sequence: int) -> Block | None:
        """Return one by sequence."""
        return self._rows.get(sequence)

    def ascending(self, first: int) -> Iterator[Block]:
        """Walk all blocks in order."""
        yield from (self._rows[sequence] for sequence in sorted(self._rows) if sequence >= first)

    def descending(self, last: int, limit: int) -> list[Block]:
        """Return blocks downwards."""
        return [self._rows[sequence] for sequence in range(last, last - limit, -1) if sequence in self._rows]

    def found(self, term: str, since: datetime, until: datetime, limit: int) -> list[tuple[datetime, int]]:
        """Return what blocks have a term."""
        rows = list(self._rows.values())
        hits = [(b.at, b.sequence) for b in rows if since <= b.at < until and term in b.terms]
        return sorted(hits, reverse=True)[:limit]

    def remove(self, last: int) -> None:
        """Remove the oldest blocks."""
        with self._lock:
            for sequence in [sequence for sequence in self._rows if sequence <= last]:
                del self._batches[self._rows.pop(sequence).batch_id]


class MemoryCheckpoints:
    """Checkpoints in a dict."""

    def __init__(self) -> None:
        self._rows: dict[int, Checkpoint] = {}
        self._lock = threading.Lock()

    def append(self, checkpoint: Checkpoint) -> None:
        """Add one."""
        with self._lock:
            if checkpoint.number in self._rows:
                raise AlreadyExists(TAKEN)
            self._rows[checkpoint.number] = checkpoint

    def get(self, number: int) -> Checkpoint | None:
        """Return one."""
        return self._rows.get(number)

    def last(self) -> Checkpoint | None:
        """Return the last."""
        return self._rows.get(max(self._rows, default=0))

    def covering(self, first: int, last: int) -> list[Checkpoint]:
        """Return those of some blocks."""
        found = (self._rows[number] for number in sorted(self._rows))
        return [checkpoint for checkpoint in found if first <= checkpoint.sequence <= last]

    def ascending(self, first: int) -> Iterator[Checkpoint]:
        """Walk them in order."""
        yield from (self._rows[number] for number in sorted(self._rows) if number >= first)
