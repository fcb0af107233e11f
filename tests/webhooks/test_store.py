"""One suite over both stores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import mongoengine
import pytest
from kehu.webhooks.v1 import events_pb2
from pymongo.errors import BulkWriteError

from services.chassis import records
from services.chassis.access import Condition
from services.chassis.crypto import Sealer
from services.chassis.errors import AlreadyExists, Conflict, Unavailable
from services.chassis.records import Fact
from services.webhooks.domain.subscriptions import (
    Attempt,
    Delivery,
    DeliveryState,
    Lane,
    Secret,
    State,
    Subscription,
    delivery_of,
)
from services.webhooks.store import RECORDS, MemoryWebhookStore, MongoWebhookStore, WebhookStore

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
WANTED = Subscription(
    id="a" * 32, subscriber="app:till", department="sales", purpose="sales", target_url="https://till.example.com/",
    event_types=("tickets.ticket_changed",), secrets=(Secret(b"new"), Secret(b"old", NOW)), display_name="till",
    fields=("number",), criteria=(Condition("department", ("sales", "13800138000")),), state=State.ACTIVE,
    lost_since=NOW,
)  # fmt: skip


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def store(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[WebhookStore]:
    if request.param == "memory":
        yield MemoryWebhookStore()
        return
    uri = request.getfixturevalue("mongo_uri")
    connection = mongoengine.connect(db="kehu_webhooks", alias="webhooks", host=uri, tz_aware=True)
    for name in connection["kehu_webhooks"].list_collection_names():
        connection["kehu_webhooks"].drop_collection(name)
    records.ensure_indexes(RECORDS)
    found = MongoWebhookStore(Sealer("webhooks", tmp_path))  # type: ignore[arg-type]
    found.prepare()
    yield found
    mongoengine.disconnect(alias="webhooks")


def delivery(number: int, subscription: str = WANTED.id, resource: str = "tickets/1") -> Delivery:
    at = NOW + timedelta(seconds=number)
    return delivery_of(subscription, f"e{number}", "tickets.ticket_changed", resource, at, at)


def test_a_subscription_comes_back_as_it_was_kept(store: WebhookStore) -> None:
    stored = store.insert(WANTED)
    found = store.get(WANTED.id)

    assert replace(found, version=0, create_time=None, update_time=None) == WANTED
    assert (stored.version, found.version) == (1, 1)
    assert store.get("b" * 32) is None
    with pytest.raises(AlreadyExists):
        store.insert(WANTED)


@pytest.mark.mongo
def test_the_values_of_a_filter_are_not_readable_in_the_database(mongo_uri: str, tmp_path: object) -> None:
    connection = mongoengine.connect(db="kehu_webhooks", alias="webhooks", host=mongo_uri, tz_aware=True)
    connection["kehu_webhooks"].drop_collection("subscriptions")
    MongoWebhookStore(Sealer("webhooks", tmp_path)).insert(WANTED)  # type: ignore[arg-type]
    raw = repr(list(connection["kehu_webhooks"]["subscriptions"].find()))
    mongoengine.disconnect(alias="webhooks")

    assert "till.example.com" in raw
    assert "13800138000" not in raw


def test_only_the_next_version_is_kept(store: WebhookStore) -> None:
    first = store.insert(WANTED)
    told = Fact(events_pb2.WebhookSubscriptionDisabled(subscription_id=WANTED.id), "webhookSubscriptions/a", 2)
    second = store.replace(replace(first, state=State.DISABLED, lost_since=None), [told])
    found = store.get(WANTED.id)

    assert replace(found, create_time=None, update_time=None) == replace(second, create_time=None, update_time=None)
    assert (found.version, found.lost_since, found.state) == (2, None, State.DISABLED)
    with pytest.raises(Conflict):
        store.replace(first)


def test_lists_of_subscriptions_say_whose_and_which_queue(store: WebhookStore) -> None:
    states = [State.ACTIVE, State.PAUSED, State.PENDING, State.DISABLED]
    for number, state in enumerate(states):
        store.insert(replace(WANTED, id=str(number) * 32, state=state, subscriber=f"app:{number % 2}"))

    assert [each.id[0] for each in store.page("", 3)] == ["0", "1", "2"]
    assert [each.id[0] for each in store.page("2" * 32, 3)] == ["3"]
    assert [each.id[0] for each in store.of_app("app:1")] == ["1", "3"]
    assert sorted(each.id[0] for each in store.queuing()) == ["0", "1"]


def test_what_waits_comes_in_the_order_it_is_due_and_the_same_event_once(store: WebhookStore) -> None:
    store.enqueue([delivery(2), delivery(1)])
    store.enqueue([delivery(1), delivery(3)])

    assert store.waiting(WANTED.id, 10) == 3
    assert store.waiting(WANTED.id, 2) == 2
    assert store.next_delivery(WANTED.id) == delivery(1)
    store.save(delivery(1).after(Attempt(NOW, 500, "status", 7), DeliveryState.WAITING, NOW + timedelta(hours=1)))
    assert store.next_delivery(WANTED.id) == delivery(2)
    store.save(delivery(2).settled(DeliveryState.WITHHELD))
    store.save(delivery(3).after(Attempt(NOW, 204, "delivered", 7), DeliveryState.DELIVERED, None))
    assert store.next_delivery(WANTED.id).attempts == (Attempt(NOW, 500, "status", 7),)
    assert store.waiting(WANTED.id, 10) == 1
    assert store.next_delivery("b" * 32) is None


def test_an_event_that_the_database_may_lose_again_is_not_taken_for_queued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    class Unsure:
        """Written, and not told by the majority."""

        def insert_many(self, rows: list[object], ordered: bool) -> None:
            raise BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]})

    monkeypatch.setattr(MongoWebhookStore, "_rows", Unsure())
    monkeypatch.setattr(MongoWebhookStore, "_wake", lambda *_: None)
    with pytest.raises(Unavailable):
        MongoWebhookStore(Sealer("webhooks", tmp_path)).enqueue([delivery(0)])  # type: ignore[arg-type]


def test_a_lane_has_one_holder(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    taken: list[str] = []
    holders = [f"holder{number}" for number in range(8)]

    def take(holder: str) -> None:
        if store.take(WANTED.id, holder, NOW, NOW + timedelta(seconds=45)):
            taken.append(holder)

    threads = [threading.Thread(target=take, args=(holder,)) for holder in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 1
    assert store.due_lanes(NOW + timedelta(seconds=44), 10) == []
    other = next(holder for holder in holders if holder not in taken)
    assert store.renew(WANTED.id, taken[0], NOW + timedelta(seconds=90))
    assert not store.renew(WANTED.id, other, NOW + timedelta(seconds=90))
    assert store.due_lanes(NOW + timedelta(seconds=89), 10) == []


def test_the_lane_of_a_holder_that_died_is_due_again(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    store.take(WANTED.id, "dead", NOW, NOW + timedelta(seconds=45))

    later = NOW + timedelta(seconds=46)
    assert [lane.subscription_id for lane in store.due_lanes(later, 10)] == [WANTED.id]
    assert store.take(WANTED.id, "next", later, later + timedelta(seconds=45))
    store.release(Lane(WANTED.id, 9), "dead", None)
    assert store.lane(WANTED.id).failures == 0, "who lost the lane says nothing any more"


def test_a_delivery_that_comes_during_a_turn_wakes_the_lane(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    store.take(WANTED.id, "me", NOW, NOW + timedelta(seconds=45))
    store.enqueue([delivery(5)])
    store.release(Lane(WANTED.id), "me", None)

    assert [lane.subscription_id for lane in store.due_lanes(NOW + timedelta(seconds=5), 10)] == [WANTED.id]


def test_a_lane_sleeps_until_it_is_woken(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    store.take(WANTED.id, "me", NOW, NOW + timedelta(seconds=45))
    store.release(Lane(WANTED.id), "me", None)
    assert store.due_lanes(NOW + timedelta(days=30), 10) == []
    store.enqueue([delivery(1)])
    assert len(store.due_lanes(NOW + timedelta(seconds=1), 10)) == 1


def test_a_failing_lane_rests_whatever_comes_meanwhile(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    store.take(WANTED.id, "me", NOW, NOW + timedelta(seconds=45))
    store.enqueue([delivery(1)])
    failing = Lane(WANTED.id, 3, NOW, "status 500", rests_until=NOW + timedelta(minutes=1))
    store.release(failing, "me", failing.rests_until)

    assert store.due_lanes(NOW + timedelta(seconds=59), 10) == []
    assert store.due_lanes(NOW + timedelta(seconds=60), 10) == [failing]
    assert store.lane(WANTED.id) == failing
    store.wake(WANTED.id, NOW + timedelta(seconds=2))
    assert store.due_lanes(NOW + timedelta(seconds=2), 10) == [Lane(WANTED.id)]


def test_what_comes_while_a_lane_rests_waits_for_the_end_of_its_rest(store: WebhookStore) -> None:
    rested, repeated = NOW + timedelta(minutes=1), NOW + timedelta(hours=6)
    failing = Lane(WANTED.id, 3, NOW, "status 500", rests_until=rested)
    after = NOW + timedelta(seconds=90)
    for came, wake, woken in ((30, rested, rested), (31, repeated, rested), (90, repeated, after)):
        store.wake(WANTED.id, NOW)
        store.enqueue([delivery(0)])
        store.take(WANTED.id, "me", NOW, NOW + timedelta(seconds=45))
        store.release(failing, "me", wake)
        store.enqueue([delivery(came)])

        assert store.due_lanes(woken - timedelta(seconds=1), 10) == [], (came, wake)
        assert store.due_lanes(woken, 10) == [failing], (came, wake)


def test_what_comes_in_the_turn_of_a_failing_lane_does_not_wait_for_the_next_repeat(store: WebhookStore) -> None:
    store.enqueue([delivery(0)])
    store.take(WANTED.id, "me", NOW, NOW + timedelta(seconds=45))
    store.enqueue([delivery(1)])
    store.release(Lane(WANTED.id, 3, NOW, "status 500", rests_until=NOW), "me", NOW + timedelta(hours=6))

    assert len(store.due_lanes(NOW + timedelta(seconds=1), 10)) == 1


def test_deliveries_are_listed_newest_first_in_pages(store: WebhookStore) -> None:
    store.enqueue([delivery(number) for number in range(5)])
    store.enqueue([delivery(9, "b" * 32)])
    store.save(delivery(3).settled(DeliveryState.FILTERED))

    first = store.deliveries(WANTED.id, None, None, 2)
    rest = store.deliveries(WANTED.id, None, (first[-1].create_time, first[-1].id), 9)
    assert [each.event_time.second for each in (*first, *rest)] == [4, 3, 2, 1, 0]
    assert [each.id for each in store.deliveries(WANTED.id, DeliveryState.FILTERED, None, 9)] == [delivery(3).id]


def test_what_is_settled_is_found_for_a_replay(store: WebhookStore) -> None:
    store.enqueue([delivery(number) for number in range(4)])
    for number in (0, 1, 2):
        store.save(delivery(number).settled(DeliveryState.FILTERED))

    found = store.happened(WANTED.id, NOW + timedelta(seconds=1), NOW + timedelta(seconds=4), 9)
    assert [each.id for each in found] == [delivery(1).id, delivery(2).id]
    assert store.find_deliveries(WANTED.id, [delivery(2).id, "no"]) == [found[1]]
    assert store.find_deliveries("b" * 32, [delivery(2).id]) == []


def test_what_is_about_somebody_is_forgotten_and_stays_so(store: WebhookStore) -> None:
    store.enqueue(
        [delivery(1, resource="profiles/p1"), delivery(2, resource="p1"), delivery(3, resource="profiles/p2")]
    )
    held = store.next_delivery(WANTED.id)

    assert store.forget(["profiles/p1", "p1"]) == 2
    store.save(held.after(Attempt(NOW, 500, "status", 1), DeliveryState.WAITING, NOW))
    assert [each.resource for each in store.deliveries(WANTED.id, None, None, 9)] == ["profiles/p2"]


def test_of_what_is_forgotten_the_end_is_still_told(store: WebhookStore) -> None:
    store.enqueue(
        [
            delivery(1, resource="profiles/p1"),
            replace(delivery(2, resource="profiles/p1"), event_type="profiles.profile_erased"),
        ]
    )

    assert store.forget(["profiles/p1"], ["profiles.profile_erased"]) == 1
    assert [each.event_type for each in store.deliveries(WANTED.id, None, None, 9)] == ["profiles.profile_erased"]


def test_what_is_old_or_of_an_ended_subscription_is_removed(store: WebhookStore) -> None:
    store.insert(WANTED)
    store.enqueue([delivery(0), delivery(100), delivery(7, "b" * 32)])
    assert store.purge(NOW + timedelta(seconds=5)) == 1
    store.delete(WANTED.id)

    assert store.get(WANTED.id) is None
    assert store.deliveries(WANTED.id, None, None, 9) == []
    assert len(store.deliveries("b" * 32, None, None, 9)) == 1
