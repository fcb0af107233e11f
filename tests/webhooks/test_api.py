"""The webhooks service over gRPC behind the real guard: an app's own subscriptions, proven targets, rotated secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.client.webhooks import SignatureWrong, verify_webhook
from kehu.webhooks.v1 import webhooks_pb2 as pb
from kehu.webhooks.v1 import webhooks_pb2_grpc

from services.chassis.access import Condition, Obligations
from services.chassis.crypto import Sealer
from services.chassis.server import Serving
from services.webhooks.api import WebhooksServicer
from services.webhooks.domain.subscriptions import DeliveryState, State, delivery_of
from services.webhooks.sender import Sender
from services.webhooks.store import MemoryWebhookStore
from tests.harness import OpenPolicy, bad_fields, refused, running
from tests.webhooks.receivers import Receiver, receiving

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SELLER = Obligations(shown=frozenset({"personal/name"}), masked=frozenset({"personal/birth"}))


@dataclass
class World:
    """A running service, its store and a receiver."""

    harness: object
    store: MemoryWebhookStore
    receiver: Receiver
    policy: OpenPolicy
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def call(self, method: str, request: object, caller: str = "app:till@sales", purpose: str = "sales") -> object:
        stub = self.harness.stub(webhooks_pb2_grpc.WebhooksServiceStub, caller=caller, purpose=purpose)
        return getattr(stub, method)(request, timeout=5)

    def create(self, caller: str = "app:till@sales", purpose: str = "sales", **fields: object) -> object:
        given = {"target_url": self.receiver.url, "event_types": ["profiles.profile_changed"], **fields}
        request = pb.CreateWebhookSubscriptionRequest(webhook_subscription=pb.WebhookSubscription(**given))
        return self.call("CreateWebhookSubscription", request, caller, purpose)

    def activate(self, name: str, **how: str) -> object:
        return self.call("ActivateWebhookSubscription", pb.ActivateWebhookSubscriptionRequest(name=name), **how)

    def get(self, name: str, **how: str) -> object:
        return self.call("GetWebhookSubscription", pb.GetWebhookSubscriptionRequest(name=name), **how)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store, policy = MemoryWebhookStore(), OpenPolicy(SELLER)
    servicer = WebhooksServicer(store, Sender(["127.0.0.1"]), Sealer("webhooks", tmp_path))
    serving = Serving("webhooks", [(webhooks_pb2_grpc.add_WebhooksServiceServicer_to_server, servicer)])
    with running(serving, policy) as harness, receiving() as receiver:
        yield World(harness, store, receiver, policy)


def test_an_app_subscribes_and_the_secret_is_shown_once(world: World) -> None:
    made = world.create(fields=["tier", "display_name"])

    assert made.secret.startswith("whsec_")
    assert (made.subscriber, made.owner_department, made.purpose) == ("app:till", "sales", "sales")
    assert made.state == pb.WEBHOOK_STATE_PENDING
    listed = world.call("ListWebhookSubscriptions", pb.ListWebhookSubscriptionsRequest()).webhook_subscriptions
    assert [each.secret for each in (world.get(made.name), *listed)] == ["", ""]
    assert made.secret not in repr(world.store._subscriptions)


def test_nothing_begins_before_the_target_has_echoed_a_signed_challenge(world: World) -> None:
    made = world.create()
    world.receiver.echoes = False
    reason = refused(lambda: world.activate(made.name))
    assert (reason.reason, dict(reason.metadata)) == ("TARGET_NOT_PROVEN", {"outcome": "no echo", "status": "200"})
    assert world.get(made.name).state == pb.WEBHOOK_STATE_PENDING

    world.receiver.echoes = True
    assert world.activate(made.name).state == pb.WEBHOOK_STATE_ACTIVE


def test_a_challenge_is_signed_with_the_subscriptions_secret(world: World) -> None:
    kept = []
    world.receiver.reply = lambda got: (kept.append(got), (500, {}, b""))[1]
    made, other = world.create(), world.create()
    refused(lambda: world.activate(made.name))

    assert verify_webhook(made.secret, kept[0].headers, kept[0].body)["type"] == "webhooks.challenge"
    with pytest.raises(SignatureWrong):
        verify_webhook(other.secret, kept[0].headers, kept[0].body)


def test_another_target_must_prove_itself_again(world: World) -> None:
    made = world.create()
    world.activate(made.name)
    change = pb.WebhookSubscription(name=made.name, target_url=world.receiver.url + "/other")
    changed = world.call("UpdateWebhookSubscription", pb.UpdateWebhookSubscriptionRequest(webhook_subscription=change))

    assert changed.state == pb.WEBHOOK_STATE_PENDING


def test_what_else_changes_keeps_the_state_and_clears_by_mask(world: World) -> None:
    made = world.create(fields=["tier"], filter=[pb.WebhookCriterion(field="tier", values=["gold"])])
    world.activate(made.name)
    mask = FieldMask(paths=["display_name", "fields", "filter"])
    change = pb.WebhookSubscription(name=made.name, display_name="till 4")
    changed = world.call(
        "UpdateWebhookSubscription",
        pb.UpdateWebhookSubscriptionRequest(webhook_subscription=change, update_mask=mask),
    )

    assert (changed.state, changed.display_name) == (pb.WEBHOOK_STATE_ACTIVE, "till 4")
    assert (list(changed.fields), list(changed.filter)) == ([], [])
    wrong = pb.UpdateWebhookSubscriptionRequest(webhook_subscription=change, update_mask=FieldMask(paths=["secret"]))
    assert refused(lambda: world.call("UpdateWebhookSubscription", wrong)).reason == "FIELD_NOT_CHANGEABLE"
    other = pb.UpdateWebhookSubscriptionRequest(webhook_subscription=change, update_mask=mask)
    reason = refused(lambda: world.call("UpdateWebhookSubscription", other, purpose="marketing"))
    assert reason.reason == "SUBSCRIPTION_INVALID", "the rights of one purpose do not shape another's subscription"


@pytest.mark.parametrize("url", ["https://localhost/", "https://10.0.0.1/", "http://hooks.example.com/"])
def test_a_target_inside_is_refused_at_once(world: World, url: str) -> None:
    assert bad_fields(lambda: world.create(target_url=url)) == ["webhook_subscription.target_url"]
    made = world.create()
    change = pb.UpdateWebhookSubscriptionRequest(
        webhook_subscription=pb.WebhookSubscription(name=made.name, target_url=url)
    )
    assert refused(lambda: world.call("UpdateWebhookSubscription", change)).reason == "TARGET_REFUSED"


def test_a_filter_over_a_field_the_app_may_not_see_is_refused(world: World) -> None:
    """Which events match would tell the value: masked is not enough."""
    for hidden in ("gender", "resident_id", "birth_date"):
        criterion = pb.WebhookCriterion(field=hidden, values=["female"])
        assert refused(lambda each=criterion: world.create(filter=[each])).reason == "FILTER_FIELD_HIDDEN"
    assert world.create(filter=[pb.WebhookCriterion(field="display_name", values=["王芳"])]).name


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"event_types": ["profiles.profile_sold"]}, "event_types[0]"),
        ({"event_types": ["profiles.profiles_merged"]}, "event_types[0]"),
        (
            {"event_types": ["profiles.profile_erased"], "filter": [{"field": "tier", "values": ["gold"]}]},
            "filter[0].field",
        ),
        ({"fields": ["tier", "shoe_size"]}, "fields[1]"),
        ({"filter": [{"field": "shoe_size", "values": ["1"]}]}, "filter[0].field"),
        ({"filter": [{"field": "phones", "values": ["1"]}]}, "filter[0].field"),
        (
            {"event_types": ["profiles.profile_changed", "tickets.ticket_changed"],
             "filter": [{"field": "tier", "values": ["1"]}]},
            "filter[0].field",
        ),
    ],
)  # fmt: skip
def test_words_that_mean_nothing_are_refused_by_name(world: World, fields: dict, bad: str) -> None:
    assert bad_fields(lambda: world.create(**fields)) == [f"webhook_subscription.{bad}"]


def test_an_app_reaches_its_own_subscriptions_only_whatever_the_policy_says(world: World) -> None:
    made = world.create()
    eve = {"caller": "app:eve@sales"}
    for act in (world.get, world.activate):
        assert refused(lambda act=act: act(made.name, **eve)).reason == "SUBSCRIPTION_NOT_FOUND"
    for method, request in (
        ("PauseWebhookSubscription", pb.PauseWebhookSubscriptionRequest(name=made.name)),
        ("RenewWebhookSecret", pb.RenewWebhookSecretRequest(name=made.name)),
        ("DeleteWebhookSubscription", pb.DeleteWebhookSubscriptionRequest(name=made.name)),
        ("ListWebhookDeliveries", pb.ListWebhookDeliveriesRequest(parent=made.name)),
        ("ReplayWebhookDeliveries", pb.ReplayWebhookDeliveriesRequest(parent=made.name, delivery_ids=["a" * 32])),
    ):
        assert refused(lambda m=method, r=request: world.call(m, r, **eve)).reason == "SUBSCRIPTION_NOT_FOUND"
    assert not world.call("ListWebhookSubscriptions", pb.ListWebhookSubscriptionsRequest(), **eve).webhook_subscriptions


def test_a_person_pauses_and_ends_but_neither_subscribes_nor_learns_a_secret(world: World) -> None:
    root = {"caller": "user:root@administration"}
    assert refused(lambda: world.create(caller="user:root@administration")).reason == "APPS_ONLY"
    made = world.create()
    world.activate(made.name)
    renew = pb.RenewWebhookSecretRequest(name=made.name)
    assert refused(lambda: world.call("RenewWebhookSecret", renew, **root)).reason == "APPS_ONLY"
    assert refused(lambda: world.activate(made.name, **root)).reason == "APPS_ONLY"
    paused = world.call("PauseWebhookSubscription", pb.PauseWebhookSubscriptionRequest(name=made.name), **root)
    assert paused.state == pb.WEBHOOK_STATE_PAUSED
    world.call("DeleteWebhookSubscription", pb.DeleteWebhookSubscriptionRequest(name=made.name), **root)
    assert refused(lambda: world.get(made.name)).reason == "SUBSCRIPTION_NOT_FOUND"


def test_a_person_sees_the_subscriptions_in_its_rows(world: World) -> None:
    world.create()
    world.create(caller="app:desk@service")
    world.policy.obligations = replace(SELLER, row_filter=(Condition("owner_department", ("sales",)),))
    found = world.call("ListWebhookSubscriptions", pb.ListWebhookSubscriptionsRequest(), caller="user:lee@sales")

    assert [each.subscriber for each in found.webhook_subscriptions] == ["app:till"]


def test_lists_go_on_where_a_page_ended(world: World) -> None:
    made = sorted(world.create().name for _ in range(3))
    first = world.call("ListWebhookSubscriptions", pb.ListWebhookSubscriptionsRequest(page_size=2))
    second = world.call(
        "ListWebhookSubscriptions",
        pb.ListWebhookSubscriptionsRequest(page_size=2, page_token=first.next_page_token),
    )

    assert [e.name for e in (*first.webhook_subscriptions, *second.webhook_subscriptions)] == made
    assert second.next_page_token == ""


def test_an_app_has_a_bounded_number_of_subscriptions(world: World) -> None:
    for _ in range(20):
        world.create()

    assert refused(world.create).reason == "TOO_MANY_SUBSCRIPTIONS"


def test_a_renewed_secret_signs_beside_the_former_one(world: World) -> None:
    made = world.create()
    renewed = world.call("RenewWebhookSecret", pb.RenewWebhookSecretRequest(name=made.name))
    kept = []
    world.receiver.reply = lambda got: (kept.append(got), (500, {}, b""))[1]
    refused(lambda: world.activate(made.name))

    assert renewed.secret not in ("", made.secret)
    assert renewed.former_secret_end_time.ToDatetime(UTC) - datetime.now(UTC) > timedelta(hours=23)
    for secret in (made.secret, renewed.secret):
        assert verify_webhook(secret, kept[0].headers, kept[0].body)


def queued(world: World, name: str, count: int) -> list[str]:
    found = [
        delivery_of(name.split("/")[1], f"e{number}", "profiles.profile_changed", "profiles/p1",
                    NOW + timedelta(minutes=number), NOW + timedelta(minutes=number))
        for number in range(count)
    ]  # fmt: skip
    world.store.enqueue(found)
    for each in found:
        world.store.save(each.settled(DeliveryState.DELIVERED))
    return [each.id for each in found]


def a_time(minutes: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(NOW + timedelta(minutes=minutes))
    return stamp


def test_deliveries_are_replayed_by_id_and_by_time_under_their_ids(world: World) -> None:
    made = world.create()
    ids = queued(world, made.name, 5)
    replay = pb.ReplayWebhookDeliveriesRequest(parent=made.name, delivery_ids=[ids[0], "f" * 32])
    assert refused(lambda: world.call("ReplayWebhookDeliveries", replay)).reason == "SUBSCRIPTION_STATE"
    world.activate(made.name)
    assert world.call("ReplayWebhookDeliveries", replay).replayed_count == 1
    timed = pb.ReplayWebhookDeliveriesRequest(parent=made.name, start_time=a_time(1), end_time=a_time(3))
    assert world.call("ReplayWebhookDeliveries", timed).replayed_count == 2

    listing = pb.ListWebhookDeliveriesRequest(parent=made.name, state=pb.WEBHOOK_DELIVERY_STATE_WAITING)
    waiting = world.call("ListWebhookDeliveries", listing).deliveries
    assert {each.name.rpartition("/")[2] for each in waiting} == set(ids[:3])


@pytest.mark.parametrize("times", [{}, {"start_time": a_time(0)}, {"start_time": a_time(1), "end_time": a_time(1)}])
def test_a_replay_names_what(world: World, times: dict) -> None:
    made = world.create()
    world.activate(made.name)
    request = pb.ReplayWebhookDeliveriesRequest(parent=made.name, **times)

    assert refused(lambda: world.call("ReplayWebhookDeliveries", request)).reason == "REPLAY_INVALID"


def test_deliveries_are_listed_in_pages(world: World) -> None:
    made = world.create()
    ids = queued(world, made.name, 5)
    token, found = "", []
    for _ in range(3):
        request = pb.ListWebhookDeliveriesRequest(parent=made.name, page_size=2, page_token=token)
        page = world.call("ListWebhookDeliveries", request)
        found += [each.name.rpartition("/")[2] for each in page.deliveries]
        token = page.next_page_token

    assert (found, token) == (ids[::-1], "")


def test_the_events_are_listed_from_the_protos(world: World) -> None:
    found = world.call("ListWebhookEventTypes", pb.ListWebhookEventTypesRequest()).event_types
    by_name = {each.event_type: each for each in found}

    assert by_name["profiles.profile_changed"].right == "profiles/read"
    assert {"tier", "phones"} <= set(by_name["profiles.profile_changed"].fields)
    assert "phones" not in by_name["profiles.profile_changed"].filter_fields


def test_only_an_active_subscription_is_paused(world: World) -> None:
    made = world.create()
    pause = pb.PauseWebhookSubscriptionRequest(name=made.name)
    assert refused(lambda: world.call("PauseWebhookSubscription", pause)).reason == "SUBSCRIPTION_STATE"
    world.activate(made.name)
    world.call("PauseWebhookSubscription", pause)
    assert world.call("PauseWebhookSubscription", pause).state == pb.WEBHOOK_STATE_PAUSED
    assert world.store.get(made.name.split("/")[1]).state is State.PAUSED
