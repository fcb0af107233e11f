"""Put events into the queues of the subscriptions that want them, as long as those have room."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.errors import Conflict
from services.webhooks.domain.catalogue import endings
from services.webhooks.domain.subscriptions import BACKLOG, Subscription, delivery_of
from services.webhooks.store import WebhookStore

KNOWN_SECONDS = 1.0  # subscriptions are asked for so often: one begins to count a second after it is activated
COUNTED_SECONDS = 5.0
_log = logging.getLogger(__name__)


def now_in_milliseconds() -> datetime:
    """Return the time as the database keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Queue:
    """Adds deliveries; thread-safe."""

    def __init__(self, store: WebhookStore, known_seconds: float = KNOWN_SECONDS, backlog: int = BACKLOG) -> None:
        """`backlog` is how many may wait for one subscription."""
        self._store, self._known_seconds, self._backlog = store, known_seconds, backlog
        self._lock = threading.Lock()
        self._known: tuple[float, list[Subscription]] = (float("-inf"), [])
        self._room: dict[str, tuple[float, int]] = {}

    def add(self, event_type: str, resource: str, event_id: str, happened: datetime) -> None:
        """Queue an event; what finds no room is lost, and the subscription says since when."""
        now, deliveries = now_in_milliseconds(), []
        for each in self._subscriptions():
            if event_type not in each.event_types:
                continue
            if self._has_room(each.id):
                deliveries.append(delivery_of(each.id, event_id, event_type, resource, happened, now))
            elif each.lost_since is None:
                self._mark_lost(each, now)
        self._store.enqueue(deliveries)

    def forget(self, resources: Collection[str]) -> None:
        """Remove all deliveries about resources, but those that tell their end."""
        self._store.forget(resources, endings())

    def _subscriptions(self) -> list[Subscription]:
        with self._lock:
            asked, known = self._known
            if time.monotonic() - asked >= self._known_seconds:
                known = self._store.queuing()
                self._known = (time.monotonic(), known)
            return known

    def _has_room(self, subscription_id: str) -> bool:
        with self._lock:
            counted, left = self._room.get(subscription_id, (float("-inf"), 0))
            if time.monotonic() - counted >= COUNTED_SECONDS:
                left = self._backlog - self._store.waiting(subscription_id, self._backlog)
                counted = time.monotonic()
            self._room[subscription_id] = (counted, left - 1)
            return left > 0

    def _mark_lost(self, subscription: Subscription, now: datetime) -> None:
        known = self._store.get(subscription.id)
        if known is None or known.lost_since is not None:
            return
        try:
            self._store.replace(replace(known, lost_since=now))
        except Conflict:
            return  # somebody changes it now: the next event tells
        _log.warning("a webhook subscription loses events: too many wait", extra={"subscription": subscription.id})
