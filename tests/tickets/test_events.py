"""Claims about what tickets does with the facts of others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import pytest
from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged, SourceLink

from services.chassis.consuming import Event
from services.chassis.consuming.topology import read_subscriptions
from services.chassis.crypto import Sealer
from services.tickets import events
from services.tickets.domain.ticket import Ticket
from services.tickets.events import TicketsConsumer
from services.tickets.store import Comment, Facts
from services.tickets.store.memory import MemoryTicketsStore
from tests.tickets.test_store import TICKET

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path) -> MemoryTicketsStore:
    return MemoryTicketsStore(Facts(Sealer("events", tmp_path)))


@pytest.fixture
def consumer(store) -> TicketsConsumer:
    return TicketsConsumer(store, lambda: NOW)


def merged(loser: str, survivor: str, version: int = 5) -> Event[ProfilesMerged]:
    message = ProfilesMerged(
        profile_id=survivor, merged_profile_id=loser, version=version, merged_profile_version=version
    )
    return Event(f"{loser}-{survivor}", f"profiles/{survivor}", NOW, version, message)


def unmerged(out: str, old: str, version: int, *records: str, aliases: tuple[str, ...] = ()) -> Event[ProfilesUnmerged]:
    links = [SourceLink(source_id="shop", source_record_id=item) for item in records]
    message = ProfilesUnmerged(
        profile_id=old, unmerged_profile_id=out, version=version, links=links, aliases=aliases, event_time=NOW
    )
    return Event(f"{out}-{version}", f"profiles/{out}", NOW, version, message)


def test_tickets_follow_their_customer_and_say_so(consumer, store):
    store.insert(TICKET)
    consumer.on_profiles_merged(merged("p1", "p2"))

    assert (store.get(TICKET.id).profile_id, store.get(TICKET.id).version) == ("p2", 2)
    assert store.published[-1].message.profile_id == "p2"


def test_the_same_merge_again_changes_nothing(consumer, store):
    store.insert(TICKET)
    for _ in range(3):
        consumer.on_profiles_merged(merged("p1", "p2"))

    assert store.get(TICKET.id).version == 2


def test_merges_in_the_wrong_order_end_at_the_last_survivor(consumer, store):
    store.insert(TICKET)
    store.insert(replace(TICKET, id="b" * 32, number="T20261120-000002", profile_id="p2", opened_for="p2"))
    consumer.on_profiles_merged(merged("p2", "p3"))
    consumer.on_profiles_merged(merged("p1", "p2"))

    assert {"p3"} == {store.get(TICKET.id).profile_id, store.get("b" * 32).profile_id}


def test_merges_that_circle_end(consumer, store):
    store.insert(TICKET)
    consumer.on_profiles_merged(merged("p2", "p1"))
    consumer.on_profiles_merged(merged("p1", "p2"))

    assert store.get(TICKET.id).profile_id in {"p1", "p2"}


def test_more_tickets_than_a_page_all_follow(consumer, store):
    for n in range(events.PAGE + 3):
        store.insert(replace(TICKET, id=f"{n:032d}", number=f"T20261120-{n:06d}"))
    consumer.on_profiles_merged(merged("p1", "p2"))

    assert {each.profile_id for each in store.opened_for("p1", "", 9999)} == {"p2"}


def test_the_publisher_knows_what_tickets_listens_to():
    with open(events.__file__, encoding="utf-8") as source:
        found = list(read_subscriptions(source.read()))

    assert [(s.consumer, s.source, s.event) for s in found] == [
        ("tickets", "profiles", "profiles_merged"), ("tickets", "profiles", "profiles_unmerged"),
        ("tickets", "profiles", "profile_erased"),
    ]  # fmt: skip


def ticket(number: int, opened_for: str, record: str = "", **more: str) -> Ticket:
    changes = {"profile_id": opened_for, "opened_for": opened_for, "source_record": record, **more}
    return replace(TICKET, id=f"{number:032d}", number=f"T20261120-{number:06d}", **changes)


def customers(store) -> list[str]:
    return [store.get(f"{n:032d}").profile_id for n in range(4)]


OF_A_STORY = (merged("b", "a", 2), unmerged("b", "a", 4, "7"), merged("c", "b", 3))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_after_a_split_each_ticket_is_whose_it_was_opened_for_or_whose_record_it_is_about(store, consumer, order):
    for number, (opened_for, record) in enumerate([("a", ""), ("b", ""), ("a", "shop/7"), ("c", "shop/8")]):
        store.insert(ticket(number, opened_for, record))
    for index in (*order, *order):
        event = OF_A_STORY[index]
        handle = consumer.on_profiles_merged if isinstance(event.message, ProfilesMerged) else None
        (handle or consumer.on_profiles_unmerged)(event)

    assert customers(store) == ["a", "b", "b", "b"]


def test_a_ticket_opened_for_both_while_they_were_one_stays_with_the_one_that_was_named(store, consumer):
    consumer.on_profiles_merged(merged("b", "a", 2))
    for number, opened_for in enumerate("abab"):
        store.insert(ticket(number, opened_for, profile_id="a"))
    consumer.on_profiles_unmerged(unmerged("b", "a", 4))
    assert customers(store) == ["a", "b", "a", "b"]

    consumer.on_profiles_merged(merged("b", "a", 5))
    assert customers(store) == ["a"] * 4


def erased(*names: str) -> Event[ProfileErased]:
    return Event("e", f"profiles/{names[0]}", NOW, 9, ProfileErased(profile_id=names[0], version=9, names=names))


def test_the_tickets_of_an_erased_person_lose_words_comments_and_customer_and_stay_in_the_figures(store, consumer):
    for number, opened_for in enumerate(["a", "b", "c", "d"]):
        store.insert(ticket(number, opened_for, f"till/{number}"))
        store.add_comment(Comment(f"c{number}", f"{number:032d}", "user:u", "张三 called", NOW))
    consumer.on_profiles_merged(merged("b", "a"))
    for _ in range(2):
        consumer.on_profile_erased(erased("a", "b", "x"))

    for number in (0, 1):
        found = store.get(f"{number:032d}")
        assert not any((found.subject, found.description, found.profile_id, found.opened_for, found.source_record))
        assert (found.status, found.deleted, found.number) == (TICKET.status, False, f"T20261120-{number:06d}")
        assert store.comments(found.id, None, 10) == []
    assert store.get(f"{2:032d}").subject == TICKET.subject
    assert len(store.comments(f"{2:032d}", None, 10)) == 1


def test_a_merge_that_is_told_after_the_erasure_links_nothing_again(store, consumer):
    store.insert(ticket(0, "b", "till/1"))
    consumer.on_profile_erased(erased("a", "b"))
    consumer.on_profiles_merged(merged("b", "a"))

    assert store.get(f"{0:032d}").profile_id == ""


def test_a_ticket_about_a_record_follows_whoever_has_it_however_often_that_is_merged(store, consumer):
    store.insert(ticket(0, "a", "shop/7"))
    consumer.on_profiles_unmerged(unmerged("n", "a", 1, "7"))
    assert store.get("0" * 32).profile_id == "n"
    consumer.on_profiles_merged(merged("n", "c", 2))

    assert store.get("0" * 32).profile_id == "c"


def test_a_ticket_about_a_record_that_stayed_stays_though_it_was_opened_under_the_id_that_went(store, consumer):
    consumer.on_profiles_merged(merged("b", "a", 2))
    store.insert(ticket(0, "b", "shop/1", profile_id="a"))
    split = unmerged("b", "a", 4, "7")
    split.message.remaining_links.add(source_id="shop", source_record_id="1")
    consumer.on_profiles_unmerged(split)

    assert store.get("0" * 32).profile_id == "a"
