"""Publish to the broker with confirms: persistent, mandatory messages, many on the way at once."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import amqp

from services.chassis.consuming.contract import CONTENT_TYPE, Subscription
from services.chassis.consuming.topology import Retries, declare, known_subscriptions

CONFIRM_SECONDS = 10.0
PERSISTENT = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for the broker."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """Which of the published messages, by index, the broker keeps, and which it found no queue for."""

    confirmed: frozenset[int]
    unroutable: frozenset[int]
    sent: int

    @property
    def all_routed(self) -> bool:
        """Say whether every message lies in a queue now."""
        return len(self.confirmed) == self.sent and not self.unroutable


def connect(amqp_uri: str) -> amqp.Connection:
    """Open a connection to the broker named by an amqp:// or amqps:// address.

    Raises:
        OSError: it does not answer.
    """
    parts = urlsplit(amqp_uri)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        ssl=parts.scheme == "amqps",
        connect_timeout=5,
        read_timeout=CONFIRM_SECONDS,
        write_timeout=CONFIRM_SECONDS,
        heartbeat=30,
    )
    with _broker_errors():
        connection.connect()
    return connection


@contextlib.contextmanager
def _broker_errors() -> Iterator[None]:
    """Turn the protocol's own errors into OSError: for a publisher both mean that the broker is not there."""
    try:
        yield
    except amqp.AMQPError as error:
        raise ConnectionError(type(error).__name__) from error


class ConfirmingPublisher:
    """Publishes persistent, mandatory messages, many on the way at once, and waits for the broker's confirms.

    It connects when first used, declares the topology on every new connection, and may be shared by threads.
    """

    def __init__(
        self, amqp_uri: str, subscriptions: Sequence[Subscription] | None = None, retries: Retries | None = None
    ) -> None:
        self._amqp_uri = amqp_uri
        self.subscriptions = known_subscriptions() if subscriptions is None else tuple(subscriptions)
        self._retries = retries or Retries()
        self._connection: amqp.Connection | None = None
        self._channel: amqp.Channel | None = None
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Outgoing]) -> Taken:
        """Publish and wait for the confirms of all.

        Raises:
            OSError: the broker went away; some of the messages may have been taken.
        """
        with self._lock:
            try:
                with _broker_errors():
                    return self._publish(self._open(), messages)
            except OSError:
                self._drop()
                raise

    def beat(self) -> None:
        """Keep an idle connection alive; a dead one is opened again by the next publish."""
        with self._lock:
            if self._connection is None:
                return
            try:
                with _broker_errors():
                    self._connection.heartbeat_tick()
                    with contextlib.suppress(TimeoutError):
                        self._connection.drain_events(timeout=0.001)
            except OSError:
                self._drop()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def reset(self) -> None:
        """Forget the connection, so that the next publish declares the topology again."""
        self.close()

    def _open(self) -> amqp.Channel:
        if self._channel is None:
            self._connection = connect(self._amqp_uri)
            channel = self._connection.channel()
            declare(channel, self.subscriptions, self._retries)
            channel.confirm_select()
            self._channel = channel
            self._tags = itertools.count(1)
        return self._channel

    def _publish(self, channel: amqp.Channel, messages: Sequence[Outgoing]) -> Taken:
        pending: dict[int, int] = {}
        confirmed: set[int] = set()
        unroutable: set[int] = set()

        def settled(tag: int, multiple: bool, keep: Callable[[int], None]) -> None:
            for done in [t for t in pending if t <= tag] if multiple else [tag]:
                if done in pending:
                    keep(pending.pop(done))

        channel.events["basic_ack"] = {lambda tag, multiple: settled(tag, multiple, confirmed.add)}
        channel.events["basic_nack"] = {lambda tag, multiple: settled(tag, multiple, lambda index: None)}
        channel.events["basic_return"] = {
            lambda error, exchange, key, message: unroutable.add(int(message.properties["message_id"]))
        }
        for index, message in enumerate(messages):
            pending[next(self._tags)] = index
            channel.basic_publish(_amqp_message(index, message), message.exchange, message.routing_key, True)
        while pending:
            channel.connection.drain_events(timeout=CONFIRM_SECONDS)
        return Taken(frozenset(confirmed), frozenset(unroutable), len(messages))

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(OSError, amqp.AMQPError, AttributeError):
                connection.close()


def _amqp_message(index: int, message: Outgoing) -> amqp.Message:
    return amqp.Message(
        message.body,
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=str(index),  # comes back with a return: the place in the batch; the event's own id is in the body
        application_headers=dict(message.headers),
    )
