"""Claims about what search does with the facts of others."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from kehu.profiles.v1.events_pb2 import ProfileChanged
from kehu.tickets.v1.events_pb2 import TicketChanged

from services.chassis.consuming import Event
from services.chassis.consuming.topology import read_subscriptions
from services.chassis.crypto import SealBroken
from services.search import events
from services.search.domain.queries import plan
from services.search.events import SearchConsumer
from services.search.store import IndexQuery
from services.search.store.batching import BatchingWriter
from services.search.store.tantivy_engine import TantivyEngine
from tests.search.test_api import Keys

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def engine(tmp_path) -> TantivyEngine:
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()
    return engine


@pytest.fixture
def consumer(engine, keys) -> SearchConsumer:
    return SearchConsumer(BatchingWriter(engine, 0.001).write, keys.maker)


def event(message) -> Event:
    return Event("id", "subject", NOW, message.version, message)


def find(engine: TantivyEngine, keys: Keys, query: str) -> list[str]:
    clauses = plan(query, *[lambda classification, group: True] * 2, keys.keyed).clauses
    return [hit.id for hit in engine.search(IndexQuery(clauses, {})).hits]


def test_a_change_replaces_what_was_found_before(consumer, engine, keys):
    consumer.on_profile_changed(event(keys.profile(1, "张伟", version=1)))
    consumer.on_profile_changed(event(keys.profile(1, "李娜", version=2)))

    assert (find(engine, keys, "张伟"), find(engine, keys, "李娜")) == ([], ["profiles/p1"])


def test_facts_in_any_order_end_at_the_newest_and_equal_to_their_source(consumer, engine, keys):
    names = ["张伟", "李娜", "王芳", "刘洋", "陈静"]
    facts = [keys.profile(n, names[version], version=version) for n in range(8) for version in range(5)]
    random.Random(7).shuffle(facts)
    for fact in [*facts, *facts[:10]]:
        consumer.on_profile_changed(event(fact))

    assert len(find(engine, keys, "陈静")) == 8
    assert len(find(engine, keys, "")) == 8


@pytest.mark.parametrize("end", [{"deleted": True}, {"deleted": True, "merged_into": "p2"}, {"merged_into": "p2"}])
def test_an_erased_or_merged_profile_is_gone_and_stays_gone(consumer, engine, keys, end):
    consumer.on_profile_changed(event(keys.profile(1, "张伟", version=1)))
    consumer.on_profile_changed(event(ProfileChanged(profile_id="p1", version=3, **end)))
    consumer.on_profile_changed(event(keys.profile(1, "张伟", version=2)))

    assert find(engine, keys, "张伟") == []


def test_an_unmerged_profile_comes_back(consumer, engine, keys):
    consumer.on_profile_changed(event(ProfileChanged(profile_id="p1", version=3, deleted=True, merged_into="p2")))
    consumer.on_profile_changed(event(keys.profile(1, "张伟", version=4)))

    assert find(engine, keys, "张伟") == ["profiles/p1"]


def test_tickets_are_found_and_go(consumer, engine, keys):
    consumer.on_ticket_changed(event(keys.ticket(1, "包装易破损")))
    assert find(engine, keys, "破损") == ["tickets/t1"]

    consumer.on_ticket_changed(event(TicketChanged(ticket_id="t1", version=2, deleted=True)))
    assert find(engine, keys, "破损") == []


def test_words_sealed_for_another_ticket_are_refused(consumer, keys):
    moved = keys.ticket(1, "包装易破损")
    moved.ticket_id = "t2"

    with pytest.raises(SealBroken):
        consumer.on_ticket_changed(event(moved))


def test_no_fact_on_the_wire_carries_a_plain_identifier(keys):
    text = json_format.MessageToJson(keys.profile(1, "张伟")) + json_format.MessageToJson(keys.ticket(1, "破损"))

    assert not any(word in text for word in ("张伟", "138", "example", "破损"))


def test_publishers_know_what_search_listens_to():
    with open(events.__file__, encoding="utf-8") as source:
        found = {(s.consumer, s.source, s.event) for s in read_subscriptions(source.read())}

    assert {("search", "profiles", "profile_changed"), ("search", "tickets", "ticket_changed")} == found
