"""Subscriptions and deliveries as values, and how they change."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.access import Condition

SUBSCRIPTIONS_PER_APP = 20
BACKLOG = 10_000  # deliveries that wait for one subscription
KEPT = timedelta(days=30)
FORMER_SECRET = timedelta(days=1)
ATTEMPTS_KEPT = 20
_NAMESPACE = uuid.UUID("9d0b6a4e-2f0e-4b6e-8f67-5f5f2d1c9a44")


class State(StrEnum):
    """Where a subscription stands; failing is what an active one is called while its attempts fail."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class DeliveryState(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    WITHHELD = "withheld"
    FILTERED = "filtered"


QUEUING = (State.ACTIVE, State.PAUSED)


@dataclass(frozen=True, slots=True)
class Secret:
    """A signing secret, sealed; the newest has no end."""

    sealed: bytes = field(repr=False)
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """An app's wish to hear of events; `criteria` all hold of what is sent."""

    id: str
    subscriber: str
    department: str
    purpose: str
    target_url: str
    event_types: tuple[str, ...]
    secrets: tuple[Secret, ...] = field(repr=False)
    display_name: str = ""
    fields: tuple[str, ...] = ()
    criteria: tuple[Condition, ...] = field(default=(), repr=False)
    state: State = State.PENDING
    reason: str = ""
    lost_since: datetime | None = None
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    def signing(self, now: datetime) -> tuple[Secret, ...]:
        """Return the secrets that sign now, the newest first."""
        return tuple(secret for secret in self.secrets if secret.end_time is None or now < secret.end_time)

    def renewed(self, sealed: bytes, now: datetime) -> Subscription:
        """Return it with a new secret; the former one signs for a day more, older ones no longer."""
        return replace(self, secrets=(Secret(sealed), replace(self.secrets[0], end_time=now + FORMER_SECRET)))

    def value_of(self, row_field: str) -> str | None:
        """Return what a row filter compares."""
        return {"subscriber": self.subscriber, "owner_department": self.department}.get(row_field)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try; `status` 0 when there was no answer."""

    time: datetime
    status: int
    outcome: str
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one subscription: which record, never what is in it."""

    id: str
    subscription_id: str
    event_type: str
    resource: str
    event_time: datetime
    create_time: datetime
    due: datetime | None
    state: DeliveryState = DeliveryState.WAITING
    attempts: tuple[Attempt, ...] = ()
    attempt_count: int = 0
    tried_since: datetime | None = None

    def after(self, attempt: Attempt, state: DeliveryState, due: datetime | None) -> Delivery:
        """Return it after a try."""
        kept = (*self.attempts, attempt)[-ATTEMPTS_KEPT:]
        since = self.tried_since or attempt.time
        return replace(
            self, attempts=kept, attempt_count=self.attempt_count + 1, tried_since=since, state=state, due=due
        )

    def settled(self, state: DeliveryState) -> Delivery:
        """Return it decided without a try."""
        return replace(self, state=state, due=None)

    def again(self, now: datetime) -> Delivery:
        """Return it waiting again, as a replay wants it."""
        return replace(self, state=DeliveryState.WAITING, due=now, tried_since=None)


def delivery_of(
    subscription_id: str, event_id: str, event_type: str, resource: str, happened: datetime, now: datetime
) -> Delivery:
    """Return a new delivery, due in the order of the events; the same event gives the same id however often told."""
    delivery_id = uuid.uuid5(_NAMESPACE, f"{subscription_id}\0{event_id}").hex
    return Delivery(delivery_id, subscription_id, event_type, resource, happened, now, min(happened, now))


@dataclass(frozen=True, slots=True)
class Lane:
    """The turn of one subscription: one process at a time sends for it, the first due first."""

    subscription_id: str
    failures: int = 0
    failing_since: datetime | None = None
    outcome: str = ""
    rests_until: datetime | None = None  # nothing new is tried before
