"""The audit methods of AccessService, over a real socket behind the real guard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.access.v1 import access_pb2 as pb

from services.chassis.access.wire import entry_message
from services.chassis.audit import AuditEntry
from tests.access.world import START, World, running_world
from tests.harness import bad_fields, refused


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as found:
        yield found


def write(world: World, batch_id: str, entries: list[AuditEntry], peer: str = "profiles") -> int:
    request = pb.WriteAuditEntriesRequest(batch_id=batch_id, entries=[entry_message(entry) for entry in entries])
    return world.stub(caller="", peer=peer).WriteAuditEntries(request, timeout=5).block


def entry(number: int, at: datetime = START, **values: object) -> AuditEntry:
    return AuditEntry.of(now=at, **{"service": "profiles", "subject": "user:x", "target": str(number), **values})


def listed(world: World, **fields: object) -> list[pb.AuditEntry]:
    found, token = [], ""
    while True:
        request = pb.ListAuditEntriesRequest(page_token=token, **{"page_size": 4, **fields})
        page = world.stub().ListAuditEntries(request, timeout=5)
        found += page.audit_entries
        token = page.next_page_token
        if not token:
            return found


def test_batches_are_written_once_and_the_chain_verifies(world: World) -> None:
    entries = [entry(n) for n in range(3)]

    blocks = [write(world, "a-1", entries) for _ in range(3)]
    write(world, "a-2", entries)
    world.context.chain.checkpoint(START)
    found = world.stub().VerifyAuditEntries(pb.VerifyAuditEntriesRequest(), timeout=5)

    assert blocks == [1, 1, 1]
    assert (found.intact, found.blocks, found.entries) == (True, 2, 6)
    assert (found.checkpoint, found.checkpoint_block) == (1, 2)
    assert found.checkpoint_time.ToDatetime(UTC) == START


def test_a_period_that_ends_with_the_calendar_ends_now(world: World) -> None:
    write(world, "a", [entry(number) for number in range(3)])
    end = Timestamp()
    end.FromDatetime(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

    assert len(listed(world, end_time=end)) >= 3


def test_audit_entries_are_listed_newest_first_in_pages(world: World) -> None:
    for block in range(3):
        at = START + timedelta(minutes=block)
        write(world, f"b-{block}", [entry(10 * block + n, at, subject=f"user:{n % 2}") for n in range(4)])

    assert [found.target for found in listed(world, subject="user:1")] == ["23", "21", "13", "11", "3", "1"]


def test_an_entry_is_found_by_whatever_an_auditor_asks(world: World) -> None:
    late = START + timedelta(hours=2)
    asked = entry(
        2, late, subject="app:shop", purpose="marketing", method="kehu.profiles.v1.ProfilesService/GetProfile",
        profiles=("p1", "p2"), shown=("personal/name",), masked=("sensitive/document",), status="OK",
    )  # fmt: skip
    write(world, "a", [entry(1)])
    write(world, "b", [asked])
    period = pb.ListAuditEntriesRequest()
    period.start_time.FromDatetime(late)
    for question in (
        {"subject": "app:shop"}, {"purpose": "marketing"}, {"profile_id": "p2"}, {"group": "sensitive/document"},
        {"method": asked.method}, {"status": "OK"}, {"decision_id": asked.entry_id}, {"start_time": period.start_time},
        {"profile_id": "p1", "subject": "app:shop", "purpose": "marketing"},
    ):  # fmt: skip
        assert [found.target for found in listed(world, **question)] == ["2"], question
    for question in ({"end_time": period.start_time}, {"subject": "user:x"}):
        assert [found.target for found in listed(world, **question)] == ["1"], question
    for question in ({"profile_id": "p3"}, {"subject": "app:shop", "purpose": "service"}, {"decision_id": "0" * 32}):
        assert listed(world, **question) == [], question


def test_a_page_token_belongs_to_its_question(world: World) -> None:
    write(world, "a", [entry(n) for n in range(9)])
    page = world.stub().ListAuditEntries(pb.ListAuditEntriesRequest(page_size=2, subject="user:x"), timeout=5)
    other = pb.ListAuditEntriesRequest(page_size=2, purpose="service", page_token=page.next_page_token)

    assert refused(lambda: world.stub().ListAuditEntries(other, timeout=5)).reason == "PAGE_TOKEN_INVALID"


def test_no_service_writes_in_anothers_name_nor_without_a_time(world: World) -> None:
    wrong = [entry(1, service="tickets"), AuditEntry(**_bare("profiles"))]
    request = pb.WriteAuditEntriesRequest(batch_id="x", entries=[entry_message(item) for item in wrong])

    found = bad_fields(lambda: world.stub(caller="", peer="profiles").WriteAuditEntries(request, timeout=5))

    assert found == ["entries[0].service", "entries[1].time"]


def _bare(service: str) -> dict[str, object]:
    names = ("subject", "department", "purpose", "resource", "action", "target", "outcome", "reason", "status",
             "request_id", "time", "entry_id")  # fmt: skip
    return {"service": service, "policy_version": 0, **dict.fromkeys(names, "")}


@pytest.mark.parametrize("since", [datetime(1, 1, 1, tzinfo=UTC), datetime(177, 11, 4, tzinfo=UTC)])
def test_a_time_before_the_calendar_of_the_trail_asks_for_all_of_it(world: World, since: datetime) -> None:
    write(world, "early", [entry(1)])

    assert [found.target for found in listed(world, start_time=since)] == ["1"]
