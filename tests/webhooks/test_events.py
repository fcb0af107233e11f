"""What the consumer hears: exactly what the protos offer."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

from kehu.profiles.v1 import events_pb2 as profiles

from services.chassis.consuming import Event
from services.chassis.consuming.contract import handlers
from services.chassis.consuming.topology import read_subscriptions
from services.webhooks import events
from services.webhooks.domain.catalogue import catalogue, event_type_name
from services.webhooks.domain.subscriptions import Secret, State, Subscription
from services.webhooks.events import WebhooksConsumer
from services.webhooks.queueing import Queue
from services.webhooks.store import MemoryWebhookStore

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def consumer(*kinds: str) -> tuple[WebhooksConsumer, MemoryWebhookStore]:
    store = MemoryWebhookStore()
    for number, kind in enumerate(kinds):
        store.insert(
            Subscription(f"{number:032d}", "app:a", "sales", "sales", "", (kind,), (Secret(b""),), state=State.ACTIVE)
        )
    return WebhooksConsumer(Queue(store, known_seconds=0.0)), store


def told(message: object, event_id: str = "e1") -> Event:
    return Event(event_id, "profiles/p1", NOW, 1, message)


def test_every_event_that_says_subscribable_is_heard_and_no_other_is_offered() -> None:
    heard = {
        event_type_name(kind.DESCRIPTOR) for kind, _ in handlers(WebhooksConsumer.__new__(WebhooksConsumer)).values()
    }

    assert heard == set(catalogue())


def test_publishers_know_of_the_queues() -> None:
    text = Path(events.__file__).read_text()

    assert len(list(read_subscriptions(text))) == len(catalogue())
    assert ast.parse(text)


def test_an_event_waits_once_for_each_that_wants_it_and_nothing_of_it_is_kept() -> None:
    heard, store = consumer("profiles.profile_changed", "tickets.ticket_changed", "profiles.profile_changed")
    message = profiles.ProfileChanged(profile_id="p1", gender="female", sealed_identity=b"sealed words", tier="gold")
    for _ in range(3):
        heard.on_profile_changed(told(message))

    found = [store.deliveries(f"{number:032d}", None, None, 9) for number in range(3)]
    assert [len(each) for each in found] == [1, 0, 1]
    assert found[0][0].resource == "profiles/p1"
    assert not any(word in repr(store._deliveries) for word in ("female", "gold", "sealed words"))


def test_an_erasure_forgets_all_ids_of_the_person() -> None:
    heard, store = consumer("profiles.profile_changed", "consent.consent_changed")
    heard.on_profile_changed(told(profiles.ProfileChanged(profile_id="p1"), "e1"))
    heard.on_profile_changed(told(profiles.ProfileChanged(profile_id="p2"), "e2"))
    heard.on_profile_changed(told(profiles.ProfileChanged(profile_id="p3"), "e3"))
    heard.on_profile_erased(told(profiles.ProfileErased(profile_id="p1", names=["p1", "p2"]), "e4"))

    assert [each.resource for each in store.deliveries(f"{0:032d}", None, None, 9)] == ["profiles/p3"]


def test_an_erasure_is_told_once_for_each_id_of_the_person_and_nothing_else_of_them_is_left() -> None:
    heard, store = consumer("profiles.profile_changed", "profiles.profile_erased")
    heard.on_profile_changed(told(profiles.ProfileChanged(profile_id="p1"), "e1"))
    for _ in range(2):
        heard.on_profile_erased(told(profiles.ProfileErased(profile_id="p1", names=["p1", "p2"]), "e2"))
        heard.on_profile_erased(told(profiles.ProfileErased(profile_id="p2", names=["p1", "p2"]), "e3"))

    assert not store.deliveries(f"{0:032d}", None, None, 9)
    assert sorted(each.resource for each in store.deliveries(f"{1:032d}", None, None, 9)) == [
        "profiles/p1", "profiles/p2"
    ]  # fmt: skip
