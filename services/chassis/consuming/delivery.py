"""The fate of one received event: handled, tried again later, or parked; always before it is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.message import Message
from pymongo.errors import ConnectionFailure

from services.chassis import telemetry
from services.chassis.consuming.contract import Handler, PoisonedEvent, Subscription, decode
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing
from services.chassis.consuming.topology import Retries, retry_exchange
from services.chassis.errors import Unavailable

ATTEMPT = "x-kehu-attempt"
ERROR = "x-kehu-error"
PARKED_AT = "x-kehu-parked-at"
OUTAGES = (Unavailable, ConnectionFailure, ConnectionError, TimeoutError)
_log = logging.getLogger(__name__)


class NotSettled(Exception):
    """The event could neither be handled nor put aside: give it back to the broker."""


class Delivery:
    """Calls one handler with each body of its queue, from any thread."""

    def __init__(
        self,
        subscription: Subscription,
        message_class: type[Message],
        handler: Handler,
        publisher: ConfirmingPublisher,
        retries: Retries,
    ) -> None:
        self.subscription = subscription
        self._message_class = message_class
        self._handler = handler
        self._publisher = publisher
        self._retries = retries

    def settle(self, body: bytes, headers: Mapping[str, object]) -> None:
        """Handle the event; put it aside, confirmed by the broker, when that fails.

        Raises:
            NotSettled: the broker took no copy.
        """
        attempt = _attempt(headers) + 1
        try:
            self._handler(decode(body, self._message_class))
        except PoisonedEvent as fault:
            self._park(body, attempt, fault.kind)
        except OUTAGES as error:  # whoever is away comes back: an outage must not park the events of a day
            self._retry(body, attempt - 1, self._retries.delays_ms[min(2, len(self._retries.delays_ms) - 1)], error)
        except Exception as error:
            if attempt >= self._retries.tries:
                self._park(body, attempt, type(error).__name__)
            else:
                self._retry(body, attempt, self._retries.delays_ms[attempt - 1], error)
        else:
            self._count("handled")

    def _retry(self, body: bytes, attempts: int, delay_ms: int, error: Exception) -> None:
        headers = {ATTEMPT: attempts, ERROR: type(error).__name__}
        self._put(Outgoing(retry_exchange(delay_ms), self.subscription.queue, body, headers))
        self._count("retried")
        # the last frames tell where it failed; the text of an exception may hold a person's data
        _log.warning("event failed, retried later", exc_info=error, extra={"queue": self.subscription.queue})

    def _park(self, body: bytes, attempts: int, error_class: str) -> None:
        headers = {ATTEMPT: attempts, ERROR: error_class, PARKED_AT: datetime.now(UTC).isoformat()}
        self._put(Outgoing("", self.subscription.dead_queue, body, headers))
        self._count("parked")
        _log.error("event parked", extra={"queue": self.subscription.queue, "error": error_class})

    def _put(self, outgoing: Outgoing) -> None:
        try:
            taken = self._publisher.publish([outgoing])
        except OSError:
            raise NotSettled("the broker does not answer") from None
        if not taken.all_routed:
            raise NotSettled("a queue is missing")

    def _count(self, outcome: str) -> None:
        telemetry.EVENTS.labels(self.subscription.consumer, self.subscription.event, outcome).inc()


def _attempt(headers: Mapping[str, object]) -> int:
    value = headers.get(ATTEMPT, 0)
    return value if isinstance(value, int) and value > 0 else 0
