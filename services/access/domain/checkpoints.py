"""Signed checkpoints: every hour the head of the chain, signed with a key of its own and kept outside the database too.

Whoever holds the database and even the key of the blocks cannot change, cut off or replace what a checkpoint covers
without the checkpoint's key, and cannot take back a checkpoint that was anchored elsewhere (RFC 9162 calls the like a
signed tree head).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.access.domain.trail import GENESIS, Base


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The chain at a time: its last block and its base; `number` counts from 1, `previous` is the one before's hash."""

    number: int
    time: str
    sequence: int
    head: str
    base: Base
    previous: str
    hash: str = ""
    signature: str = ""

    def document(self) -> dict[str, object]:
        """Return it as plain values, as anchors and exports keep it."""
        return asdict(self)

    @classmethod
    def of(cls, raw: dict[str, object]) -> Checkpoint:
        """Return the checkpoint of a document.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        values = {name: raw[name] for name in cls.__slots__}
        base = values.pop("base")
        if not isinstance(base, dict):
            raise TypeError("the base is no object")
        spools = tuple((str(spool), int(number)) for spool, number in base["spools"])
        return cls(base=Base(int(base["sequence"]), str(base["hash"]), spools), **values)  # type: ignore[arg-type]

    @classmethod
    def found(cls, raw: object, number: int) -> Checkpoint:
        """Return the checkpoint of a document that somebody may have changed: unreadable, it is one nobody signed."""
        try:
            return cls.of(raw)  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError):
            return cls(number, "", 0, "", Base(), "")


def _digest(checkpoint: Checkpoint) -> str:
    content = asdict(checkpoint)
    del content["hash"], content["signature"]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def next_checkpoint(
    last: Checkpoint | None, head: tuple[int, str], base: Base, now: datetime, key: Ed25519PrivateKey
) -> Checkpoint:
    """Return the signed checkpoint that follows `last`."""
    number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
    time = now.astimezone(UTC).isoformat(timespec="seconds")
    bare = Checkpoint(number, time, head[0], head[1], base, previous)
    digest = _digest(bare)
    return Checkpoint(number, time, head[0], head[1], base, previous, digest, key.sign(digest.encode()).hex())


def is_ours(checkpoint: Checkpoint, key: Ed25519PublicKey) -> bool:
    """Tell whether a checkpoint is as it was signed."""
    try:
        key.verify(bytes.fromhex(checkpoint.signature), checkpoint.hash.encode())
    except (InvalidSignature, ValueError):
        return False
    return checkpoint.hash == _digest(checkpoint)


def fault_of(
    checkpoints: Sequence[Checkpoint], key: Ed25519PublicKey, anchored: Sequence[Checkpoint] = ()
) -> tuple[int, str]:
    """Return the number of the first checkpoint that does not fit and what is wrong; (0, "") when all do.

    `checkpoints` are those kept, in order, the first of them any; `anchored` are copies from outside the database.
    """
    known = {checkpoint.number: checkpoint for checkpoint in checkpoints}
    before: Checkpoint | None = None
    for checkpoint in checkpoints:
        if before is not None and checkpoint.number != before.number + 1:
            return before.number + 1, "a checkpoint is missing"
        if not is_ours(checkpoint, key):
            return checkpoint.number, "the checkpoint's signature is not ours"
        if before is not None and checkpoint.previous != before.hash:
            return checkpoint.number, "the checkpoint does not follow the one before"
        if before is not None and checkpoint.sequence < before.sequence:
            return checkpoint.number, "the checkpoint covers less than the one before"
        before = checkpoint
    first = checkpoints[0].number if checkpoints else 1
    for anchor in anchored:
        if not is_ours(anchor, key):
            return anchor.number, "the anchored checkpoint's signature is not ours"
        if anchor.number >= first and known.get(anchor.number) != anchor:
            return anchor.number, "a checkpoint anchored outside is missing or another one in the database"
    return 0, ""
