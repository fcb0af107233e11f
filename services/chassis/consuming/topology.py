"""Exchanges, queues and bindings of all consumers: declared by every process that publishes or consumes.

A fact published before its queue exists would be gone, so publishers must know who listens. They read it
from the `@on_event` lines of the services' events.py: as text, for importing a consumer would bring its
engine and its store into every publisher.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from services.chassis.config import SERVICES
from services.chassis.consuming.contract import Subscription, snake_case

if TYPE_CHECKING:
    from amqp import Channel


@dataclass(frozen=True, slots=True)
class Retries:
    """The waits before the second, third … try, in milliseconds; after the last one an event is parked."""

    delays_ms: tuple[int, ...] = (200, 1_000, 5_000, 20_000)

    @property
    def tries(self) -> int:
        """How often a failing event is tried in all."""
        return len(self.delays_ms) + 1


def retry_exchange(delay_ms: int) -> str:
    """Return the exchange whose messages come back to the queue named by their routing key after the delay."""
    return f"kehu.retry.{delay_ms}"


@cache
def known_subscriptions() -> tuple[Subscription, ...]:
    """Return what all consumers of this release listen to."""
    services = Path(__file__).parent.parent.parent
    found: list[Subscription] = []
    for path in sorted(services.glob("*/events.py")):
        found += read_subscriptions(path.read_text())
    return tuple(found)


def read_subscriptions(source: str) -> Iterator[Subscription]:
    """Yield the subscriptions of the consumer classes in the text of an events.py."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            name = next(filter(None, map(_name_of, node.body)), "")
            decorators = [d for part in node.body if isinstance(part, ast.FunctionDef) for d in part.decorator_list]
            for decorator in decorators:
                wish = _wish_of(decorator)
                if wish is not None:
                    yield Subscription(name, *wish)


def _name_of(statement: ast.stmt) -> str:
    """Return the string of `name = "…"`, or nothing."""
    match statement:
        case ast.Assign(targets=[ast.Name(id="name")], value=ast.Constant(value=str(value))):
            return value
        case ast.AnnAssign(target=ast.Name(id="name"), value=ast.Constant(value=str(value))):
            return value
    return ""


def _wish_of(decorator: ast.expr) -> tuple[str, str] | None:
    """Return source and event of `on_event("source", Message)` or `on_event("source", module.Message)`."""
    match decorator:
        case ast.Call(func=ast.Name(id="on_event"), args=[ast.Constant(value=str(source)), ast.Name(id=message)]):
            return source, snake_case(message)
        case ast.Call(
            func=ast.Name(id="on_event"), args=[ast.Constant(value=str(source)), ast.Attribute(attr=message)]
        ):
            return source, snake_case(message)
    return None


def declare(channel: Channel, subscriptions: Sequence[Subscription], retries: Retries | None = None) -> None:
    """Declare everything; repeating it changes nothing.

    The retry queues are quorum queues with at-least-once dead-lettering: a plain queue could lose an event
    between expiry here and arrival there when the broker is killed.
    """
    for source in {*SERVICES, *(subscription.source for subscription in subscriptions)}:
        channel.exchange_declare(f"{source}.events", "topic", durable=True, auto_delete=False)
    for delay in (retries or Retries()).delays_ms:
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": delay,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        name = retry_exchange(delay)
        channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        channel.queue_bind(name, name, "#")
    for subscription in subscriptions:
        for queue in (subscription.queue, subscription.dead_queue):
            channel.queue_declare(queue, durable=True, auto_delete=False)
        channel.queue_bind(subscription.queue, subscription.exchange, subscription.event)
