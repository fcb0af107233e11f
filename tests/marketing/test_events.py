"""Marketing follows merges of profiles."""

from __future__ import annotations

from datetime import UTC, datetime

from kehu.profiles.v1.events_pb2 import ProfilesMerged

from services.chassis.consuming import Event
from services.marketing.events import MarketingConsumer
from services.marketing.store_memory import MemoryMarketingStore


def merged(survivor: str, other: str) -> Event[ProfilesMerged]:
    message = ProfilesMerged(profile_id=survivor, merged_profile_id=other, version=2)
    return Event("e1", f"profiles/{survivor}", datetime.now(UTC), 2, message)


def test_the_survivor_answers_for_the_merged_profile_however_often_it_is_told():
    store = MemoryMarketingStore()
    consumer = MarketingConsumer(store)

    for event in (merged("b", "a"), merged("c", "b"), merged("b", "a")):
        consumer.on_profiles_merged(event)

    assert store.survivors(["a", "b", "c"]) == {"a": "c", "b": "c"}
