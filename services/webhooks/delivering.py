"""Deliver what is due: a turn for each subscription, one process at a time, many subscriptions at once.

What is sent is made at that moment and kept nowhere: read from the owner with the app's rights, filtered, signed, sent.
The try is written down after it: killed between the two, it is sent again under the same id (at least once).
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import orjson
from google.protobuf import json_format
from kehu.webhooks.v1 import events_pb2

from services.chassis.access import in_reach
from services.chassis.crypto import Sealer
from services.chassis.errors import Conflict, Unavailable
from services.chassis.records import Fact
from services.chassis.repeating import Repeating
from services.webhooks.domain import schedule, signing
from services.webhooks.domain.catalogue import catalogue, compared
from services.webhooks.domain.subscriptions import (
    KEPT,
    Attempt,
    Delivery,
    DeliveryState,
    Lane,
    State,
    Subscription,
)
from services.webhooks.queueing import now_in_milliseconds
from services.webhooks.reading import Reads
from services.webhooks.sender import DELIVERED, Outcome, Sender
from services.webhooks.store import WebhookStore

LEASE = timedelta(seconds=45)  # longer than any one try
AFTER_A_FAULT = timedelta(seconds=5)  # of a store, or an owner of records
UNREADABLE = "unreadable"
TURN = 20  # tries, then others have theirs
THREADS = 32  # made as they are needed
FAILING_AT_ONCE = THREADS // 2  # the rest is for those whose targets answer
LOOK_SECONDS = 0.25
PURGE_SECONDS = 3600.0
_log = logging.getLogger(__name__)


def secrets_of(subscription: Subscription, sealer: Sealer, now: datetime) -> list[str]:
    """Return the secrets that sign now."""
    return [sealer.open(each.sealed, subscription.id.encode()).decode() for each in subscription.signing(now)]


class Deliverer(Repeating):
    """Takes the turns of subscriptions; a thread that looks, and a pool that sends."""

    def __init__(
        self,
        store: WebhookStore,
        sender: Sender,
        read: Reads,
        sealer: Sealer,
        clock: Callable[[], datetime] = now_in_milliseconds,
        chance: Callable[[], float] = random.random,
        lease: timedelta = LEASE,
    ) -> None:
        """`sealer` opens the secrets; `chance` spreads the waits; after a `lease` a dead process is followed."""
        super().__init__("webhooks")
        self._store, self._sender, self._read, self._sealer = store, sender, read, sealer
        self._now, self._chance, self._lease = clock, chance, lease
        self._holder = uuid.uuid4().hex
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="webhook")
        self._busy: dict[str, bool] = {}  # subscriptions under way here, and whether their targets fail
        self._purged_at = float("-inf")

    def stop(self) -> None:
        """End after the tries under way."""
        super().stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def turn(self) -> float:
        """Begin what is due, and forget what is old."""
        self.look()
        self._purge()
        return LOOK_SECONDS

    def look(self) -> None:
        """Give every subscription that has something due its turn, as far as there are threads."""
        for lane in self._store.due_lanes(self._now(), 4 * THREADS):
            failing = lane.failures > 0
            if lane.subscription_id in self._busy or len(self._busy) >= THREADS:
                continue
            if failing and sum(self._busy.values()) >= FAILING_AT_ONCE:
                continue
            self._busy[lane.subscription_id] = failing
            self._pool.submit(self._turn, lane.subscription_id)

    def _turn(self, subscription_id: str) -> None:
        try:
            self.take_turn(subscription_id)
        except Unavailable:
            _log.warning("a subscription's turn ended: a store or an owner of records does not answer")
        except Exception:
            _log.exception("a subscription's turn failed", extra={"subscription": subscription_id})
        finally:
            self._busy.pop(subscription_id, None)

    def take_turn(self, subscription_id: str) -> int:
        """Send what is due of one subscription, twenty tries at most; return how many there were."""
        now = self._now()
        if not self._store.take(subscription_id, self._holder, now, now + self._lease):
            return 0
        lane, tries, wake = self._store.lane(subscription_id), 0, None
        try:
            for tries in range(TURN + 1):
                now = self._now()
                subscription = self._store.get(subscription_id)
                if subscription is None or subscription.state is not State.ACTIVE:
                    break
                delivery = self._store.next_delivery(subscription_id)
                wake = delivery.due if delivery else None
                if delivery is None:
                    lane = Lane(subscription_id)  # nothing fails where nothing waits
                if delivery is None or wake is None or wake > now:
                    break
                if tries == TURN or self.stopping.is_set():
                    wake = now
                    break
                if not self._store.renew(subscription_id, self._holder, now + self._lease):
                    return tries
                lane, asked = self._deliver(subscription, delivery, lane)
                if lane.failures:
                    wake = self._now() + max(schedule.rest(lane.failures, self._chance()), asked)
                    lane = replace(lane, rests_until=wake)
                    break
        except Exception:
            wake = self._now() + AFTER_A_FAULT
            lane = replace(lane, rests_until=wake)
            raise
        finally:
            self._store.release(lane, self._holder, wake)
        return tries

    def _deliver(self, subscription: Subscription, delivery: Delivery, lane: Lane) -> tuple[Lane, timedelta]:
        """Try one delivery and write down what came of it; return how the lane stands then, and the wait asked for."""
        try:
            body = self._body(subscription, delivery)
        except Unavailable:
            raise
        except Exception:  # of this delivery: the others are not held up by it
            _log.exception("what a delivery is about cannot be read", extra={"delivery": delivery.id})
            self._again(delivery, Attempt(self._now(), 0, UNREADABLE, 0))
            return replace(lane, failures=0), timedelta()
        if isinstance(body, DeliveryState):
            self._store.save(delivery.settled(body))
            return replace(lane, failures=0), timedelta()
        now = self._now()
        stamp = int(now.timestamp())
        headers = signing.signed_headers(secrets_of(subscription, self._sealer, now), delivery.id, stamp, body)
        outcome = self._sender.send(subscription.target_url, body, headers)
        attempt = Attempt(now, outcome.status, outcome.kind, outcome.milliseconds)
        if outcome.kind == DELIVERED:
            self._store.save(delivery.after(attempt, DeliveryState.DELIVERED, None))
            return Lane(subscription.id), timedelta()
        asked = min(outcome.asked_wait or timedelta(), schedule.LONGEST_DELAY)
        return self._failed(subscription, delivery, lane, attempt, outcome), asked

    def _failed(
        self, subscription: Subscription, delivery: Delivery, lane: Lane, attempt: Attempt, outcome: Outcome
    ) -> Lane:
        now = self._now()
        self._again(delivery, attempt, outcome.asked_wait)
        since = lane.failing_since or now
        if outcome.status == schedule.GONE or schedule.is_given_up(now, since):
            self._disable(subscription, "gone" if outcome.status == schedule.GONE else "failed", now)
        said = f"{outcome.kind} {outcome.status}" if outcome.status else outcome.kind
        return Lane(subscription.id, lane.failures + 1, since, said)

    def _again(self, delivery: Delivery, attempt: Attempt, asked_wait: timedelta | None = None) -> None:
        """Write down a try that failed, and have another one if it has not failed for too long."""
        now, tried = self._now(), delivery.after(attempt, DeliveryState.FAILED, None)
        if not schedule.is_given_up(now, tried.tried_since):
            due = schedule.retry_at(now, tried.attempt_count, asked_wait, self._chance())
            tried = replace(tried, state=DeliveryState.WAITING, due=due)
        self._store.save(tried)

    def _disable(self, subscription: Subscription, reason: str, now: datetime) -> None:
        """Give a subscription up, and tell."""
        told = events_pb2.WebhookSubscriptionDisabled(
            subscription_id=subscription.id, version=subscription.version + 1, event_time=now,
            subscriber=subscription.subscriber, owner_department=subscription.department, reason=reason,
        )  # fmt: skip
        fact = Fact(told, f"webhookSubscriptions/{subscription.id}", told.version)
        try:
            self._store.replace(replace(subscription, state=State.DISABLED, reason=reason), [fact])
        except Conflict:
            return  # it was changed meanwhile: the next failure tells again
        _log.warning("a webhook subscription was disabled", extra={"subscription": subscription.id, "reason": reason})

    def _body(self, subscription: Subscription, delivery: Delivery) -> bytes | DeliveryState:
        """Return what to send now, or why nothing is sent.

        Raises:
            Unavailable: the owner of the record does not answer.
        """
        event = catalogue().get(delivery.event_type)
        if event is None or delivery.event_type not in subscription.event_types:
            return DeliveryState.WITHHELD
        wanted = {*subscription.fields, *(each.field for each in subscription.criteria)} & set(event.fields)
        reply = self._read(subscription, event, delivery.resource, wanted, delivery.id)
        if reply is None:
            return DeliveryState.WITHHELD
        if not in_reach(subscription.criteria, lambda field: compared(reply, field)):
            return DeliveryState.FILTERED
        content: dict[str, object] = {
            "id": delivery.id, "type": delivery.event_type, "timestamp": delivery.event_time.isoformat(),
            "resource": delivery.resource,
        }  # fmt: skip
        if subscription.fields and event.fields:
            found = json_format.MessageToDict(reply, preserving_proto_field_name=True)
            content["data"] = {name: value for name, value in found.items() if name in subscription.fields}
        return orjson.dumps(content)

    def _purge(self) -> None:
        if time.monotonic() - self._purged_at > PURGE_SECONDS:
            self._purged_at = time.monotonic()
            self._store.purge(self._now() - KEPT)
