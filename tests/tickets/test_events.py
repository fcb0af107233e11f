"""Claims about what tickets does with the facts of others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kehu.profiles.v1.events_pb2 import ProfilesMerged

from services.chassis.consuming import Event
from services.chassis.consuming.topology import read_subscriptions
from services.chassis.crypto import Sealer
from services.tickets import events
from services.tickets.events import TicketsConsumer
from services.tickets.store import Facts
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
    message = ProfilesMerged(profile_id=survivor, merged_profile_id=loser, version=version)
    return Event(f"{loser}-{survivor}", f"profiles/{survivor}", NOW, version, message)


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
    store.insert(replace(TICKET, id="b" * 32, number="T20261120-000002", profile_id="p2"))
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

    assert store.linked_to("p1", 10) == []


def test_the_publisher_knows_what_tickets_listens_to():
    with open(events.__file__, encoding="utf-8") as source:
        found = list(read_subscriptions(source.read()))

    assert [(s.consumer, s.source, s.event) for s in found] == [("tickets", "profiles", "profiles_merged")]
