"""The audit trail: blocks of entries, each bound to the one before by a signed hash, and what they are found by.

One chain holds the blocks of all services, so that one signed head covers everything in its order. A block of a spool
carries the numbers of its entries in its batch id: entries of one process that never arrived, or a cut end of the chain
that was written on since, show as a gap in the numbers of that process.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.access.domain.errors import AuditBatchChanged
from services.chassis.audit import SPAN, AuditEntry

GENESIS = "0" * 64
PROFILES = "profiles/"
EVERYTHING = "*"  # the term every block is found by
OF_SPOOL = re.compile(r"([a-z0-9]{32})-([0-9]{16})")
# What a list may ask for, the rarest first: a search reads the blocks of the first one asked for.
SEARCHABLE = (
    "emergency", "request_id", "profile", "target", "subject", "group", "method", "purpose", "status", "action",
    "resource", "service", "department", "outcome",
)  # fmt: skip
LARGEST_BLOCK = 64 * 1024 * 1024  # bytes of a block unpacked: more is none of ours


@dataclass(frozen=True)
class Block:
    """One batch in the chain; `sequence` counts from 1, `content` is its entries as packed lines of JSON."""

    sequence: int
    batch_id: str
    content: bytes
    terms: tuple[str, ...]
    at: datetime
    previous: str
    hash: str
    signature: str

    @cached_property
    def entries(self) -> tuple[AuditEntry, ...]:
        """Return the entries; none when somebody made the content unreadable, which verification tells."""
        try:
            return tuple(AuditEntry.read(line) for line in unpacked(self.content).splitlines())
        except (ValueError, TypeError, zlib.error):
            return ()


@dataclass(frozen=True, slots=True)
class Base:
    """Where a chain begins: the last block that was pruned, and how far each spool was by then."""

    sequence: int = 0
    hash: str = GENESIS
    spools: tuple[tuple[str, int], ...] = ()  # spool id, number of its next entry


@dataclass(frozen=True, slots=True)
class Finding:
    """What a verification saw; `first_bad` is 0 when everything fits, else the block where it does not."""

    blocks: int
    entries: int
    first_bad: int
    fault: str
    head: str


def unpacked(content: bytes) -> bytes:
    """Return the lines of a block.

    Raises:
        ValueError, zlib.error: it is no content of ours.
    """
    reader = zlib.decompressobj()
    lines = reader.decompress(content, LARGEST_BLOCK)
    if not reader.eof or reader.unused_data:
        raise ValueError("more than a block")
    return lines


def block_hash(sequence: int, batch_id: str, lines: bytes, previous: str) -> str:
    """Return the SHA-256 over the canonical header: JSON with sorted keys, no spaces, and the digest of the lines."""
    content = {
        "batch_id": batch_id,
        "entries": hashlib.sha256(lines).hexdigest(),
        "previous": previous,
        "sequence": sequence,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def next_block(head: tuple[int, str], batch_id: str, entries: Sequence[AuditEntry], key: Ed25519PrivateKey) -> Block:
    """Return the block that follows `head`, a sequence and its hash; (0, GENESIS) before the first."""
    sequence, previous = head[0] + 1, head[1]
    lines = b"\n".join(entry.line() for entry in entries)
    digest = block_hash(sequence, batch_id, lines, previous)
    signature = key.sign(digest.encode()).hex()
    content, terms, at = zlib.compress(lines, 1), terms_of(entries), at_of(entries)
    return Block(sequence, batch_id, content, terms, at, previous, digest, signature)


def same_batch(block: Block, entries: Sequence[AuditEntry]) -> Block:
    """Return the block that holds this batch already.

    Raises:
        AuditBatchChanged: the batch came with other entries than the first time.
    """
    if block.entries != tuple(entries):
        raise AuditBatchChanged("This batch was written with other entries.", metadata={"batch_id": block.batch_id})
    return block


def values_of(entry: AuditEntry) -> dict[str, tuple[str, ...]]:
    """Return what an entry is found by, by the names of SEARCHABLE."""
    single = {name: (value,) for name in SEARCHABLE if (value := getattr(entry, name, ""))}
    return {
        **single,
        "profile": entry.profiles,
        "group": (*entry.shown, *entry.masked),
        "entry_id": (entry.entry_id,),
    }


def terms_of(entries: Iterable[AuditEntry]) -> tuple[str, ...]:
    """Return the terms of a block, sorted: `subject:user:ann`, `profile:…`; and the one every block has."""
    found: dict[str, set[str]] = {name: set() for name in SEARCHABLE}
    for entry in entries:
        for name, values in values_of(entry).items():
            if name == "target":
                _add_target(found, values[0])
            elif name != "entry_id":
                found[name].update(values)
    return (EVERYTHING, *sorted(f"{name}:{value}" for name, values in found.items() for value in values))


def _add_target(found: dict[str, set[str]], target: str) -> None:
    """Index what an entry is about; a customer under their id only, which most entries name anyway."""
    profile = _profile_of(target)
    found["profile" if profile else "target"].add(profile or target)


def _profile_of(target: str) -> str:
    return target.removeprefix(PROFILES).partition("/")[0] if target.startswith(PROFILES) else ""


def rarest_term(wanted: dict[str, str]) -> str:
    """Return the term by which the fewest blocks must be read."""
    name = next((name for name in SEARCHABLE if name in wanted), "")
    profile = _profile_of(wanted[name]) if name == "target" else ""
    return f"profile:{profile}" if profile else f"{name}:{wanted[name]}" if name else EVERYTHING


def matches(entry: AuditEntry, wanted: dict[str, str]) -> bool:
    """Tell whether an entry is one of those asked for."""
    values = values_of(entry)
    return all(value in values.get(name, ()) for name, value in wanted.items())


def at_of(entries: Iterable[AuditEntry]) -> datetime:
    """Return the time of the latest entry, to the millisecond; a block spans `SPAN` at most."""
    times = (datetime.fromisoformat(entry.time) for entry in entries)
    latest = max(times, default=datetime(1970, 1, 1, tzinfo=UTC)).astimezone(UTC)
    return latest.replace(microsecond=latest.microsecond // 1000 * 1000)


def time_of(entry: AuditEntry) -> datetime:
    """Return the time of an entry."""
    return datetime.fromisoformat(entry.time).astimezone(UTC)


def reach_of(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Return between which times of blocks the entries of a period are, the end excluded."""
    return since - timedelta(milliseconds=1), until + timedelta(seconds=SPAN)


