"""The audit trail: one chain, signed checkpoints, what a verification finds, what a search finds."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from services.access.anchors import FolderAnchor
from services.access.chain import Chain
from services.access.domain.errors import AuditBatchChanged
from services.access.domain.trail import GENESIS, Block, Walk, next_block, same_batch, values_of
from services.access.keeper import EVERY, Keeper
from services.access.keys import checkpoint_key
from services.access.searching import BLOCKS_READ, Found, Wanted, search
from services.access.store import mongo_trail
from services.access.store.memory_trail import MemoryBlocks, MemoryCheckpoints
from services.access.store.mongo_trail import MongoBlocks, MongoCheckpoints
from services.access.store.ports import Blocks, Checkpoints
from services.chassis import records
from services.chassis.audit import AuditEntry
from services.chassis.config import ConfigError
from services.chassis.errors import AlreadyExists, NotAllowed
from tests.access.stores import BOTH, emptied

KEY, SEAL, THIEF = (Ed25519PrivateKey.generate() for _ in range(3))
NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
SPOOL = "5" * 32


@dataclass
class Stores:
    """One implementation."""

    blocks: Blocks
    checkpoints: Checkpoints

    def chain(self, anchor: FolderAnchor | None = None, key: Ed25519PrivateKey = KEY) -> Chain:
        return Chain(self.blocks, key, self.checkpoints, SEAL, anchor)


@pytest.fixture(params=BOTH)
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        yield Stores(MemoryBlocks(), MemoryCheckpoints())
        return
    with emptied(request, "audit_chain", "audit_checkpoints"):
        mongo_trail.ensure_indexes()
        yield Stores(MongoBlocks(), MongoCheckpoints())


def entry(number: int, at: datetime = NOW, **values: Any) -> AuditEntry:
    return AuditEntry.of(now=at, **{"service": "profiles", "subject": "user:ann", "target": str(number), **values})


def filled(stores: Stores, blocks: int, each: int = 3, start: int = 0) -> Chain:
    """Return a chain of blocks as one spool ships them, a minute apart."""
    chain = stores.chain()
    for number in range(start, start + blocks):
        first = number * each
        entries = [entry(first + n, NOW + timedelta(minutes=number)) for n in range(each)]
        chain.append(f"{SPOOL}-{first:016d}", entries)
    return chain


def alter(stores: Stores, sequence: int, **fields: Any) -> None:
    """Change a stored block behind the service's back."""
    if isinstance(stores.blocks, MemoryBlocks):
        stores.blocks._rows[sequence] = replace(stores.blocks._rows[sequence], **fields)
        return
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    records.database("access")["audit_chain"].update_one({"_id": sequence}, {"$set": found})


def remove(stores: Stores, *sequences: int) -> None:
    """Delete stored blocks behind the service's back."""
    for sequence in sequences:
        if isinstance(stores.blocks, MemoryBlocks):
            del stores.blocks._rows[sequence]
        else:
            records.database("access")["audit_chain"].delete_one({"_id": sequence})


def test_a_block_takes_its_place_and_its_batch_once(stores: Stores) -> None:
    first = next_block((0, GENESIS), "a", [entry(0)], KEY)
    stores.blocks.append(first)

    for taken in (next_block((0, GENESIS), "b", [entry(0)], KEY), next_block((1, "x"), "a", [entry(0)], KEY)):
        with pytest.raises(AlreadyExists):
            stores.blocks.append(taken)
    assert stores.blocks.by_batch("a") == stores.blocks.get(1) == first


def test_blocks_are_walked_both_ways_and_removed_from_the_oldest(stores: Stores) -> None:
    filled(stores, 7)

    assert [block.sequence for block in stores.blocks.ascending(3)] == [3, 4, 5, 6, 7]
    assert [block.sequence for block in stores.blocks.descending(5, 3)] == [5, 4, 3]
    stores.blocks.remove(4)
    assert [block.sequence for block in stores.blocks.ascending(1)] == [5, 6, 7]


