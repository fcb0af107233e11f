"""The gRPC face of webhooks: an app manages its own subscriptions; a person reads, pauses and ends those in reach."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import orjson
from google.protobuf.empty_pb2 import Empty
from kehu.webhooks.v1 import webhooks_pb2 as pb
from kehu.webhooks.v1 import webhooks_pb2_grpc

from services.chassis import paging, records
from services.chassis.access import Obligations, in_reach
from services.chassis.crypto import Sealer
from services.chassis.server import current_call, validate
from services.webhooks.delivering import secrets_of
from services.webhooks.domain import signing
from services.webhooks.domain.catalogue import catalogue
from services.webhooks.domain.errors import (
    AppsOnly,
    FilterFieldHidden,
    ReplayInvalid,
    SubscriptionInvalid,
    SubscriptionNotFound,
    SubscriptionState,
    TargetNotProven,
    TooManySubscriptions,
)
from services.webhooks.domain.subscriptions import SUBSCRIPTIONS_PER_APP, Secret, State, Subscription
from services.webhooks.domain.targets import read_target
from services.webhooks.queueing import now_in_milliseconds
from services.webhooks.sender import DELIVERED, Sender
from services.webhooks.store import WebhookStore
from services.webhooks.wire import (
    BY_STATE,
    criteria_of,
    delivery_message,
    event_type_message,
    id_of,
    subscription_message,
)

CHANGEABLE = ("display_name", "target_url", "event_types", "fields", "filter")
CHALLENGE = "webhooks.challenge"
REPLAYED = 5000  # at once


class WebhooksServicer(webhooks_pb2_grpc.WebhooksServiceServicer):
    """Serves kehu.webhooks.v1.WebhooksService."""

    def __init__(
        self, store: WebhookStore, sender: Sender, sealer: Sealer, clock: Callable[[], datetime] = now_in_milliseconds
    ) -> None:
        """`sealer` seals the secrets."""
        self._store, self._sender, self._sealer, self._now = store, sender, sealer, clock

    def ListWebhookEventTypes(
        self, request: pb.ListWebhookEventTypesRequest, context: grpc.ServicerContext
    ) -> pb.ListWebhookEventTypesResponse:
        """Return what may be subscribed to."""
        return pb.ListWebhookEventTypesResponse(event_types=map(event_type_message, catalogue().values()))

    def CreateWebhookSubscription(
        self, request: pb.CreateWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Subscribe the calling app; show the secret once."""
        caller = current_call().caller
        if caller.kind != "app":
            raise AppsOnly
        if len(self._store.of_app(caller.subject)) >= SUBSCRIPTIONS_PER_APP:
            raise TooManySubscriptions(SUBSCRIPTIONS_PER_APP)
        secret, subscription_id = signing.new_secret(), uuid.uuid4().hex
        new = Subscription(
            id=subscription_id, subscriber=caller.subject, department=caller.department, purpose=caller.purpose,
            target_url="", event_types=(), secrets=(self._sealed(secret, subscription_id),),
        )  # fmt: skip
        stored = self._store.insert(self._changed(new, request.webhook_subscription))
        return self._reply(stored, secret)

    def GetWebhookSubscription(
        self, request: pb.GetWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Return a subscription."""
        return self._reply(self._visible(request.name))

    def ListWebhookSubscriptions(
        self, request: pb.ListWebhookSubscriptionsRequest, context: grpc.ServicerContext
    ) -> pb.ListWebhookSubscriptionsResponse:
        """Return a page of the caller's."""
        size, shape = paging.page_size_of(request.page_size), paging.filter_hash("webhookSubscriptions")
        after = str(paging.decode_token(request.page_token, shape).get("after") or "")
        found: list[Subscription] = []
        while len(found) <= size and (part := self._store.page(after, paging.MAX_PAGE_SIZE)):
            found += filter(_in_reach, part)
            after = part[-1].id
        reply = pb.ListWebhookSubscriptionsResponse(webhook_subscriptions=map(self._reply, found[:size]))
        if len(found) > size:
            reply.next_page_token = paging.encode_token({"after": found[size - 1].id}, shape)
        return reply

    def UpdateWebhookSubscription(
        self, request: pb.UpdateWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Change what is sent and where."""
        given = request.webhook_subscription
        known = self._own(given.name)
        if current_call().caller.purpose != known.purpose:
            raise SubscriptionInvalid("purpose", f"send X-Purpose: {known.purpose}, the subscription's own")
        fields = records.fields_to_change(request.update_mask, given, CHANGEABLE)
        message = records.updated(self._reply(known), given, fields)
        validate(message)
        with records.unchanged_since(given.etag, known.version, given.name):
            return self._reply(self._store.replace(self._changed(known, message)))

    def DeleteWebhookSubscription(
        self, request: pb.DeleteWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> Empty:
        """End a subscription."""
        known = self._visible(request.name)
        with records.unchanged_since(request.etag, known.version, request.name):
            self._store.delete(known.id)
        return Empty()

    def ActivateWebhookSubscription(
        self, request: pb.ActivateWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Challenge the target, and begin."""
        known, now = self._own(request.name), self._now()
        challenge = base64.urlsafe_b64encode(os.urandom(24)).decode()
        body = orjson.dumps({"type": CHALLENGE, "challenge": challenge})
        message_id = uuid.uuid4().hex
        secrets = secrets_of(known, self._sealer, now)
        headers = signing.signed_headers(secrets, message_id, int(now.timestamp()), body)
        outcome = self._sender.send(known.target_url, body, headers, read=True)
        if outcome.kind != DELIVERED or not _echoes(outcome.body, challenge):
            raise TargetNotProven(outcome.kind if outcome.kind != DELIVERED else "no echo", outcome.status)
        with records.unchanged_since("", known.version, request.name):
            stored = self._store.replace(replace(known, state=State.ACTIVE, reason="", lost_since=None))
        self._store.wake(known.id, now)
        return self._reply(stored)

    def PauseWebhookSubscription(
        self, request: pb.PauseWebhookSubscriptionRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Stop deliveries."""
        known = self._visible(request.name)
        if known.state is State.PAUSED:
            return self._reply(known)
        if known.state is not State.ACTIVE:
            raise SubscriptionState(known.state.value, "only an active subscription is paused: nothing is sent now")
        with records.unchanged_since("", known.version, request.name):
            return self._reply(self._store.replace(replace(known, state=State.PAUSED)))

    def RenewWebhookSecret(
        self, request: pb.RenewWebhookSecretRequest, context: grpc.ServicerContext
    ) -> pb.WebhookSubscription:
        """Make a new secret; the former signs beside it for a day."""
        known, secret = self._own(request.name), signing.new_secret()
        renewed = known.renewed(self._sealed(secret, known.id).sealed, self._now())
        with records.unchanged_since("", known.version, request.name):
            return self._reply(self._store.replace(renewed), secret)

    def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: grpc.ServicerContext
    ) -> pb.ListWebhookDeliveriesResponse:
        """Return a page of deliveries."""
        known, size = self._visible(request.parent), paging.page_size_of(request.page_size)
        shape = paging.filter_hash("webhookDeliveries", known.id, request.state)
        before = paging.decode_seen(request.page_token, shape)
        found = self._store.deliveries(known.id, BY_STATE.get(request.state), before, size + 1)
        reply = pb.ListWebhookDeliveriesResponse(deliveries=map(delivery_message, found[:size]))
        if len(found) > size:
            last = found[size - 1]
            reply.next_page_token = paging.encode_seen((last.create_time, last.id), shape)
        return reply

    def ReplayWebhookDeliveries(
        self, request: pb.ReplayWebhookDeliveriesRequest, context: grpc.ServicerContext
    ) -> pb.ReplayWebhookDeliveriesResponse:
        """Have deliveries sent again."""
        known, now = self._own(request.parent), self._now()
        if known.state not in (State.ACTIVE, State.PAUSED):
            raise SubscriptionState(known.state.value, "activate the subscription first")
        if request.delivery_ids:
            found = self._store.find_deliveries(known.id, request.delivery_ids)
        elif request.HasField("start_time") and request.HasField("end_time"):
            start, end = request.start_time.ToDatetime(UTC), request.end_time.ToDatetime(UTC)
            if end <= start:
                raise ReplayInvalid
            found = self._store.happened(known.id, start, end, REPLAYED)
        else:
            raise ReplayInvalid
        for delivery in found:
            self._store.save(delivery.again(now))
        self._store.wake(known.id, now)
        return pb.ReplayWebhookDeliveriesResponse(replayed_count=len(found))

    def _changed(self, known: Subscription, message: pb.WebhookSubscription) -> Subscription:
        """Return a subscription as the message has it, checked against the rights of the call."""
        target = message.target_url
        if target != known.target_url:
            read_target(target, self._sender.dev_hosts)
        changed = replace(
            known, display_name=message.display_name, target_url=target, event_types=tuple(message.event_types),
            fields=tuple(message.fields), criteria=criteria_of(message),
            state=known.state if target == known.target_url else State.PENDING,
        )  # fmt: skip
        _check_words(changed, current_call().decision.obligations)
        return changed

    def _sealed(self, secret: str, subscription_id: str) -> Secret:
        return Secret(self._sealer.seal(secret.encode(), subscription_id.encode()))

    def _reply(self, subscription: Subscription, secret: str = "") -> pb.WebhookSubscription:
        return subscription_message(subscription, self._store.lane(subscription.id), secret)

    def _visible(self, name: str) -> Subscription:
        found = self._store.get(id_of(name))
        if found is None or not _in_reach(found):
            raise SubscriptionNotFound(name)
        return found

    def _own(self, name: str) -> Subscription:
        found = self._visible(name)
        if current_call().caller.kind != "app":
            raise AppsOnly
        return found


def _in_reach(subscription: Subscription) -> bool:
    """Tell whether the caller reaches a subscription: an app its own only, whatever the policy says."""
    call = current_call()
    if call.caller.kind == "app" and call.caller.subject != subscription.subscriber:
        return False
    return in_reach(call.decision.obligations.row_filter, subscription.value_of)


def _check_words(subscription: Subscription, rights: Obligations) -> None:
    """Refuse what names nothing, and conditions over what the caller may not see.

    Raises:
        SubscriptionInvalid, FilterFieldHidden: naming it.
    """
    for position, name in enumerate(subscription.event_types):
        if name not in catalogue():
            raise SubscriptionInvalid(f"event_types[{position}]", "no event has this name: list /v1/webhookEventTypes")
    events = [catalogue()[name] for name in subscription.event_types]
    for position, field in enumerate(subscription.fields):
        if not any(field in event.fields for event in events):
            raise SubscriptionInvalid(f"fields[{position}]", "no event of the subscription carries this field")
    for position, condition in enumerate(subscription.criteria):
        able = [event for event in events if condition.field in event.filter_fields]
        if len(able) < len(events):
            raise SubscriptionInvalid(
                f"filter[{position}].field", "not all events of the subscription have this field to compare"
            )
        if not all(event.shows(condition.field, rights) for event in able):
            raise FilterFieldHidden(condition.field)


def _echoes(body: bytes, challenge: str) -> bool:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("challenge") == challenge
