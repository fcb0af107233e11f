"""Find entries of the trail: the blocks that have the rarest term asked for, newest first, and in them what matches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from services.access.domain.trail import Block, matches, rarest_term, reach_of, time_of, unpacked
from services.access.store.ports import Blocks
from services.chassis.audit import AuditEntry

BLOCKS_READ = 200  # per page: one that finds little is short, not slow
HITS_AT_ONCE = 500
FIRST_WINDOW, GROWTH, FEW = timedelta(hours=1), 4, 20
ALL = 1 << 31  # entries of a block: none has so many
TICK = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: values by the names of SEARCHABLE, and a period, its end excluded."""

    values: dict[str, str]
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """Where a search stands: in the block of this time and sequence, below the entry of this index."""

    at: datetime
    sequence: int
    index: int


@dataclass(frozen=True, slots=True)
class Found:
    """An entry and its place in the chain."""

    sequence: int
    index: int
    entry: AuditEntry


def search(blocks: Blocks, wanted: Wanted, start: Position | None, size: int) -> tuple[list[Found], Position | None]:
    """Return up to `size` entries, the newest blocks first, and where to go on; None at the end."""
    found: list[Found] = []
    for read, (at, sequence) in enumerate(_hits(blocks, wanted, start)):
        if read == BLOCKS_READ:
            return found, Position(at, sequence, ALL)
        below = start.index if start and sequence == start.sequence else ALL
        block = blocks.get(sequence)
        for index, entry in _matching(block, wanted) if block else ():
            if index >= below:
                continue
            if len(found) == size:
                return found, Position(at, sequence, index + 1)
            found.append(Found(sequence, index, entry))
    return found, None


def _hits(blocks: Blocks, wanted: Wanted, start: Position | None) -> Iterator[tuple[datetime, int]]:
    """Yield time and sequence of the blocks to read, in windows that grow while little is found."""
    since, until = reach_of(wanted.since, wanted.until)
    term, width = rarest_term(wanted.values), FIRST_WINDOW
    last = (start.at, start.sequence + 1) if start else None
    high = min(until, start.at + TICK) if start and start.at < until else until
    while high > since:
        low = max(since, high - width)
        hits = blocks.found(term, low, high, HITS_AT_ONCE)
        for hit in hits:
            if last is None or hit < last:
                last = hit
                yield hit
        if len(hits) < HITS_AT_ONCE:
            high, width = low, width * GROWTH if len(hits) < FEW else width
        else:  # as many again may share the last one's millisecond
            high = hits[-1][0] + TICK if hits[-1][0] + TICK < high else hits[-1][0]


def _matching(block: Block, wanted: Wanted) -> Iterator[tuple[int, AuditEntry]]:
    """Yield the matching entries of a block, the last first; lines without the values are not read."""
    marks = [orjson.dumps(value)[1:-1] for value in wanted.values.values()]
    try:
        lines = unpacked(block.content).splitlines()
    except (ValueError, zlib.error):
        return  # a changed block: verification tells
    for index in range(len(lines) - 1, -1, -1):
        if all(mark in lines[index] for mark in marks):
            try:
                entry = AuditEntry.read(lines[index])
            except (ValueError, TypeError):
                continue
            if matches(entry, wanted.values) and wanted.since <= time_of(entry) < wanted.until:
                yield index, entry
