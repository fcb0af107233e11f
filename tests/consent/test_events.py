"""Consents follow merges of profiles, whatever the order and however often the event comes."""

from __future__ import annotations

from kehu.profiles.v1.events_pb2 import ProfilesMerged

from services.chassis.consuming import Event
from services.consent.domain.decision import Terms, decide
from services.consent.domain.records import ProfileConsents
from services.consent.events import ConsentConsumer
from services.consent.store import MemoryConsentStore, consents_for
from tests.consent.registry import OFFERS, day, member_notice, record

NOW = day("2026-05-01")


def merged(survivor: str, other: str) -> Event[ProfilesMerged]:
    message = ProfilesMerged(profile_id=survivor, merged_profile_id=other, version=2)
    return Event("e1", f"profiles/{survivor}", NOW, 2, message)


def a_store(**profiles) -> MemoryConsentStore:
    store = MemoryConsentStore()
    store.save_consents([(ProfileConsents(key, (kept,)), []) for key, kept in profiles.items()])
    return store


def is_allowed(store, profile_id: str) -> bool:
    consents = consents_for(store, [profile_id])[profile_id]
    return decide(consents.records, Terms(OFFERS, member_notice(), "email", NOW)).allowed


def test_an_opt_out_of_the_merged_profile_survives():
    store = a_store(winner=record("a", "GRANTED", answered="2026-04-02"), loser=record("b", "REVOKED"))

    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert not is_allowed(store, "winner")
    assert not is_allowed(store, "loser")
    assert {"a", "b"} <= {kept.record_id for kept in store.consents(["winner"])["winner"].records}


def test_the_same_event_twice_changes_nothing():
    store = a_store(winner=record("a", "GRANTED"), loser=record("b", "DENIED"))
    consumer = ConsentConsumer(store)
    consumer.on_profiles_merged(merged("winner", "loser"))
    before, facts = store.consents(["winner", "loser"]), len(store.facts)

    consumer.on_profiles_merged(merged("winner", "loser"))

    assert store.consents(["winner", "loser"]) == before
    assert len(store.facts) == facts


def test_a_merge_of_profiles_without_records_still_makes_the_alias():
    store = MemoryConsentStore()

    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert consents_for(store, ["loser"])["loser"].profile_id == "winner"


def test_merges_of_merges_arrive_in_any_order():
    first, second = merged("b", "a"), merged("c", "b")
    for order in ((first, second), (second, first)):
        store = a_store(a=record("ra", "DENIED"), b=record("rb", "GRANTED"), c=record("rc", "GRANTED"))
        for event in order:
            ConsentConsumer(store).on_profiles_merged(event)

        assert [is_allowed(store, profile_id) for profile_id in "abc"] == [False, False, False]


def test_a_merge_stopped_half_way_is_finished_by_its_redelivery():
    store = a_store(winner=record("a", "GRANTED"), loser=record("b", "DENIED"))

    class StopsAfterTheFirstWrite(MemoryConsentStore):
        def save_consents(self, changes):
            if any(consents.merged_into for consents, _ in changes):
                raise ConnectionError
            return store.save_consents(changes)

        consents = store.consents

    try:
        ConsentConsumer(StopsAfterTheFirstWrite()).on_profiles_merged(merged("winner", "loser"))
    except ConnectionError:
        ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert not is_allowed(store, "loser")
    assert [kept.record_id for kept in store.consents(["winner"])["winner"].records] == ["a", "b"]
