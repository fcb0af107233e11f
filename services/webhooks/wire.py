"""Subscriptions and deliveries as messages."""

from __future__ import annotations

from kehu.webhooks.v1 import webhooks_pb2 as pb

from services.chassis.access import Condition
from services.chassis.records import etag_of
from services.chassis.times import timestamp
from services.webhooks.domain.catalogue import EventType
from services.webhooks.domain.subscriptions import Delivery, DeliveryState, Lane, State, Subscription

PREFIX = "webhookSubscriptions/"
STATES = {
    State.PENDING: pb.WEBHOOK_STATE_PENDING,
    State.ACTIVE: pb.WEBHOOK_STATE_ACTIVE,
    State.PAUSED: pb.WEBHOOK_STATE_PAUSED,
    State.DISABLED: pb.WEBHOOK_STATE_DISABLED,
}
DELIVERY_STATES = {
    DeliveryState.WAITING: pb.WEBHOOK_DELIVERY_STATE_WAITING,
    DeliveryState.DELIVERED: pb.WEBHOOK_DELIVERY_STATE_DELIVERED,
    DeliveryState.FAILED: pb.WEBHOOK_DELIVERY_STATE_FAILED,
    DeliveryState.WITHHELD: pb.WEBHOOK_DELIVERY_STATE_WITHHELD,
    DeliveryState.FILTERED: pb.WEBHOOK_DELIVERY_STATE_FILTERED,
}
BY_STATE = {number: state for state, number in DELIVERY_STATES.items()}


def id_of(name: str) -> str:
    """Return the id in a subscription's name."""
    return name.removeprefix(PREFIX)


def criteria_of(message: pb.WebhookSubscription) -> tuple[Condition, ...]:
    """Return the conditions of a filter."""
    return tuple(Condition(each.field, tuple(each.values)) for each in message.filter)


def subscription_message(found: Subscription, lane: Lane, secret: str = "") -> pb.WebhookSubscription:
    """Return a subscription; `secret` in the reply to its making only."""
    failing = found.state is State.ACTIVE and lane.failures > 0
    message = pb.WebhookSubscription(
        name=PREFIX + found.id, display_name=found.display_name, subscriber=found.subscriber,
        owner_department=found.department, purpose=found.purpose, target_url=found.target_url,
        event_types=found.event_types, fields=found.fields,
        filter=[pb.WebhookCriterion(field=each.field, values=each.values) for each in found.criteria],
        state=pb.WEBHOOK_STATE_FAILING if failing else STATES[found.state],
        state_reason=lane.outcome if failing else found.reason,
        failing_since=timestamp(lane.failing_since) if failing else None, secret=secret,
        former_secret_end_time=timestamp(found.secrets[1].end_time if len(found.secrets) > 1 else None),
        lost_since=timestamp(found.lost_since), create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time), etag=etag_of(found.version),
    )  # fmt: skip
    return message


def delivery_message(found: Delivery) -> pb.WebhookDelivery:
    """Return a delivery."""
    return pb.WebhookDelivery(
        name=f"{PREFIX}{found.subscription_id}/deliveries/{found.id}", event_type=found.event_type,
        resource=found.resource, event_time=timestamp(found.event_time), state=DELIVERY_STATES[found.state],
        attempts=[
            pb.WebhookAttempt(
                time=timestamp(each.time), status=each.status, outcome=each.outcome, milliseconds=each.milliseconds
            )
            for each in found.attempts
        ],
        attempt_count=found.attempt_count, next_attempt_time=timestamp(found.due),
    )  # fmt: skip


def event_type_message(event: EventType) -> pb.WebhookEventType:
    """Return an event that may be subscribed to."""
    right = f"{event.plan.resource}/{event.plan.action}"
    fields, comparable = sorted(event.fields), sorted(event.filter_fields)
    return pb.WebhookEventType(event_type=event.name, right=right, fields=fields, filter_fields=comparable)
