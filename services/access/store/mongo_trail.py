"""The audit chain and its checkpoints in MongoDB: appended by insert alone, read by indexed equality or range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pymongo

from services.access.domain.checkpoints import Checkpoint
from services.access.domain.trail import Block
from services.chassis import records

WALK = 100  # blocks read at once
CHECKPOINTS_AT_ONCE = 1000
UNKNOWN = datetime.min.replace(tzinfo=UTC)


def ensure_indexes() -> None:
    """Create the indexes; idempotent. `_id` is the sequence too: it keeps blocks apart, but no range is read by it."""
    blocks = _blocks()
    blocks.create_index("batch_id", unique=True)
    blocks.create_index("sequence", unique=True)
    blocks.create_index([("terms", 1), ("at", 1)])
    _checkpoints().create_index("number", unique=True)
    _checkpoints().create_index("sequence")


def _blocks() -> pymongo.collection.Collection[dict[str, Any]]:
    return records.database("access")["audit_chain"]


def _checkpoints() -> pymongo.collection.Collection[dict[str, Any]]:
    return records.database("access")["audit_checkpoints"]


class MongoBlocks:
    """The audit chain: one document per block."""

    def append(self, block: Block) -> None:
        """Add a block."""
        row = {name: getattr(block, name) for name in block.__dataclass_fields__}
        with records.driver_errors():
            _blocks().insert_one({"_id": block.sequence, **row, "terms": list(block.terms)})

    def by_batch(self, batch_id: str) -> Block | None:
        """Return the block of a batch."""
        return self._first({"batch_id": str(batch_id)})

    def get(self, sequence: int) -> Block | None:
        """Return one by sequence."""
        return self._first({"sequence": int(sequence)})

    def ascending(self, first: int) -> Iterator[Block]:
        """Walk all blocks in order, some at a time; a hole wider than one reading ends the walk early.

        What is appended meanwhile is walked too: the next reading begins behind the last block of the one before.
        """
        while rows := self._between(first, first + WALK):
            yield from rows
            first = max(rows[-1].sequence, first) + 1

    def descending(self, last: int, limit: int) -> list[Block]:
        """Return blocks downwards."""
        return self._between(last - limit + 1, last + 1)[::-1]

    def found(self, term: str, since: datetime, until: datetime, limit: int) -> list[tuple[datetime, int]]:
        """Return what blocks have a term."""
        where = {"terms": str(term), "at": {"$gte": since, "$lt": until}}
        with records.driver_errors():
            rows = list(_blocks().find(where, {"at": 1, "sequence": 1}).sort("at", -1).limit(limit))
        return sorted(((row["at"], row["sequence"]) for row in rows), reverse=True)

    def remove(self, last: int) -> None:
        """Remove the oldest blocks."""
        with records.driver_errors():
            _blocks().delete_many({"sequence": {"$lte": int(last)}})

    def _between(self, low: int, high: int) -> list[Block]:
        with records.driver_errors():
            rows = list(_blocks().find({"sequence": {"$gte": int(low), "$lt": int(high)}}))
        return sorted((_block(row) for row in rows), key=lambda block: block.sequence)

    def _first(self, where: Mapping[str, str | int]) -> Block | None:
        with records.driver_errors():
            row = next(iter(_blocks().find(where).limit(1)), None)
        return _block(row) if row else None


def _block(row: Mapping[str, Any]) -> Block:
    """Return the block of a document; what somebody made of another type shows as a changed block."""
    content, at = row.get("content"), row.get("at")
    return Block(
        sequence=row["sequence"] if isinstance(row.get("sequence"), int) else 0,
        batch_id=str(row.get("batch_id", "")),
        content=content if isinstance(content, bytes) else b"",
        terms=tuple(map(str, row.get("terms") or ())),
        at=at if isinstance(at, datetime) else UNKNOWN,
        previous=str(row.get("previous", "")),
        hash=str(row.get("hash", "")),
        signature=str(row.get("signature", "")),
    )


class MongoCheckpoints:
    """Checkpoints: one document each."""

    def append(self, checkpoint: Checkpoint) -> None:
        """Add one."""
        with records.driver_errors():
            _checkpoints().insert_one({"_id": checkpoint.number, **asdict(checkpoint)})

    def get(self, number: int) -> Checkpoint | None:
        """Return one."""
        with records.driver_errors():
            row = next(iter(_checkpoints().find({"number": int(number)}).limit(1)), None)
        return Checkpoint.found(row, number) if row else None

    def last(self) -> Checkpoint | None:
        """Return the last, found by doubling and halving: a sorted read is slow on the embedded database."""
        low, step = 0, 1
        while self.get(low + step) is not None:
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if self.get(low + step) is not None:
                low += step
        return self.get(low) if low else None

    def covering(self, first: int, last: int) -> list[Checkpoint]:
        """Return those of some blocks."""
        with records.driver_errors():
            rows = list(_checkpoints().find({"sequence": {"$gte": first, "$lte": last}}))
        return [Checkpoint.found(row, int(row["number"])) for row in sorted(rows, key=lambda row: int(row["number"]))]

    def ascending(self, first: int) -> Iterator[Checkpoint]:
        """Walk them; a hole wider than one reading ends the walk early."""
        while True:
            with records.driver_errors():
                where = {"number": {"$gte": first, "$lt": first + CHECKPOINTS_AT_ONCE}}
                rows = sorted(_checkpoints().find(where), key=lambda row: int(row["number"]))
            yield from (Checkpoint.found(row, int(row["number"])) for row in rows)
            if not rows:
                return
            first += CHECKPOINTS_AT_ONCE
