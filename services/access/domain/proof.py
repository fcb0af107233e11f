"""The trail as a file that proves itself: blocks, checkpoints and public keys, verified with no server.

One JSON document a line: first the keys, then blocks in order and checkpoints among them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.access.domain.checkpoints import Checkpoint, fault_of
from services.access.domain.trail import Base, Block, Walk, at_of, terms_of, unpacked
from services.chassis.audit import AuditEntry

FORMAT = "kehu-audit-1"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a file proves: its blocks, up to which of them a checkpoint signed, and the fault found, if any."""

    first_block: int = 0
    last_block: int = 0
    entries: int = 0
    covered_to: int = 0
    covered_at: str = ""
    checkpoint_key: str = ""
    fault: str = ""


class NoProof(ValueError):
    """The file is none of ours."""


def header(block_key: str, checkpoint_key: str) -> bytes:
    """Return the first line of a file; keys are hexadecimal."""
    return orjson.dumps({"format": FORMAT, "block_key": block_key, "checkpoint_key": checkpoint_key})


def lines_of(block: Block) -> str:
    """Return the entries of a block as they were hashed."""
    return unpacked(block.content).decode()


def block_line(raw: dict[str, object]) -> bytes:
    """Return the line of a block: sequence, batch_id, lines, previous, hash, signature."""
    return orjson.dumps({"block": raw})


def checkpoint_line(document: str) -> bytes:
    """Return the line of a checkpoint, given as its JSON document."""
    return orjson.dumps({"checkpoint": orjson.loads(document)})


def prove(lines: Iterable[bytes]) -> Proof:
    """Verify a file; the first thing that does not fit is its fault.

    Raises:
        NoProof: it is not such a file.
    """
    found = _documents(lines)
    head = next(found, None)
    try:
        if head is None or head.get("format") != FORMAT:
            raise NoProof(f"the file does not begin with the format {FORMAT}")
        block_key, checkpoint_key = (_key(head[name]) for name in ("block_key", "checkpoint_key"))
    except (KeyError, ValueError) as error:
        raise error if isinstance(error, NoProof) else NoProof("the file names no public keys") from None
    walk: Walk | None = None
    first, checkpoints = 0, list[Checkpoint]()
    heads: dict[int, str] = {}
    for document in found:
        if "checkpoint" in document:
            checkpoints.append(Checkpoint.found(document["checkpoint"], len(checkpoints) + 1))
            heads[checkpoints[-1].sequence] = checkpoints[-1].head
            continue
        block = _block(document.get("block"))
        if walk is None:
            walk, first = Walk(block_key, Base(block.sequence - 1, block.previous), heads), block.sequence
        if not walk.fault:
            walk.take(block)
    return _proof(walk, first, checkpoints, heads, checkpoint_key, str(head["checkpoint_key"]))


def _key(text: object) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(str(text)))


def _proof(
    walk: Walk | None,
    first: int,
    checkpoints: list[Checkpoint],
    heads: dict[int, str],
    key: Ed25519PublicKey,
    key_text: str,
) -> Proof:
    if walk is None:
        return Proof(checkpoint_key=key_text, fault="there is no block in it")
    number, fault = fault_of(checkpoints, key)
    covering = [c for c in checkpoints if first <= c.sequence <= walk.last]
    text = f"block {walk.last + 1}: {walk.fault}" if walk.fault else f"checkpoint {number}: {fault}" if fault else ""
    last = covering[-1] if covering else None
    if not text and last is not None and last.sequence == walk.last and last.head != walk.head:
        text = f"block {walk.last}: a checkpoint signed another block here"
    later = [c for c in checkpoints if c.sequence > walk.last]
    if not text and later:
        text = f"block {walk.last + 1}: blocks are missing at the end"
    covered, at = (last.sequence, last.time) if last else (0, "")
    return Proof(first, walk.last, walk.entries, covered, at, key_text, text)


def _documents(lines: Iterable[bytes]) -> Iterator[dict[str, object]]:
    for number, line in enumerate(lines, 1):
        try:
            document = orjson.loads(line)
        except ValueError:
            raise NoProof(f"line {number} is no JSON") from None
        if not isinstance(document, dict):
            raise NoProof(f"line {number} is no JSON object")
        yield document


def _block(raw: object) -> Block:
    """Return a block of a file; what it is found by is not in the file and so is as it must be."""
    if not isinstance(raw, dict):
        raise NoProof("a line is neither block nor checkpoint")
    try:
        lines = str(raw["lines"]).encode()
        entries = [AuditEntry.read(line) for line in lines.splitlines()]
        terms, at = terms_of(entries), at_of(entries)
    except (KeyError, ValueError, TypeError):
        lines, terms, at = b"", terms_of(()), at_of(())
    texts = {name: str(raw.get(name, "")) for name in ("batch_id", "previous", "hash", "signature")}
    sequence = str(raw.get("sequence", ""))
    content = zlib.compress(lines)
    return Block(int(sequence) if sequence.isdecimal() else 0, content=content, terms=terms, at=at, **texts)
