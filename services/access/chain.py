"""The audit chain of the installation: append, checkpoint, verify, prune; whoever else does so at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.access.anchors import Anchor
from services.access.domain.checkpoints import Checkpoint, fault_of, next_checkpoint
from services.access.domain.trail import GENESIS, Base, Block, Finding, Walk, next_block, same_batch
from services.access.store.ports import Blocks, Checkpoints
from services.chassis.audit import AuditEntry
from services.chassis.errors import AlreadyExists, NotAllowed

SILENT = timedelta(days=30)  # a spool that wrote nothing for so long before a prune is forgotten with it


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification of chain and checkpoints saw; `bad_checkpoint` is 0 when all of them fit."""

    blocks: Finding
    checkpoint: Checkpoint | None
    bad_checkpoint: int
    fault: str

    @property
    def is_intact(self) -> bool:
        """Tell whether everything fits."""
        return not self.blocks.first_bad and not self.bad_checkpoint


BLOCKS_READ = 50_000
BLOCKS_AT_ONCE = 200


class Chain:
    """The audit chain, its checkpoints, and the key of each."""

    def __init__(
        self,
        blocks: Blocks,
        key: Ed25519PrivateKey,
        checkpoints: Checkpoints,
        checkpoint_key: Ed25519PrivateKey,
        anchor: Anchor | None = None,
    ) -> None:
        self.blocks, self.checkpoints = blocks, checkpoints
        self._key, self._checkpoint_key, self._anchor = key, checkpoint_key, anchor
        self._lock = threading.Lock()
        self._head: tuple[int, str] = (0, GENESIS)

    @property
    def public_keys(self) -> tuple[bytes, bytes]:
        """Return the public keys of blocks and of checkpoints, 32 bytes each."""
        return (
            self._key.public_key().public_bytes_raw(),
            self._checkpoint_key.public_key().public_bytes_raw(),
        )

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

    def checkpoint(self, now: datetime, base: Base | None = None) -> Checkpoint | None:
        """Sign where the chain is, and keep that outside the database too; None when another process was first.

        Raises:
            OSError: it is signed, but could not be written where anchors are kept; the next one is written with it.
        """
        last = self.checkpoints.last()
        with self._lock:
            self._head = head = self._newest()
        made = next_checkpoint(last, head, base or (last.base if last else Base()), now, self._checkpoint_key)
        try:
            self.checkpoints.append(made)
        except AlreadyExists:
            return None
        if self._anchor is not None:
            held = self._anchor.newest()
            for number in range(held.number + 1 if held else 1, made.number + 1):
                found = self.checkpoints.get(number)
                if found is not None:
                    self._anchor.keep(found)
        return made

    def verify(self, since: int = 0) -> Verdict:
        """Walk the chain, all of it or from a checkpoint on; cut ends are told by checkpoints, anchors and memory."""
        checkpoints = list(self.checkpoints.ascending(1))
        anchored = self._anchor.copies() if self._anchor else ()
        bad, fault = fault_of(checkpoints, self._checkpoint_key.public_key(), anchored)
        last = checkpoints[-1] if checkpoints else None
        start = next((c for c in checkpoints if c.number == since), None)
        base = last.base if last else Base()
        if start and start.sequence > base.sequence:  # what is older was removed by retention
            base = Base(start.sequence, start.head)
        written = max([self._head[0], *(c.sequence for c in (*checkpoints, *anchored))])  # by now; more may come
        heads = {checkpoint.sequence: checkpoint.head for checkpoint in checkpoints}
        walk = Walk(self._key.public_key(), base, heads)
        for block in self.blocks.ascending(base.sequence + 1):
            if not walk.take(block):
                break
        return Verdict(walk.finish(written), last, bad, fault)

    def prune(self, before: datetime, now: datetime) -> int:
        """Remove the blocks whose entries are all older than `before`, behind a signed checkpoint; return how many.

        Raises:
            NotAllowed: what would be removed does not verify: find out why first.
        """
        last = self.checkpoints.last()
        if last is None:
            return 0
        walk, heard = Walk(self._key.public_key(), last.base), dict[str, datetime]()
        for block in self.blocks.ascending(last.base.sequence + 1):
            if block.at >= before or block.sequence > last.sequence:
                break
            if not walk.take(block):
                raise NotAllowed(f"block {block.sequence} does not verify ({walk.fault}): nothing was removed")
            heard[block.batch_id.rpartition("-")[0]] = block.at
        if walk.last == last.base.sequence:
            self.blocks.remove(walk.last)  # what a prune that was killed left behind
            return 0
        former = {spool for spool, _ in last.base.spools}
        spools = tuple(
            (spool, number)
            for spool, number in sorted(walk.spools.items())
            if heard.get(spool, before if spool in former else before - SILENT) > before - SILENT
        )
        base = Base(walk.last, walk.head, spools)
        if self.checkpoint(now, base) is None:
            return 0
        self.blocks.remove(walk.last)
        return walk.last - last.base.sequence

    def _newest(self) -> tuple[int, str]:
        """Find the end by doubling and halving: a sorted read of all is slow on the embedded database."""
        if not self._head[0] and (last := self.checkpoints.last()):
            self._head = (last.sequence, last.head)
        low, step = self._head[0], 1
        while self.blocks.get(low + step) is not None:
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if self.blocks.get(low + step) is not None:
                low += step
        newest: Block | None = self.blocks.get(low) if low else None
        return (newest.sequence, newest.hash) if newest else (low, GENESIS if low == 0 else self._head[1])


def newest_blocks(chain: Chain, head: int) -> Iterator[Block]:
    """Yield blocks from `head` downwards, 50,000 at most, however few entries they hold."""
    for top in range(head, max(head - BLOCKS_READ, 0), -BLOCKS_AT_ONCE):
        yield from chain.blocks.descending(top, min(BLOCKS_AT_ONCE, top))
