"""One suite over both stores: what the tickets store promises, wherever it keeps things."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import mongoengine
import pytest
from kehu.tickets.v1 import events_pb2

from services.chassis import records
from services.chassis.access import Condition, Either, Except
from services.chassis.crypto import Sealer, add_key, read_keys, remove_key
from services.chassis.errors import AlreadyExists, Conflict
from services.tickets.domain.calendar import BusinessCalendar, Interval, WorkBlock
from services.tickets.domain.sla import AppliedSla, Kind, Priority, SlaChange, SlaPolicy, Targets
from services.tickets.domain.ticket import Category, Status, Ticket, assign, erase
from services.tickets.store import Comment, Facts, TicketFilter, TicketsStore, resealing
from services.tickets.store.documents import RECORDS
from services.tickets.store.memory import MemoryTicketsStore
from services.tickets.store.mongo import MongoTicketsStore

NOW = datetime(2026, 11, 20, 8, 30, 15, 250000, tzinfo=UTC)
CALENDAR = BusinessCalendar(
    days=((WorkBlock(540, 720), WorkBlock(780, 1080)),) * 5 + ((), ()),
    chinese_holidays=True,
    make_up_blocks=(WorkBlock(600, 720),),
    closed_dates=frozenset({date(2026, 12, 31)}),
)
CHANGE = SlaChange(NOW, "priority", "slow", Priority.LOW, Targets(0, 480))
TICKET = Ticket(
    id="a" * 32,
    number="T20261120-000001",
    kind=Kind.COMPLAINT,
    status=Status.PAUSED,
    priority=Priority.HIGH,
    channel="phone",
    subject="包装易破损",
    description="客户要求退款",
    profile_id="p1",
    department="service",
    assignee="user:lan",
    parent_id="",
    create_time=NOW,
    update_time=NOW,
    sla=AppliedSla("standard", CALENDAR, Targets(60, 240), (CHANGE,)),
    holds=(Interval(NOW, NOW + timedelta(minutes=5)),),
    hold_since=NOW + timedelta(minutes=9),
    first_response_time=NOW + timedelta(minutes=1),
    opened_for="p1",
    source_record="shop/W-7",
)
POLICY = SlaPolicy(
    id="standard",
    display_name="标准",
    rank=10,
    calendar=CALENDAR,
    targets={Priority.NORMAL: Targets(60, 240)},
    kinds=frozenset({Kind.COMPLAINT}),
    departments=frozenset({"service"}),
    disabled=False,
    create_time=NOW,
    update_time=NOW,
)


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def store(request, tmp_path) -> Iterator[TicketsStore]:
    facts = Facts(Sealer("events", tmp_path))
    if request.param == "memory":
        yield MemoryTicketsStore(facts)
        return
    uri = request.getfixturevalue("mongo_uri")
    connection = mongoengine.connect(db="kehu_tickets", alias="tickets", host=uri, tz_aware=True)
    for name in connection["kehu_tickets"].list_collection_names():
        connection["kehu_tickets"].drop_collection(name)
    records.ensure_indexes(RECORDS)
    yield MongoTicketsStore(Sealer("tickets", tmp_path), facts)
    mongoengine.disconnect(alias="tickets")


def numbered(counter: int, **changes) -> Ticket:
    return replace(TICKET, id=f"{counter:032d}", number=f"T20261120-{counter:06d}", **changes)


def test_a_ticket_comes_back_as_it_was_kept(store):
    store.insert(TICKET)

    assert store.get(TICKET.id) == TICKET
    assert store.get("nobody") is None


def test_a_plain_ticket_comes_back_without_sla(store):
    plain = replace(TICKET, sla=None, holds=(), hold_since=None, first_response_time=None)
    store.insert(plain)

    assert store.get(TICKET.id) == plain


def test_an_id_is_taken_once(store):
    store.insert(TICKET)
    with pytest.raises(AlreadyExists):
        store.insert(TICKET)


def test_a_number_is_taken_once(store):
    store.insert(TICKET)
    with pytest.raises(AlreadyExists):
        store.insert(replace(TICKET, id="another"))

    assert store.get("another") is None


def test_only_the_next_version_is_kept(store):
    store.insert(TICKET)
    second = assign(TICKET, "user:bo", NOW)
    store.replace(second)

    assert store.get(TICKET.id) == second
    with pytest.raises(Conflict):
        store.replace(second)


def test_a_request_is_remembered_with_its_change(store):
    store.insert(TICKET, request_id="first")
    store.replace(assign(TICKET, "user:bo", NOW), request_id="second")

    assert store.seen(TICKET.id, "first") and store.seen(TICKET.id, "second")
    assert not store.seen(TICKET.id, "third") and not store.seen(TICKET.id, "")


def test_numbers_are_unique_among_threads_and_start_anew_each_day(store):
    taken: list[str] = []

    def take() -> None:
        for _ in range(5):
            taken.append(store.next_number("20261120"))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [f"T20261120-{n:06d}" for n in range(1, 21)] == sorted(taken)
    assert store.next_number("20261121") == "T20261121-000001"


def test_pages_are_by_number_from_the_newest(store):
    for counter in range(1, 8):
        store.insert(numbered(counter))

    first = store.page(TicketFilter(), "", 4)
    second = store.page(TicketFilter(), first[-1].number, 4)
    assert [int(each.number[-6:]) for each in first + second] == [7, 6, 5, 4, 3, 2, 1]


SALES = Condition("department", ("sales",))


@pytest.mark.parametrize(
    ("narrowed", "counters"),
    [
        (TicketFilter(profile_id="p2"), [2]),
        (TicketFilter(category=Category.RESOLVED), [3]),
        (TicketFilter(kind=Kind.REQUEST), [4]),
        (TicketFilter(department="sales"), [5]),
        (TicketFilter(assignee="user:bo"), [6]),
        (TicketFilter(rows=(SALES,)), [5]),
        (TicketFilter(department="sales", rows=(Condition("department", ("service",)),)), []),
        (TicketFilter(rows=(Condition("department", ()),)), []),
        (TicketFilter(rows=(Either(((SALES,), (Condition("department", ("none",)), SALES))),)), [5]),
        (TicketFilter(rows=(Either(()),)), []),
        (TicketFilter(rows=(Condition("id", (numbered(4).id, "none")),)), [4]),
        (TicketFilter(rows=(Either(((SALES,), (Condition("id", (numbered(4).id,)), SALES))),)), [5]),
        (TicketFilter(department="sales", rows=(Except("department", ("sales",)),)), []),
        (TicketFilter(department="sales", rows=(Except("department", ("service",)),)), [5]),
    ],
)
def test_lists_are_narrowed_by_filter_and_rows(store, narrowed, counters):
    store.insert(numbered(1))
    store.insert(numbered(2, profile_id="p2"))
    store.insert(numbered(3, status=Status.RESOLVED))
    store.insert(numbered(4, kind=Kind.REQUEST))
    store.insert(numbered(5, department="sales"))
    store.insert(numbered(6, assignee="user:bo"))

    assert counters == [int(each.number[-6:]) for each in store.page(narrowed, "", 10)]


def test_a_deleted_ticket_is_in_no_list_but_in_the_states(store):
    store.insert(TICKET)
    store.replace(erase(TICKET, NOW))

    assert store.page(TicketFilter(), "", 10) == [] and store.opened_for("p1", "", 10) == []
    states = store.states("", 10)
    assert [(TICKET.id, 2, True, b"")] == [(s.ticket_id, s.version, s.deleted, s.sealed_text) for s in states]


def test_states_page_by_id_and_carry_sealed_words(store, tmp_path):
    for counter in range(5):
        store.insert(numbered(counter))

    first = store.states("", 3)
    second = store.states(first[-1].ticket_id, 3)
    assert [f"{n:032d}" for n in range(5)] == [each.ticket_id for each in first + second]
    opened = Sealer("events", tmp_path).open(first[0].sealed_text, first[0].ticket_id.encode())
    assert events_pb2.TicketText.FromString(opened).subject == "包装易破损"
    assert "包装".encode() not in first[0].SerializeToString()


def test_comments_are_read_oldest_first_and_erased_with_their_ticket(store):
    said = [Comment(f"c{n}", "t1", "user:lan", f"第{n}句", NOW + timedelta(seconds=n // 2)) for n in range(5)]
    for comment in reversed(said):
        store.add_comment(comment)

    first = store.comments("t1", None, 3)
    assert said == first + store.comments("t1", (first[-1].create_time, first[-1].id), 3)
    assert store.comment("c1") == said[1]
    with pytest.raises(AlreadyExists):
        store.add_comment(said[0])
    store.erase_comments("t1")
    assert store.comments("t1", None, 3) == []


def test_policies_come_back_in_the_order_in_which_they_are_tried(store):
    store.insert_policy(POLICY)
    store.insert_policy(replace(POLICY, id="special", rank=1))

    assert [each.id for each in store.policies()] == ["special", "standard"]
    assert store.policy("standard") == POLICY
    assert store.policy("nobody") is None


def test_policies_change_and_go_by_version_only(store):
    store.insert_policy(POLICY)
    store.replace_policy(replace(POLICY, rank=5, version=2))

    with pytest.raises(Conflict):
        store.replace_policy(replace(POLICY, rank=6, version=2))
    with pytest.raises(Conflict):
        store.delete_policy(POLICY)
    store.delete_policy(replace(POLICY, version=2))
    assert store.policies() == []


def test_tickets_are_found_by_the_id_they_were_opened_for_and_by_the_record_they_are_about(store):
    for n in range(3):
        store.insert(numbered(n, profile_id="survivor", source_record=f"shop/{n}"))
    store.insert(numbered(3, opened_for="p2", source_record=""))
    store.replace(erase(store.get(f"{2:032d}"), NOW))

    assert [each.id for each in store.opened_for("p1", "", 10)] == [f"{0:032d}", f"{1:032d}"]
    assert [each.id for each in store.opened_for("p1", f"{0:032d}", 10)] == [f"{1:032d}"]
    assert [each.id for each in store.about_records(["shop/1", "shop/2", "shop/9", ""])] == [f"{1:032d}"]


@pytest.mark.mongo
def test_tickets_and_merges_from_before_that_was_kept_are_still_found(mongo_uri, tmp_path):
    connection = mongoengine.connect(db="kehu_tickets", alias="tickets", host=mongo_uri, tz_aware=True)
    for name in connection["kehu_tickets"].list_collection_names():
        connection["kehu_tickets"].drop_collection(name)
    store = MongoTicketsStore(Sealer("tickets", tmp_path), Facts(Sealer("events", tmp_path)))
    store.insert(numbered(1, opened_for="", source_record="", profile_id="p7"))
    connection["kehu_tickets"]["merged_profiles"].insert_one({"_id": "p6", "survivor": "p7"})
    store.prepare()

    (found,) = store.opened_for("p7", "", 10)
    assert found.opened_for == "p7"
    assert store.identities.living(["p6"]) == {"p6": "p7"}
    mongoengine.disconnect(alias="tickets")


@pytest.mark.mongo
def test_words_are_sealed_at_rest(mongo_uri, tmp_path):
    connection = mongoengine.connect(db="kehu_tickets", alias="tickets", host=mongo_uri, tz_aware=True)
    store = MongoTicketsStore(Sealer("tickets", tmp_path), Facts(Sealer("events", tmp_path)))
    connection["kehu_tickets"].drop_collection("tickets")
    connection["kehu_tickets"].drop_collection("comments")
    store.insert(TICKET)
    store.add_comment(Comment("c1", TICKET.id, "user:lan", "秘密", NOW))

    raw = repr([*connection["kehu_tickets"]["tickets"].find()]) + repr([*connection["kehu_tickets"]["comments"].find()])
    mongoengine.disconnect(alias="tickets")
    assert not any(word in raw for word in ("包装", "退款", "秘密"))


@pytest.mark.mongo
def test_words_of_an_older_key_are_sealed_anew_those_of_a_slower_writer_too_and_then_it_may_go(
    mongo_uri, tmp_path, monkeypatch
):
    connection = mongoengine.connect(db="kehu_tickets", alias="tickets", host=mongo_uri, tz_aware=True)
    for name in ("tickets", "comments"):
        connection["kehu_tickets"].drop_collection(name)
    facts = Facts(Sealer("events", tmp_path / "keys"))
    store = MongoTicketsStore(Sealer("tickets", tmp_path / "keys"), facts)
    for counter in range(7):
        store.insert(numbered(counter))
        store.add_comment(Comment(f"c{counter}", numbered(counter).id, "user:u", f"said {counter}", NOW))
    shutil.copytree(tmp_path / "keys", tmp_path / "former")
    [old] = read_keys("tickets", tmp_path / "keys")
    add_key("tickets", tmp_path / "keys")
    slower = MongoTicketsStore(Sealer("tickets", tmp_path / "former"), facts)
    late, once = [numbered(99)], resealing._reseal

    def with_a_slower_writer(kind, sealer):
        found = once(kind, sealer)
        if late:
            slower.insert(late.pop())
        return found

    monkeypatch.setattr(resealing, "PAGE", 3)
    monkeypatch.setattr(resealing, "_reseal", with_a_slower_writer)
    assert resealing.reseal(Sealer("tickets", tmp_path / "keys")) == 15
    assert resealing.reseal(Sealer("tickets", tmp_path / "keys")) == 0
    remove_key("tickets", tmp_path / "keys", old.key_id)

    store = MongoTicketsStore(Sealer("tickets", tmp_path / "keys"), facts)
    store.replace(replace(numbered(3), version=2, description="later"))
    said = [store.get(numbered(n).id).description for n in (0, 3, 99)]
    assert said == [TICKET.description, "later", TICKET.description]
    assert [store.comments(numbered(n).id, None, 9)[0].text for n in (0, 6)] == ["said 0", "said 6"]
    mongoengine.disconnect(alias="tickets")
