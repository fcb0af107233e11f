"""Who saw what of a person, whatever they merged with; and the trail as a file that proves itself."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from kehu.access.v1 import audit_pb2 as pb
from kehu.profiles.v1.events_pb2 import ProfilesMerged, ProfilesUnmerged
from typer.testing import CliRunner

from infra.cli import app
from services.access.domain.names import Link
from services.access.domain.proof import block_line, checkpoint_line, header
from services.access.events import AccessConsumer
from services.access.store.names import MemoryNames, MongoNames, Names
from services.chassis.audit import AuditEntry
from services.chassis.consuming import Event
from tests.access.stores import BOTH, emptied
from tests.access.world import START, World, running_world

MINUTE = timedelta(minutes=1)
SPOOL = "7" * 32


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as found:
        yield found


@pytest.fixture(params=BOTH)
def names(request: pytest.FixtureRequest) -> Iterator[Names]:
    if request.param == "memory":
        yield MemoryNames()
        return
    with emptied(request, "profile_names"):
        found = MongoNames()
        found.ensure_indexes()
        yield found


def stamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


def merged(into: str, gone: str, version: int, at: datetime) -> Event[Any]:
    message = ProfilesMerged(
        profile_id=into, merged_profile_id=gone, merged_profile_version=version, event_time=stamp(at)
    )
    return Event("e", f"profiles/{into}", at, version, message)


def unmerged(whole: str, part: str, version: int, since: datetime, at: datetime) -> Event[Any]:
    message = ProfilesUnmerged(
        profile_id=whole, unmerged_profile_id=part, version=version, together_since=stamp(since), event_time=stamp(at)
    )
    return Event("e", f"profiles/{whole}", at, version, message)


def told(world: World, events: list[Event[Any]]) -> None:
    consumer = AccessConsumer(world.context.names, world.context.shares)
    for event in events:
        if isinstance(event.message, ProfilesMerged):
            consumer.on_profiles_merged(event)
        else:
            consumer.on_profiles_unmerged(event)


def seen(world: World, minute: int, profile: str, who: str, **values: Any) -> None:
    entry = AuditEntry.of(
        now=START + minute * MINUTE,
        **{
            "service": "profiles", "subject": who, "purpose": "service", "method": "m", "outcome": "allowed",
            "profiles": (profile,), "shown": ("personal/name",), **values,
        },
    )  # fmt: skip
    world.context.chain.append(f"b-{entry.entry_id}", [entry])


def who_saw(world: World, profile: str) -> set[str]:
    request = pb.ListDisclosuresRequest(profile_id=profile)
    found = world.stub(purpose="administration").ListDisclosures(request, timeout=5)
    assert found.complete
    return {item.subject for item in found.disclosures}


def test_links_come_back_and_are_noted_once(names: Names) -> None:
    links = [Link(f"p{n}", f"q{n % 3}", n, START) for n in range(40)]
    for link in [*links, *links]:
        names.add(link)

    assert sorted(names.of(f"p{n}" for n in range(40)), key=lambda link: link.version) == links
    assert {link.profile_id for link in names.into(["q1"])} == {f"p{n}" for n in range(40) if n % 3 == 1}
    assert names.of([]) == names.into([]) == []


def test_a_person_is_told_who_saw_which_groups_for_what_and_how_often(world: World) -> None:
    seen(world, 1, "p1", "user:ann")
    seen(world, 9, "p1", "user:ann", masked=("sensitive/document",))
    seen(world, 3, "p1", "app:shop", purpose="marketing", shown=(), masked=("personal/contact",))
    seen(world, 4, "p1", "user:refused", outcome="denied")
    seen(world, 5, "p1", "user:ids-only", shown=())
    seen(world, 6, "p2", "user:of-another")

    found = world.stub(purpose="administration").ListDisclosures(pb.ListDisclosuresRequest(profile_id="p1"), timeout=5)

    first, second = found.disclosures
    assert (first.subject, first.count, second.subject, second.purpose) == ("user:ann", 2, "app:shop", "marketing")
    assert (first.shown_groups, first.masked_groups) == (["personal/name"], ["sensitive/document"])
    assert first.first_time.ToDatetime(UTC) == START + MINUTE and first.last_time.ToDatetime(UTC) == START + 9 * MINUTE
    assert first.audit_entry == "auditEntries/2-0"


def test_a_merge_joins_what_was_seen_of_both(world: World) -> None:
    told(world, [merged("p1", "p2", 5, START + 10 * MINUTE), merged("p0", "p1", 8, START + 20 * MINUTE)])
    for minute, profile, who in ((1, "p1", "a"), (2, "p2", "b"), (15, "p1", "c"), (25, "p0", "d"), (3, "p9", "x")):
        seen(world, minute, profile, who)

    assert who_saw(world, "p0") == who_saw(world, "p1") == who_saw(world, "p2") == {"a", "b", "c", "d"}


def test_a_person_is_told_of_the_files_they_were_in_under_a_former_name_too(world: World) -> None:
    method = "kehu.profiles.v1.ProfilesService/DownloadExport"
    for part in range(20):  # of one file, in order of ids, as profiles writes them at a download
        ids = tuple(f"p{part:02d}{n:03d}" for n in range(500))
        masked = ("personal/contact",)
        seen(world, 1, "", "user:ann", profiles=ids, masked=masked, target="exports/e1", method=method)
    told(world, [merged("p99", "p07123", 5, START + 10 * MINUTE)])

    request = pb.ListDisclosuresRequest(profile_id="p99")
    (one,) = world.stub(purpose="administration").ListDisclosures(request, timeout=5).disclosures
    assert (one.subject, one.method, one.count, one.masked_groups) == ("user:ann", method, 1, ["personal/contact"])
    assert who_saw(world, "p20000") == set()


@pytest.mark.parametrize("late_first", [False, True])
def test_an_unmerge_leaves_each_with_what_was_seen_while_they_were_one(world: World, late_first: bool) -> None:
    events = [
        merged("p1", "p2", 5, START + 10 * MINUTE),
        unmerged("p1", "p2", 6, START + 10 * MINUTE, START + 20 * MINUTE),
    ]
    told(world, events[::-1] if late_first else events)
    for minute, profile, who in ((1, "p1", "a"), (2, "p2", "b"), (15, "p1", "both"), (25, "p1", "c"), (26, "p2", "d")):
        seen(world, minute, profile, who)

    assert who_saw(world, "p2") == {"b", "both", "d"}
    assert who_saw(world, "p1") == {"a", "both", "c"}


def test_a_new_profile_split_out_was_seen_in_the_one_it_came_from(world: World) -> None:
    """Its records had come into another profile at once: it never had an id of its own before."""
    told(world, [
        merged("p0", "p1", 3, START + 12 * MINUTE),
        unmerged("p0", "new", 1, START + 10 * MINUTE, START + 20 * MINUTE),
    ])  # fmt: skip
    for minute, profile, who in ((5, "p0", "before"), (15, "p0", "within"), (25, "p0", "after"), (26, "new", "own")):
        seen(world, minute, profile, who)

    assert who_saw(world, "new") == {"within", "own"}


def test_a_part_of_a_part_was_seen_in_the_whole_as_long_as_both_were_in_it(world: World) -> None:
    told(world, [
        merged("p1", "p2", 1, START + 10 * MINUTE),
        merged("p0", "p1", 1, START + 20 * MINUTE),
        unmerged("p0", "p1", 2, START + 20 * MINUTE, START + 30 * MINUTE),
        unmerged("p1", "p2", 2, START + 10 * MINUTE, START + 40 * MINUTE),
    ])  # fmt: skip
    for minute in range(5, 50, 10):
        for profile in ("p0", "p1", "p2"):
            seen(world, minute, profile, f"{profile}@{minute}")

    # p2 was in p1 from 10 to 40, and with it in p0 from 20 to 30
    mine = {f"p2@{m}" for m in range(5, 50, 10)} | {"p1@15", "p1@25", "p1@35", "p0@25"}
    assert who_saw(world, "p2") == mine


def filled(world: World, blocks: int) -> None:
    for number in range(blocks):
        entries = [
            AuditEntry.of(now=START + number * MINUTE, service="profiles", subject="user:ann", target=f"{number}-{n}")
            for n in range(3)
        ]
        world.context.chain.append(f"{SPOOL}-{number * 3:016d}", entries)
    world.context.chain.checkpoint(START + timedelta(hours=1))


def exported(world: World, **request: int) -> list[bytes]:
    """Return the lines of a file, as `kehu audit export` writes them."""
    stub, following, lines = world.stub(purpose="administration"), request.pop("first_block", 0), []
    while following or not lines:
        page = stub.ExportAuditBlocks(pb.ExportAuditBlocksRequest(first_block=following, **request), timeout=5)
        lines = lines or [header(page.block_key, page.checkpoint_key)]
        for block in page.blocks:
            lines.append(block_line({field.name: value for field, value in block.ListFields()}))
        lines += [checkpoint_line(document) for document in page.checkpoints]
        following = page.next_block
    return lines


def verified(tmp_path: Path, lines: list[bytes], *options: str) -> tuple[int, str]:
    """Run `kehu audit verify` on a file of these lines: no server, no stack, no database."""
    file = tmp_path / "trail.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    done = CliRunner().invoke(app, ["audit", "verify", str(file), *options])
    return done.exit_code, done.output


def test_an_exported_trail_is_verified_with_no_server(world: World, tmp_path: Path) -> None:
    filled(world, 45)
    lines = exported(world, page_size=7)
    key = world.context.chain.public_keys[1].hex()

    code, output = verified(tmp_path, lines, "--key", key)

    assert code == 0, output
    assert "blocks 1 to 45 fit: 135 entries" in output and "covers them to block 45" in output
    assert verified(tmp_path, lines, "--key", "00" * 32)[0] == 1


def test_a_page_of_the_trail_reads_only_the_checkpoints_of_its_blocks(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for hour in range(1, 9):
        world.context.chain.append(f"{SPOOL}-{hour - 1:016d}", [AuditEntry.of(now=START, service="access")])
        world.context.chain.checkpoint(START + timedelta(hours=hour))
    monkeypatch.delattr(type(world.context.chain.checkpoints), "ascending")

    lines = exported(world, page_size=3)

    assert sum(b'"checkpoint":' in line for line in lines) == 8
    assert verified(tmp_path, lines)[0] == 0


def test_a_part_of_the_trail_says_how_far_a_checkpoint_covers_it(world: World, tmp_path: Path) -> None:
    filled(world, 6)
    world.context.chain.append("later", [AuditEntry.of(now=START, service="access")])

    assert "covers them to block 6" in verified(tmp_path, exported(world, first_block=3))[1]
    assert "no checkpoint covers them" in verified(tmp_path, exported(world, first_block=2, last_block=4))[1]


def test_a_key_that_was_noted_down_proves_nothing_of_blocks_that_no_checkpoint_covers(
    world: World, tmp_path: Path
) -> None:
    filled(world, 6)
    key = world.context.chain.public_keys[1].hex()
    lines = [line for line in exported(world) if b'"checkpoint":' not in line]  # as whoever has the blocks' key writes

    assert verified(tmp_path, lines)[0] == 0
    assert verified(tmp_path, lines, "--key", key)[0] == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_is_done_to_the_file_is_found(seed: int) -> None:
    from services.access.domain.proof import prove

    rnd = random.Random(seed)
    lines = list(FILE)
    place = rnd.randrange(1, len(lines) - 1)  # a block; the last line is the checkpoint
    document = json.loads(lines[place])
    match rnd.choice(["entry", "field", "remove", "swap", "cut", "checkpoint"]):
        case "entry":
            document["block"]["lines"] = document["block"]["lines"].replace("user:ann", "user:ben", rnd.randint(1, 3))
            lines[place] = json.dumps(document).encode()
        case "field":
            document["block"][rnd.choice(["hash", "previous", "signature"])] = "1" * 64
            lines[place] = json.dumps(document).encode()
        case "remove":
            if place == 1:  # what is cut off at the beginning is a shorter export, and says so by its first block
                place = 2
            del lines[place]
        case "swap":
            other = place + 1 if place < len(lines) - 2 else place - 1
            lines[place], lines[other] = lines[other], lines[place]
        case "cut":
            del lines[max(place, 2) : len(lines) - 1]
        case _:
            changed = json.loads(lines[-1])
            changed["checkpoint"][rnd.choice(["head", "time", "signature"])] = "0" * 64
            lines[-1] = json.dumps(changed).encode()

    assert prove(lines).fault


@pytest.mark.parametrize("lines", [[b"{}"], [b"no json"], [b'{"format": "kehu-audit-1", "block_key": "zz"}'], [b"[]"]])
def test_a_file_that_is_none_of_ours_is_said_to_be_none(lines: list[bytes], tmp_path: Path) -> None:
    assert verified(tmp_path, lines)[0] == 1


def _file() -> list[bytes]:
    with running_world() as world:
        filled(world, 9)
        return exported(world)


FILE = _file()
