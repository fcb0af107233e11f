"""What the rest of webhooks asks of its store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from services.chassis.records import Fact
from services.webhooks.domain.subscriptions import Delivery, DeliveryState, Lane, Subscription


class WebhookStore(Protocol):
    """Subscriptions are written by compare-and-set on `version`; a lane has one holder at a time."""

    def prepare(self) -> None:
        """Create indexes."""

    def insert(self, subscription: Subscription) -> Subscription:
        """Keep a new one; AlreadyExists."""

    def get(self, subscription_id: str) -> Subscription | None:
        """Return one."""

    def replace(self, subscription: Subscription, facts: Sequence[Fact] = ()) -> Subscription:
        """Write one with its facts; Conflict."""

    def delete(self, subscription_id: str) -> None:
        """Remove one with its deliveries and its lane."""

    def page(self, after: str, limit: int) -> list[Subscription]:
        """Return subscriptions by id."""

    def of_app(self, subscriber: str) -> list[Subscription]:
        """Return those of an app, by id."""

    def queuing(self) -> list[Subscription]:
        """Return those whose events are queued: active and paused ones."""

    def enqueue(self, deliveries: Sequence[Delivery]) -> None:
        """Keep deliveries that are new and wake their lanes, one that rests at the end of its rest.

        The same id again changes nothing.
        """

    def waiting(self, subscription_id: str, limit: int) -> int:
        """Count what waits, up to a limit."""

    def lane(self, subscription_id: str) -> Lane:
        """Return how a subscription's attempts went."""

    def due_lanes(self, now: datetime, limit: int) -> list[Lane]:
        """Return lanes that nobody holds and something is due in, the longest due first."""

    def take(self, subscription_id: str, holder: str, now: datetime, until: datetime) -> bool:
        """Hold a lane that nobody holds."""

    def renew(self, subscription_id: str, holder: str, until: datetime) -> bool:
        """Hold it longer; False when another has it."""

    def release(self, lane: Lane, holder: str, wake: datetime | None) -> None:
        """Give a lane back with its new state, to be woken then, or by the next delivery."""

    def wake(self, subscription_id: str, now: datetime) -> None:
        """Forget the failures of a lane and have it looked at now."""

    def next_delivery(self, subscription_id: str) -> Delivery | None:
        """Return the first that waits, by when it is due."""

    def save(self, delivery: Delivery) -> None:
        """Write what became of a delivery; one that was removed meanwhile stays removed."""

    def deliveries(
        self, subscription_id: str, state: DeliveryState | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Return deliveries, the newest first."""

    def find_deliveries(self, subscription_id: str, ids: Collection[str]) -> list[Delivery]:
        """Return those of these ids."""

    def happened(self, subscription_id: str, start: datetime, end: datetime, limit: int) -> list[Delivery]:
        """Return settled ones whose event happened then, the oldest first."""

    def forget(self, resources: Collection[str], spared: Collection[str] = ()) -> int:
        """Remove all deliveries about these resources but those of the spared event types; return how many."""

    def purge(self, before: datetime) -> int:
        """Remove deliveries made before; return how many."""
