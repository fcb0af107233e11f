"""Marketing follows merges and splits of profiles, in whatever order and however often it is told."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations

import pytest
from kehu.profiles.v1.events_pb2 import ProfilesMerged, ProfilesUnmerged

from services.chassis.consuming import Event
from services.marketing.domain.suppressions import Suppression
from services.marketing.events import MarketingConsumer
from services.marketing.store_memory import MemoryMarketingStore
from tests.marketing.test_runs import CAP_ONE, skips_of
from tests.marketing.world import World

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def merged(survivor: str, other: str, version: int = 2) -> Event[ProfilesMerged]:
    message = ProfilesMerged(profile_id=survivor, merged_profile_id=other, merged_profile_version=version)
    return Event("e1", f"profiles/{survivor}", NOW, 2, message)


def unmerged(old: str, out: str, version: int) -> Event[ProfilesUnmerged]:
    message = ProfilesUnmerged(profile_id=old, unmerged_profile_id=out, version=version)
    return Event("e2", f"profiles/{out}", NOW, version, message)


def tell(store: MemoryMarketingStore, *events: Event) -> None:
    consumer = MarketingConsumer(store)
    for event in events:
        is_merge = isinstance(event.message, ProfilesMerged)
        (consumer.on_profiles_merged if is_merge else consumer.on_profiles_unmerged)(event)


def test_the_survivor_answers_for_the_merged_profile_however_often_it_is_told():
    store = MemoryMarketingStore()
    tell(store, merged("b", "a"), merged("c", "b"), merged("b", "a"))

    assert store.identities.living(["a", "b", "c"]) == {"a": "c", "b": "c"}


@pytest.mark.parametrize("order", list(permutations(range(2))))
@pytest.mark.parametrize("side", ["a", "b"])
def test_who_must_not_be_written_to_stays_so_on_both_sides_of_a_split(order, side):
    store = MemoryMarketingStore()
    store.suppress(Suppression(side, "email", "offers", "unsubscribed", "token"))
    events = [merged("a", "b", 2), unmerged("a", "b", 4)]
    tell(store, *(events[index] for index in (*order, *order)))

    assert store.identities.living(["b"]) == {}
    for each in ("a", "b"):
        (found,) = store.suppressions_of([each], [])
        assert (found.channel, found.purpose_id, found.reason, found.address_token) == (
            "email", "offers", "unsubscribed", "token",
        )  # fmt: skip


def test_what_is_refused_after_a_split_concerns_one_side_though_the_fact_comes_again():
    store = MemoryMarketingStore()
    tell(store, merged("a", "b", 2), unmerged("a", "b", 4))
    store.suppress(Suppression("b", "email", "", "unsubscribed"))
    tell(store, unmerged("a", "b", 4))

    assert store.suppressions_of(["a"], []) == []


def test_after_a_split_each_side_has_the_cap_of_its_own_messages():
    world = World(people=2)
    tell(world.store, merged("p000", "p900", 2))
    world.campaign(frequency_cap=CAP_ONE)
    world.work(world.start())
    world.audiences.profile_ids = ["p900"]
    assert skips_of(world.work(world.start("c1", "run2"))) == {"FREQUENCY_CAP": 1}

    tell(world.store, unmerged("p000", "p900", 4))
    world.work(world.start("c1", "run3"))
    assert world.mailbox.recipients().count("p900") == 1


def test_a_split_in_the_middle_of_a_run_writes_to_nobody_twice_and_to_nobody_suppressed():
    world = World(people=50)
    tell(world.store, merged("p001", "p045", 2))
    world.store.suppress(Suppression("p045", "email", "offers", "unsubscribed"))
    world.campaign()
    name = world.start()
    split = unmerged("p001", "p045", 4)
    world.mailbox.trouble = lambda address: tell(world.store, split) if address.startswith("p010") else None

    report = world.work(name)

    assert report.sent == 48 and {"p001", "p045"}.isdisjoint(world.mailbox.recipients())
    assert len(set(world.mailbox.recipients())) == 48


def test_a_suppression_of_a_third_id_stands_on_both_sides_though_its_merge_is_heard_last():
    store = MemoryMarketingStore()
    store.suppress(Suppression("c", "email", "", "complaint"))
    split = unmerged("a", "b", 4)
    split.message.former_names.add(profile_id="c", merged_into="a", version=3)
    tell(store, merged("a", "b", 2), split, merged("a", "c", 3))

    assert [len(store.suppressions_of([each], [])) for each in "ab"] == [1, 1]


def test_a_split_that_is_heard_after_the_next_merge_still_suppresses_both_sides():
    store = MemoryMarketingStore()
    store.suppress(Suppression("a", "email", "", "complaint"))
    tell(store, merged("a", "b", 2), merged("x", "b", 5), unmerged("a", "b", 4))

    assert store.suppressions_of(["b"], []) and store.identities.living(["b"]) == {"b": "x"}
