"""The operator's side of parked events: list them without their content, put them back into their queue."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import amqp

from services.chassis.consuming.contract import BODY_LIMIT, Subscription
from services.chassis.consuming.delivery import ATTEMPT, ERROR, PARKED_AT
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing, connect
from services.chassis.consuming.topology import known_subscriptions


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parked event: where, what and why; its data stays in the queue."""

    queue: str
    event_id: str
    type: str
    subject: str
    error: str
    attempts: int
    parked_at: str


def list_dead(amqp_uri: str, subscriptions: Sequence[Subscription] | None = None, limit: int = 100) -> list[DeadLetter]:
    """Return parked events, at most `limit` of each queue, oldest first; they stay parked, in their order.

    Raises:
        OSError: the broker does not answer.
    """
    found: list[DeadLetter] = []
    for subscription in _all(subscriptions):
        with _channel(amqp_uri, subscription) as channel:
            for _ in range(limit):
                message = channel.basic_get(subscription.dead_queue)
                if message is None:
                    break
                found.append(_describe(subscription, message))
    return found


def replay(
    amqp_uri: str,
    choose: Callable[[DeadLetter], bool] = lambda letter: True,
    subscriptions: Sequence[Subscription] | None = None,
) -> int:
    """Put the chosen parked events back, with all their tries; return how many.

    Each leaves the dead queue only when the broker has confirmed its copy.

    Raises:
        OSError: the broker went away; what was put back and not yet removed is handled twice, which is harmless.
    """
    publisher = ConfirmingPublisher(amqp_uri, subscriptions)
    with contextlib.closing(publisher):
        return sum(_replay_queue(amqp_uri, each, choose, publisher) for each in _all(subscriptions))


def _replay_queue(
    amqp_uri: str, subscription: Subscription, choose: Callable[[DeadLetter], bool], publisher: ConfirmingPublisher
) -> int:
    """Look once at each that is parked now: what nobody can handle is parked again behind them, at once."""
    count = 0
    with _channel(amqp_uri, subscription) as channel:
        for _ in range(channel.queue_declare(subscription.dead_queue, passive=True).message_count):
            message = channel.basic_get(subscription.dead_queue)
            if message is None:
                break
            if not choose(_describe(subscription, message)):
                continue  # goes back to its place when the channel closes
            if publisher.publish([Outgoing("", subscription.queue, _bytes(message))]).all_routed:
                channel.basic_ack(message.delivery_tag)
                count += 1
    return count


def _all(subscriptions: Sequence[Subscription] | None) -> Sequence[Subscription]:
    return known_subscriptions() if subscriptions is None else subscriptions


@contextlib.contextmanager
def _channel(amqp_uri: str, subscription: Subscription) -> Iterator[amqp.Channel]:
    """Open a channel on a connection of its own: closing it returns every message that was not acknowledged."""
    connection = connect(amqp_uri)
    try:
        channel = connection.channel()
        channel.queue_declare(subscription.dead_queue, durable=True, auto_delete=False)
        yield channel
    finally:
        connection.close()


def _bytes(message: amqp.Message) -> bytes:
    return message.body.encode() if isinstance(message.body, str) else bytes(message.body)


def _describe(subscription: Subscription, message: amqp.Message) -> DeadLetter:
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    envelope = _envelope(_bytes(message))
    return DeadLetter(
        queue=subscription.queue,
        event_id=str(envelope.get("id", "")),
        type=str(envelope.get("type", "")),
        subject=str(envelope.get("subject", "")),
        error=str(headers.get(ERROR, "")),
        attempts=int(headers.get(ATTEMPT, 0)),
        parked_at=str(headers.get(PARKED_AT, "")),
    )


def _envelope(body: bytes) -> Mapping[str, object]:
    """Return the envelope if there is a readable one; parked bodies may be anything."""
    if len(body) > BODY_LIMIT:
        return {}
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return envelope if isinstance(envelope, Mapping) else {}
