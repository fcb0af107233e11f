"""Everything in memory; passes the same conformance suite. `facts` holds what was published."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.records import Fact
from services.webhooks.domain.subscriptions import QUEUING, Delivery, DeliveryState, Lane, Subscription

NEVER = datetime(9000, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class _Turn:
    lane: Lane
    wake: datetime = NEVER
    holder: str = ""
    until: datetime = LONG_AGO


class MemoryWebhookStore:
    """The store of tests."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._subscriptions: dict[str, Subscription] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._turns: dict[str, _Turn] = {}
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Nothing to make."""

    def insert(self, subscription: Subscription) -> Subscription:
        """Keep a new one."""
        with self._lock:
            if subscription.id in self._subscriptions:
                raise AlreadyExists("a record with this name or key exists already")
            now = datetime.now(UTC)
            stored = replace(subscription, version=1, create_time=now, update_time=now)
            self._subscriptions[stored.id] = stored
            return stored

    def get(self, subscription_id: str) -> Subscription | None:
        """Return one."""
        return self._subscriptions.get(subscription_id)

    def replace(self, subscription: Subscription, facts: Sequence[Fact] = ()) -> Subscription:
        """Write one."""
        with self._lock:
            known = self._subscriptions.get(subscription.id)
            if known is None or known.version != subscription.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            stored = replace(subscription, version=known.version + 1, update_time=datetime.now(UTC))
            self._subscriptions[stored.id] = stored
            self.facts += facts
            return stored

    def delete(self, subscription_id: str) -> None:
        """Remove one."""
        with self._lock:
            self._subscriptions.pop(subscription_id, None)
            self._turns.pop(subscription_id, None)
            gone = [key for key, each in self._deliveries.items() if each.subscription_id == subscription_id]
            for key in gone:
                del self._deliveries[key]

    def page(self, after: str, limit: int) -> list[Subscription]:
        """Return subscriptions by id."""
        return [self._subscriptions[key] for key in sorted(self._subscriptions) if key > after][:limit]

    def of_app(self, subscriber: str) -> list[Subscription]:
        """Return those of an app."""
        return [each for _, each in sorted(self._subscriptions.items()) if each.subscriber == subscriber]

    def queuing(self) -> list[Subscription]:
        """Return those whose events are queued."""
        return [each for each in list(self._subscriptions.values()) if each.state in QUEUING]

    def _turn(self, subscription_id: str) -> _Turn:
        return self._turns.setdefault(subscription_id, _Turn(Lane(subscription_id)))

    def enqueue(self, deliveries: Sequence[Delivery]) -> None:
        """Keep deliveries."""
        with self._lock:
            for delivery in deliveries:
                self._deliveries.setdefault(delivery.id, delivery)
                turn = self._turn(delivery.subscription_id)
                turn.wake = min(turn.wake, max(delivery.create_time, turn.lane.rests_until or delivery.create_time))

    def _lined(self, subscription_id: str) -> list[Delivery]:
        with self._lock:
            mine = [e for e in self._deliveries.values() if e.subscription_id == subscription_id and e.due is not None]
        return sorted(mine, key=lambda each: (each.due or NEVER, each.id))

    def waiting(self, subscription_id: str, limit: int) -> int:
        """Count what waits."""
        return min(len(self._lined(subscription_id)), limit)

    def lane(self, subscription_id: str) -> Lane:
        """Return the lane."""
        with self._lock:
            return self._turn(subscription_id).lane

    def due_lanes(self, now: datetime, limit: int) -> list[Lane]:
        """Return due lanes."""
        with self._lock:
            due = [turn for turn in self._turns.values() if turn.wake <= now and turn.until <= now]
            return [turn.lane for turn in sorted(due, key=lambda turn: turn.wake)][:limit]

    def take(self, subscription_id: str, holder: str, now: datetime, until: datetime) -> bool:
        """Hold a lane."""
        with self._lock:
            turn = self._turn(subscription_id)
            if turn.until > now:
                return False
            turn.holder, turn.until, turn.wake = holder, until, until
            return True

    def renew(self, subscription_id: str, holder: str, until: datetime) -> bool:
        """Hold it longer."""
        with self._lock:
            turn = self._turn(subscription_id)
            if turn.holder != holder:
                return False
            turn.until = until
            return True

    def release(self, lane: Lane, holder: str, wake: datetime | None) -> None:
        """Give a lane back."""
        with self._lock:
            turn = self._turn(lane.subscription_id)
            if turn.holder == holder:
                woken = turn.wake if turn.wake < turn.until else NEVER
                turn.wake = max(min(wake or NEVER, woken), lane.rests_until or LONG_AGO)
                turn.lane, turn.holder, turn.until = lane, "", LONG_AGO

    def wake(self, subscription_id: str, now: datetime) -> None:
        """Forget failures."""
        with self._lock:
            turn = self._turn(subscription_id)
            turn.lane, turn.wake = Lane(subscription_id), now

    def next_delivery(self, subscription_id: str) -> Delivery | None:
        """Return the first."""
        return next(iter(self._lined(subscription_id)), None)

    def save(self, delivery: Delivery) -> None:
        """Write a delivery."""
        with self._lock:
            if delivery.id in self._deliveries:
                self._deliveries[delivery.id] = delivery

    def deliveries(
        self, subscription_id: str, state: DeliveryState | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Return deliveries."""
        found = [
            each for each in self._deliveries.values()
            if each.subscription_id == subscription_id and state in (None, each.state)
            and (before is None or (each.create_time, each.id) < before)
        ]  # fmt: skip
        return sorted(found, key=lambda each: (each.create_time, each.id), reverse=True)[:limit]

    def find_deliveries(self, subscription_id: str, ids: Collection[str]) -> list[Delivery]:
        """Return those of these ids."""
        found = [self._deliveries[key] for key in ids if key in self._deliveries]
        return [each for each in found if each.subscription_id == subscription_id]

    def happened(self, subscription_id: str, start: datetime, end: datetime, limit: int) -> list[Delivery]:
        """Return those of a time."""
        found = [
            each for each in self._deliveries.values()
            if each.subscription_id == subscription_id and start <= each.event_time < end and each.due is None
        ]  # fmt: skip
        return sorted(found, key=lambda each: each.event_time)[:limit]

    def forget(self, resources: Collection[str], spared: Collection[str] = ()) -> int:
        """Remove deliveries about resources."""
        return self._drop(lambda each: each.resource in resources and each.event_type not in spared)

    def purge(self, before: datetime) -> int:
        """Remove old ones."""
        return self._drop(lambda each: each.create_time < before)

    def _drop(self, goes) -> int:  # noqa: ANN001
        with self._lock:
            gone = [key for key, each in self._deliveries.items() if goes(each)]
            for key in gone:
                del self._deliveries[key]
            return len(gone)