def test_checkpoints_are_numbered_once_and_the_last_is_found(stores: Stores) -> None:
    chain = filled(stores, 1)
    for hour in range(9):
        chain.checkpoint(NOW + timedelta(hours=hour))
    last = stores.checkpoints.last()

    assert last is not None and last.number == 9
    assert [checkpoint.number for checkpoint in stores.checkpoints.ascending(7)] == [7, 8, 9]
    assert [checkpoint.number for checkpoint in stores.checkpoints.covering(1, 1)] == list(range(1, 10))
    assert stores.checkpoints.covering(2, 9) == stores.checkpoints.covering(1, 0) == []
    with pytest.raises(AlreadyExists):
        stores.checkpoints.append(replace(last, time=""))


def test_many_writers_build_one_chain(stores: Stores) -> None:
    """Two processes of access, several threads each, batches that come twice, checkpoints meanwhile."""
    chains = [stores.chain(), stores.chain()]
    batches = {f"b{n}": [entry(n)] for n in range(24)}

    def write(chain: Chain) -> None:
        for batch_id, entries in batches.items():
            chain.append(batch_id, entries)
            chain.checkpoint(NOW)

    threads = [threading.Thread(target=write, args=(chain,)) for chain in chains for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = chains[0].verify()

    assert (found.blocks.blocks, found.is_intact) == (24, True)
    assert stores.chain().head() == 24


def test_a_batch_that_comes_again_with_other_entries_is_refused(stores: Stores) -> None:
    chain, sent = filled(stores, 2), [entry(9)]
    chain.append("again", sent)

    assert chain.append("again", sent) == 3
    with pytest.raises(AuditBatchChanged):
        chain.append("again", [entry(8)])
    assert same_batch(next_block((0, GENESIS), "a", sent, KEY), sent)


CHANGES = {
    "content": lambda block: {"content": next_block((0, ""), "x", [*block.entries[1:]], KEY).content},
    "no content": lambda block: {"content": b""},
    "cut content": lambda block: {"content": block.content[:-3]},
    "content and more": lambda block: {"content": block.content + b"x"},
    "hash": lambda block: {"hash": "0" * 64},
    "signature": lambda block: {"signature": THIEF.sign(block.hash.encode()).hex()},
    "batch id": lambda block: {"batch_id": f"{SPOOL}-{900:016d}"},
    "previous": lambda block: {"previous": "1" * 64},
    "a term less": lambda block: {"terms": block.terms[:-1]},
    "a term more": lambda block: {"terms": (*block.terms, "zz:forged")},
    "time": lambda block: {"at": block.at - timedelta(days=400)},
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_block_is_found_and_named(stores: Stores, what: str) -> None:
    chain = filled(stores, 5)
    third = stores.blocks.get(3)
    assert third is not None and chain.verify().is_intact
    alter(stores, 3, **CHANGES[what](third))

    assert chain.verify().blocks.first_bad == 3


def test_a_removed_block_is_found_and_named(stores: Stores) -> None:
    chain = filled(stores, 5)
    remove(stores, 3)

    assert (chain.verify().blocks.first_bad, chain.verify().blocks.fault) == (3, "a block is missing")


def test_an_end_cut_off_is_found_by_a_process_that_never_saw_it(stores: Stores) -> None:
    filled(stores, 5).checkpoint(NOW)
    remove(stores, 4, 5)

    found = stores.chain().verify().blocks

    assert (found.first_bad, found.fault) == (4, "blocks are missing at the end")


def test_an_end_cut_off_before_a_checkpoint_is_found_when_its_writer_goes_on(stores: Stores) -> None:
    """Nothing signed covers the last hour yet, but the spool's numbers do not begin anew."""
    filled(stores, 3).checkpoint(NOW)
    filled(stores, 2, start=3)
    remove(stores, 4, 5)
    other = stores.chain()
    assert other.verify().is_intact
    other.append(f"{SPOOL}-{15:016d}", [entry(15)])

    found = other.verify().blocks

    assert (found.first_bad, found.fault) == (4, f"entries 9 to 14 of profiles are missing: spool {SPOOL}")


def test_who_has_the_key_of_the_blocks_cannot_rewrite_what_a_checkpoint_covers(stores: Stores) -> None:
    chain = filled(stores, 5)
    chain.checkpoint(NOW)
    head: tuple[int, str] = (0, GENESIS)
    for block in list(stores.blocks.ascending(1)):
        forged = next_block(head, block.batch_id, [replace(e, subject="user:nobody") for e in block.entries], KEY)
        alter(stores, block.sequence, **{n: getattr(forged, n) for n in Block.__dataclass_fields__ if n != "sequence"})
        head = (forged.sequence, forged.hash)

    found = stores.chain().verify().blocks

    assert (found.first_bad, found.fault) == (5, "a checkpoint signed another block here")


def test_a_database_put_back_to_an_older_state_is_found_by_the_anchors(stores: Stores, tmp_path: Path) -> None:
    anchor = FolderAnchor(tmp_path / "anchors")
    filled(stores, 3)
    stores.chain(anchor).checkpoint(NOW)
    filled(stores, 2, start=3)
    stores.chain(anchor).checkpoint(NOW + EVERY)
    remove(stores, 4, 5)
    if isinstance(stores.checkpoints, MemoryCheckpoints):
        del stores.checkpoints._rows[2]
    else:
        records.database("access")["audit_checkpoints"].delete_one({"_id": 2})

    assert stores.chain().verify().is_intact, "without anchors nothing tells"
    found = stores.chain(anchor).verify()

    assert (found.bad_checkpoint, found.blocks.first_bad) == (2, 4)
    assert found.fault == "a checkpoint anchored outside is missing or another one in the database"


def test_a_process_killed_while_it_writes_an_anchor_leaves_none_that_is_cut(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise Killed

    anchor = FolderAnchor(tmp_path)
    chain = stores.chain(anchor)
    with monkeypatch.context() as patch:
        patch.setattr("services.chassis.durable.os.fdopen", killed)
        with pytest.raises(Killed):
            chain.checkpoint(NOW)
    chain.checkpoint(NOW + EVERY)

    assert [found.number for found in anchor.copies()] == [1, 2]
    assert stores.chain(anchor).verify().is_intact


def test_a_checkpoint_signed_by_another_key_is_found(stores: Stores) -> None:
    chain = filled(stores, 3)
    chain.checkpoint(NOW)
    Chain(stores.blocks, KEY, stores.checkpoints, THIEF).checkpoint(NOW + EVERY)

    assert (chain.verify().bad_checkpoint, chain.verify().fault) == (2, "the checkpoint's signature is not ours")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_whatever_is_done_to_the_stored_blocks_is_found_at_its_place(seed: int, count: int) -> None:
    """Change, removal, reordering, insertion, truncation: of any block, with any key, behind a checkpoint."""
    rnd, stores = random.Random(seed), Stores(MemoryBlocks(), MemoryCheckpoints())
    filled(stores, count, each=rnd.randint(1, 4)).checkpoint(NOW)
    rows: dict[int, Block] = stores.blocks._rows  # type: ignore[attr-defined]
    place = rnd.randint(1, count)
    kind = rnd.choice(["change", "resign", "remove", "swap", "repeat", "cut", "insert"])
    block = rows[place]
    if kind == "change":
        rows[place] = replace(block, **CHANGES[rnd.choice(list(CHANGES))](block))
    elif kind == "resign":
        entries = [replace(item, subject="user:nobody") for item in block.entries]
        rows[place] = next_block((place - 1, block.previous), block.batch_id, entries, rnd.choice([KEY, THIEF]))
    elif kind == "remove":
        del rows[place]
    elif kind == "swap":
        other = rnd.choice([n for n in rows if n != place])
        rows[place], rows[other] = replace(rows[other], sequence=place), replace(block, sequence=other)
        place = min(place, other)
    elif kind == "repeat":
        rows[place] = replace(rows[max(place - 1, 1)], sequence=place) if place > 1 else replace(rows[2], sequence=1)
    elif kind == "cut":
        for sequence in range(place, count + 1):
            del rows[sequence]
    else:
        for sequence in range(count, place - 1, -1):
            rows[sequence + 1] = replace(rows[sequence], sequence=sequence + 1)
        rows[place] = next_block((place - 1, block.previous), "inserted", [entry(0)], KEY)
    found = stores.chain().verify()

    assert not found.is_intact
    # what was written with our key fits itself; what follows it no longer does, or the checkpoint
    assert found.blocks.first_bad in ((place, place + 1) if kind in ("resign", "insert") else (place,))


def test_old_blocks_go_behind_a_checkpoint_and_the_rest_still_verifies(stores: Stores) -> None:
    chain = filled(stores, 8)
    chain.checkpoint(NOW)

    removed = chain.prune(NOW + timedelta(minutes=5), NOW + EVERY)
    found = stores.chain().verify()

    assert removed == 5
    assert [block.sequence for block in stores.blocks.ascending(1)] == [6, 7, 8]
    assert (found.is_intact, found.blocks.blocks) == (True, 3)
    filled(stores, 1, start=8)
    assert stores.chain().verify().is_intact
    assert stores.chain().prune(NOW + timedelta(minutes=5), NOW + EVERY) == 0


def test_nothing_is_removed_that_no_checkpoint_covers_or_that_does_not_verify(stores: Stores) -> None:
    chain = filled(stores, 4)
    assert chain.prune(NOW + timedelta(days=1), NOW) == 0
    chain.checkpoint(NOW)
    filled(stores, 2, start=4)
    alter(stores, 3, hash="0" * 64)

    with pytest.raises(NotAllowed):
        stores.chain().prune(NOW + timedelta(days=1), NOW + EVERY)
    assert len(list(stores.blocks.ascending(1))) == 6


def test_old_blocks_removed_by_somebody_else_are_missed(stores: Stores) -> None:
    chain = filled(stores, 4)
    chain.checkpoint(NOW)
    remove(stores, 1, 2)

    assert chain.verify().blocks.first_bad == 1


def test_a_verification_may_begin_at_a_checkpoint(stores: Stores) -> None:
    filled(stores, 4).checkpoint(NOW)
    chain = filled(stores, 3, start=4)
    alter(stores, 2, hash="0" * 64)

    assert chain.verify(1).blocks.blocks == 3
    assert chain.verify(1).is_intact and not chain.verify().is_intact


def test_a_verification_from_a_checkpoint_before_what_retention_removed_begins_where_the_chain_does(
    stores: Stores,
) -> None:
    filled(stores, 2).checkpoint(NOW)
    chain = filled(stores, 6, start=2)
    chain.checkpoint(NOW + EVERY)
    assert chain.prune(NOW + timedelta(minutes=5), NOW + 2 * EVERY) > 0

    assert stores.chain().verify(1).is_intact and stores.chain().verify().is_intact


def test_what_is_written_while_the_chain_is_verified_is_no_cut(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = filled(stores, 5)
    real, left = Walk.take, [3]

    def while_others_write(walk: Walk, block: Block) -> bool:
        if block.sequence >= 4 and left:
            for _ in range(left.pop()):
                filled(stores, 1, start=chain.head())
        return real(walk, block)

    monkeypatch.setattr(Walk, "take", while_others_write)
    assert chain.verify().is_intact
    assert chain.head() == 8


def test_the_keeper_signs_one_checkpoint_an_hour_and_keeps_it_outside(stores: Stores, tmp_path: Path) -> None:
    clock, anchor = [NOW], FolderAnchor(tmp_path)
    filled(stores, 2)
    keepers = [Keeper(stores.chain(anchor), 3, None, lambda: clock[0]) for _ in range(2)]
    for _ in range(10):
        for keeper in keepers:
            keeper.look()
        clock[0] += timedelta(minutes=20)

    assert [c.time for c in stores.checkpoints.ascending(1)] == [
        (NOW + EVERY * n).isoformat(timespec="seconds") for n in range(4)
    ]
    assert anchor.copies() == list(stores.checkpoints.ascending(1))


def test_what_the_law_asks_to_be_kept_is_kept_three_years(stores: Stores) -> None:
    """PIPL art. 56: records of processing are kept for at least three years."""
    filled(stores, 3).checkpoint(NOW)
    day = timedelta(days=1)
    Keeper(stores.chain(), 3, None, lambda: NOW + 3 * 365 * day).look()
    assert len(list(stores.blocks.ascending(1))) == 3

    Keeper(stores.chain(), 3, None, lambda: NOW + 3 * 366 * day + day).look()
    assert list(stores.blocks.ascending(1)) == []
    assert stores.chain().verify().is_intact


PEOPLE = ("user:ann", "user:ben", "app:shop")
METHODS = ("kehu.profiles.v1.ProfilesService/GetProfile", "kehu.tickets.v1.TicketsService/GetTicket")
GROUPS = ("personal/name", "personal/contact", "sensitive/document")


def some_entry(rnd: random.Random, at: datetime) -> AuditEntry:
    return AuditEntry.of(
        now=at,
        service=rnd.choice(["profiles", "tickets"]),
        subject=rnd.choice(PEOPLE),
        purpose=rnd.choice(["service", "marketing", ""]),
        method=rnd.choice(METHODS),
        outcome=rnd.choice(["allowed", "denied"]),
        status=rnd.choice(["OK", "PERMISSION_DENIED"]),
        profiles=tuple(sorted({f"p{rnd.randint(1, 9)}" for _ in range(rnd.randint(0, 3))})),
        shown=tuple(sorted(set(rnd.sample(GROUPS, rnd.randint(0, 2))))),
        request_id=f"r{rnd.randint(1, 40)}",
    )


def all_pages(blocks: Blocks, wanted: Wanted, size: int) -> list[Found]:
    found, start = [], None
    while True:
        page, start = search(blocks, wanted, start, size)
        found += page
        assert len(page) <= size
        if start is None:
            return found


def test_a_search_finds_what_a_walk_over_everything_finds(stores: Stores) -> None:
    rnd, chain, at = random.Random(5), stores.chain(), NOW
    for number in range(60):
        at += timedelta(seconds=rnd.choice([0, 0, 1, 30, 3_000, 300_000]))
        chain.append(f"b{number}", [some_entry(rnd, at) for _ in range(rnd.randint(1, 8))])
    everything = [
        Found(block.sequence, index, item)
        for block in stores.blocks.ascending(1)
        for index, item in enumerate(block.entries)
    ]
    for _ in range(40):
        sample = rnd.choice(everything).entry
        values = {name: found[0] for name, found in values_of(sample).items() if found and name != "entry_id"}
        wanted = {name: values[name] for name in rnd.sample(sorted(values), rnd.randint(0, min(3, len(values))))}
        since = NOW + timedelta(seconds=rnd.randint(0, 2_000_000)) * rnd.choice([0, 1])
        until = since + timedelta(seconds=rnd.choice([60, 100_000, 10_000_000]))
        expected = [
            item
            for item in sorted(everything, key=lambda i: (i.sequence, i.index), reverse=True)
            if all(value in values_of(item.entry).get(name, ()) for name, value in wanted.items())
            and since <= datetime.fromisoformat(item.entry.time) < until
        ]

        assert all_pages(stores.blocks, Wanted(wanted, since, until), rnd.choice([1, 3, 1000])) == expected


def test_a_search_reads_blocks_of_the_rarest_term_only_and_a_page_reads_few() -> None:
    class Counting(MemoryBlocks):
        read = 0

        def get(self, sequence: int) -> Block | None:
            Counting.read += 1
            return super().get(sequence)

    stores = Stores(Counting(), MemoryCheckpoints())
    chain = stores.chain()
    for number in range(1_000):
        chain.append(f"b{number}", [entry(number, NOW + timedelta(seconds=number), profiles=(f"p{number % 500}",))])
    period = (NOW, NOW + timedelta(days=1))
    Counting.read = 0
    rare, _ = search(stores.blocks, Wanted({"profile": "p7", "subject": "user:ann"}, *period), None, 50)

    assert (len(rare), Counting.read) == (2, 2)
    Counting.read = 0
    page, more = search(stores.blocks, Wanted({"subject": "user:ann", "status": "x"}, *period), None, 50)
    assert (page, Counting.read) == ([], BLOCKS_READ)
    assert more is not None, "a page that found nothing yet says where to go on"


def test_a_key_that_cannot_be_made_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no folder")

    with pytest.raises(ConfigError, match="audit-checkpoint.pem is not there and cannot be made"):
        checkpoint_key(tmp_path / "keys")
