"""Append to the audit chain: one insert per batch, whoever else appends at the same time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.access.domain.trail import GENESIS, Block, Finding, next_block, same_batch, verify
from services.access.store.ports import Blocks
from services.chassis.audit import AuditEntry
from services.chassis.errors import AlreadyExists


class Chain:
    """The audit chain of the installation."""

    def __init__(self, blocks: Blocks, key: Ed25519PrivateKey) -> None:
        self.blocks = blocks
        self._key = key
        self._lock = threading.Lock()
        self._head: tuple[int, str] = (0, GENESIS)

    def append(self, batch_id: str, entries: Sequence[AuditEntry]) -> int:
        """Write a batch, or find it written before; return the sequence of its block.

        Raises:
            AuditBatchChanged: it was written before with other entries.
        """
        with self._lock:
            while True:
                known = self.blocks.by_batch(batch_id)
                if known is not None:
                    return same_batch(known, entries).sequence
                block = next_block(self._head, batch_id, entries, self._key)
                try:
                    self.blocks.append(block)
                except AlreadyExists:  # another process was first with this sequence or this batch
                    self._head = self._newest()
                    continue
                self._head = (block.sequence, block.hash)
                return block.sequence

    def head(self) -> int:
        """Return the sequence of the newest block."""
        with self._lock:
            self._head = self._newest()
            return self._head[0]

    def verify(self) -> Finding:
        """Walk the whole chain; a block this process has seen and finds no more is a fault too."""
        return verify(self.blocks.ascending(1), self._key.public_key(), self._head[0])

    def _newest(self) -> tuple[int, str]:
        """Find the end by doubling and halving: a sorted read of all is slow on the embedded database."""
        low, step = self._head[0], 1
        while self.blocks.get(low + step) is not None:
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if self.blocks.get(low + step) is not None:
                low += step
        newest: Block | None = self.blocks.get(low) if low else None
        return (newest.sequence, newest.hash) if newest else (low, GENESIS if low == 0 else self._head[1])
