"""Run consumer classes on nameko: it keeps the connection and the worker pool, our entrypoint keeps every event.

The process must have begun with `eventlet.monkey_patch(thread=False)`. Handlers run in native threads, so they
are plain blocking Python; nothing that blocks runs on eventlet's hub.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import eventlet
from eventlet import tpool
from kombu import Exchange, Message, Queue
from nameko.exceptions import ContainerBeingKilled
from nameko.messaging import Consumer, QueueConsumer
from nameko.runners import ServiceRunner

from services.chassis.consuming.contract import Subscription, handlers
from services.chassis.consuming.delivery import Delivery
from services.chassis.consuming.publishing import ConfirmingPublisher
from services.chassis.consuming.topology import Retries, known_subscriptions

HEARTBEAT_SECONDS = 10
WORKERS = 16  # per consumer class: handlers wait for the database most of the time
HUB_PATIENCE_SECONDS = 20.0  # loading a word list holds it for some four seconds
_log = logging.getLogger(__name__)

# tpool runs a call on the hub itself, not in a thread, whenever any thread of the process is importing something:
# a handler that waits there for a lock of another handler stops the hub for ever. Handlers always get a thread.
tpool.imp = SimpleNamespace(lock_held=lambda: False)


class RawQueueConsumer(QueueConsumer):
    """Hands bodies over as bytes: nameko would acknowledge, and log, what it cannot decode."""

    def get_consumers(self, consumer_cls, channel):  # noqa: ANN001, ANN201
        """Consume every provider's queue without decoding."""
        for provider in self._providers:
            consumer = consumer_cls(
                queues=[provider.queue],
                on_message=partial(self._received, provider),
                on_decode_error=partial(self._unreadable, provider),
            )
            consumer.qos(prefetch_count=self.prefetch_count)
            self._consumers[provider] = consumer
        return self._consumers.values()

    def _received(self, provider: Consumer, message: Message) -> None:
        self.handle_message(provider, message.body, message)

    def _unreadable(self, provider: Consumer, message: Message, error: Exception) -> None:
        # kombu could not even unpack it (a bad compression header): the bytes are parked as they are
        self.handle_message(provider, message.body, message)

    @contextmanager
    def establish_connection(self):  # noqa: ANN201
        """Connect with a short back-off: events wait while we do (kombu's own grows to 32 s)."""
        with self.create_connection() as connection:
            connection.ensure_connection(
                self.on_connection_error, interval_start=0.5, interval_step=0.5, interval_max=3
            )
            yield connection

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Say that the broker is away, without its address."""
        _log.warning("the broker does not answer", extra={"error": type(exc).__name__, "next_try_seconds": interval})


class Entrypoint(Consumer):
    """Feeds one queue into one `Delivery`; acknowledges what is settled, gives back the rest."""

    queue_consumer = RawQueueConsumer()

    def handle_message(self, body: bytes, message: Message) -> None:
        """Start a worker for the message."""
        raw = body.encode() if isinstance(body, str) else bytes(body)
        try:
            self.container.spawn_worker(
                self,
                (raw, dict(message.headers or {})),
                {},
                context_data={},
                handle_result=partial(self.handle_result, message),
            )
        except ContainerBeingKilled:
            self.queue_consumer.requeue_message(message)

    def handle_message_processed(self, message: Message, result: object = None, exc_info: object = None) -> None:
        """Acknowledge, or give back what could not even be put aside."""
        if exc_info is None:
            self.queue_consumer.ack_message(message)
        else:
            self.queue_consumer.requeue_message(message)


def _entry(subscription: Subscription, settle: Callable[..., None]) -> Callable[..., None]:
    """Return a nameko method that settles each message of the subscription's queue in a native thread."""
    exchange = Exchange(subscription.exchange, "topic", durable=True)
    queue = Queue(subscription.queue, exchange, subscription.event, durable=True)

    def method(self: object, body: bytes, headers: dict[str, object]) -> None:
        tpool.execute(settle, body, headers)

    method.__name__ = subscription.queue.replace(".", "_")
    return Entrypoint.decorator(queue=queue)(method)


def _nameko_class(consumer: object, publisher: ConfirmingPublisher, retries: Retries) -> type:
    name = str(consumer.name)  # type: ignore[attr-defined]
    members: dict[str, object] = {"name": name}
    for subscription, (message_class, handler) in handlers(consumer).items():
        delivery = Delivery(subscription, message_class, handler, publisher, retries)
        entry = _entry(subscription, delivery.settle)
        members[entry.__name__] = entry
    return type(f"{name.title()}Consumer", (), members)


def run_consumers(
    consumers: Sequence[object],
    amqp_uri: str,
    *,
    retries: Retries | None = None,
    workers: int = WORKERS,
    on_started: Callable[[], None] = lambda: None,
) -> None:
    """Consume until SIGTERM or SIGINT; handlers that run then are let finish, the rest goes back to the broker.

    `consumers` are classes with a `name` and `@on_event` methods, or instances of such classes.
    """
    schedule = retries or Retries()
    instances = [consumer() if isinstance(consumer, type) else consumer for consumer in consumers]
    own = [subscription for instance in instances for subscription in handlers(instance)]
    publisher = ConfirmingPublisher(amqp_uri, [*{*known_subscriptions(), *own}], schedule)
    tpool.set_num_threads(len(instances) * workers + 4)
    runner = ServiceRunner({"AMQP_URI": amqp_uri, "max_workers": workers, "HEARTBEAT": HEARTBEAT_SECONDS})
    for instance in instances:
        runner.add_service(_nameko_class(instance, publisher, schedule))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: eventlet.spawn_n(runner.stop))
    runner.start()
    _watch_the_hub()
    on_started()
    _log.info("consuming", extra={"consumers": len(consumers)})
    _wait(runner)
    publisher.close()


def _wait(runner: ServiceRunner) -> None:
    while True:
        try:
            runner.wait()
            return
        except InterruptedError:  # the signal that asks us to stop also wakes the hub's poll
            continue


def _watch_the_hub() -> None:
    """End the process when eventlet's hub stands still: what was not settled is delivered again to the next one.

    A hub that something blocks handles nothing and says nothing.
    """
    seen = [time.monotonic()]
    sleep = eventlet.patcher.original("time").sleep

    def tick() -> None:
        while True:
            seen[0] = time.monotonic()
            eventlet.sleep(1)

    def watch() -> None:
        while time.monotonic() - seen[0] < HUB_PATIENCE_SECONDS:
            sleep(1)
        _log.error("the hub stands still; the process ends and is started again")
        os._exit(os.EX_TEMPFAIL)

    eventlet.spawn_n(tick)
    threading.Thread(target=watch, name="hub-watch", daemon=True).start()