class Walk:
    """A verification block by block: give it each block in order; `fault` says what is wrong with the last one."""

    def __init__(self, key: Ed25519PublicKey, base: Base = Base(), heads: dict[int, str] | None = None) -> None:  # noqa: B008
        """`heads` are the hashes that checkpoints signed, by the sequence of the block."""
        self._key, self._heads = key, heads or {}
        self.spools = dict(base.spools)
        self._base = base.sequence
        self.last, self.head, self.entries, self.fault = base.sequence, base.hash, 0, ""

    def take(self, block: Block) -> bool:
        """Take the next block; False when it does not fit, and everything stays as it was before it."""
        self.fault = self._fault(block)
        if self.fault:
            return False
        self.last, self.head, self.entries = block.sequence, block.hash, self.entries + len(block.entries)
        spool = OF_SPOOL.fullmatch(block.batch_id)
        if spool:
            self.spools[spool[1]] = int(spool[2]) + len(block.entries)
        return True

    def finish(self, written: int) -> Finding:
        """Return what was found; `written` is the last block known to have been written."""
        blocks = self.last - self._base
        if not self.fault and self.last < written:
            self.fault = "blocks are missing at the end"
        return Finding(blocks, self.entries, self.last + 1 if self.fault else 0, self.fault, self.head)

    def _fault(self, block: Block) -> str:
        if block.sequence != self.last + 1:
            return "a block is missing"
        if block.previous != self.head:
            return "it does not follow the block before"
        try:
            lines = unpacked(block.content)
        except (ValueError, zlib.error):
            return "its content was changed"
        if block.hash != block_hash(block.sequence, block.batch_id, lines, block.previous):
            return "its content was changed"
        try:
            self._key.verify(bytes.fromhex(block.signature), block.hash.encode())
        except (InvalidSignature, ValueError):
            return "its signature is not ours"
        if self._heads.get(block.sequence, block.hash) != block.hash:
            return "a checkpoint signed another block here"
        if block.terms != terms_of(block.entries) or block.at != at_of(block.entries):
            return "what it is found by was changed"
        return self._gap(block)

    def _gap(self, block: Block) -> str:
        """Name the entries of a spool that never came; after a prune a spool nobody remembers may begin anywhere."""
        spool = OF_SPOOL.fullmatch(block.batch_id)
        if not spool:
            return ""
        first = int(spool[2])
        expected = self.spools.get(spool[1], first if self._base else 0)
        service = block.entries[0].service if block.entries else "a service"
        return (
            "" if expected == first else f"entries {expected} to {first - 1} of {service} are missing: spool {spool[1]}"
        )


def verify(
    blocks: Iterable[Block],
    key: Ed25519PublicKey,
    written: int,
    base: Base = Base(),  # noqa: B008
    heads: dict[int, str] | None = None,
) -> Finding:
    """Walk the blocks in order and return the first that does not fit.

    `written` is the last sequence known to have been written: fewer blocks mean the end was cut off.
    """
    walk = Walk(key, base, heads)
    for block in blocks:
        if not walk.take(block):
            break
    return walk.finish(written)
