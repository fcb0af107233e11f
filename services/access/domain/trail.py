"""The audit trail: blocks of entries, each bound to the one before by a signed hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.access.domain.errors import AuditBatchChanged
from services.chassis.audit import AuditEntry

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Block:
    """One batch in the chain; `sequence` counts from 1."""

    sequence: int
    batch_id: str
    entries: tuple[AuditEntry, ...]
    previous: str
    hash: str
    signature: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a verification saw; `first_bad` is 0 when everything fits."""

    blocks: int
    entries: int
    first_bad: int
    fault: str
    head: str


def block_hash(sequence: int, batch_id: str, entries: Sequence[AuditEntry], previous: str) -> str:
    """Return the SHA-256 over the canonical bytes: JSON with sorted keys, no spaces."""
    content = {
        "batch_id": batch_id,
        "entries": [asdict(entry) for entry in entries],
        "previous": previous,
        "sequence": sequence,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def next_block(head: tuple[int, str], batch_id: str, entries: Sequence[AuditEntry], key: Ed25519PrivateKey) -> Block:
    """Return the block that follows `head`, a sequence and its hash; (0, GENESIS) before the first."""
    sequence, previous = head[0] + 1, head[1]
    digest = block_hash(sequence, batch_id, entries, previous)
    signature = key.sign(digest.encode()).hex()
    return Block(sequence, batch_id, tuple(entries), previous, digest, signature)


def same_batch(block: Block, entries: Sequence[AuditEntry]) -> Block:
    """Return the block that holds this batch already.

    Raises:
        AuditBatchChanged: the batch came with other entries than the first time.
    """
    if block.entries != tuple(entries):
        raise AuditBatchChanged("This batch was written with other entries.", metadata={"batch_id": block.batch_id})
    return block


def verify(blocks: Iterable[Block], key: Ed25519PublicKey, written: int) -> Finding:
    """Walk the blocks in order and return the first that does not fit.

    `written` is the last sequence known to have been written: fewer blocks mean the end was cut off.
    """
    expected, head, entries = 1, GENESIS, 0
    for block in blocks:
        fault = _fault(block, expected, head, key)
        if fault:
            return Finding(expected - 1, entries, expected, fault, head)
        entries += len(block.entries)
        expected, head = expected + 1, block.hash
    if expected <= written:
        return Finding(expected - 1, entries, expected, "blocks are missing at the end", head)
    return Finding(expected - 1, entries, 0, "", head)


def _fault(block: Block, expected: int, head: str, key: Ed25519PublicKey) -> str:
    if block.sequence != expected:
        return "a block is missing"
    if block.previous != head:
        return "it does not follow the block before"
    if block.hash != block_hash(block.sequence, block.batch_id, block.entries, block.previous):
        return "its content was changed"
    try:
        key.verify(bytes.fromhex(block.signature), block.hash.encode())
    except (InvalidSignature, ValueError):
        return "its signature is not ours"
    return ""
