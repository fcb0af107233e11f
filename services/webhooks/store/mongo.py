"""Subscriptions as records, deliveries and lanes as plain documents of the service's own database.

A delivery that waits carries `lane`, its subscription's id, and `due`; what is settled carries neither, so the index of
what waits stays small. A lane is claimed and renewed by compare-and-set (never findAndModify, ADR 0005).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import mongoengine as me
import pymongo
from pymongo.errors import BulkWriteError

from services.chassis import records
from services.chassis.access import Condition
from services.chassis.crypto import Sealer
from services.chassis.records import RECORD_INDEXES, Fact, Record
from services.webhooks.domain.subscriptions import (
    QUEUING,
    Attempt,
    Delivery,
    DeliveryState,
    Lane,
    Secret,
    State,
    Subscription,
)

SERVICE = "webhooks"
NEVER = datetime(9000, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NEWEST = [("create_time", -1), ("_id", -1)]
INDEXES = (
    [("subscription", 1), *NEWEST], [("subscription", 1), ("state", 1), *NEWEST], [("lane", 1), ("due", 1)],
    [("resource", 1)], [("create_time", 1)], [("subscription", 1), ("event_time", 1)],
)  # fmt: skip


class SubscriptionDocument(Record):
    """A subscription; secrets and the values of its filter are sealed."""

    subscriber = me.StringField()
    department = me.StringField()
    purpose = me.StringField()
    target_url = me.StringField()
    event_types = me.ListField(me.StringField())
    secrets = me.ListField(me.DictField())
    display_name = me.StringField()
    fields = me.ListField(me.StringField())
    criteria = me.BinaryField()  # a filter may hold a person's number
    state = me.StringField()
    reason = me.StringField()
    lost_since = me.DateTimeField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": SERVICE, "collection": "subscriptions", "auto_create_index": False, "strict": False,
        "indexes": [*RECORD_INDEXES, "subscriber"],
    }  # fmt: skip


RECORDS: tuple[type[Record], ...] = (SubscriptionDocument,)


def _document(found: Subscription, sealer: Sealer) -> SubscriptionDocument:
    criteria = json.dumps([[each.field, each.values] for each in found.criteria]).encode()
    return SubscriptionDocument(
        id=found.id, version=found.version, create_time=found.create_time, subscriber=found.subscriber,
        department=found.department, purpose=found.purpose, target_url=found.target_url,
        event_types=list(found.event_types), display_name=found.display_name, fields=list(found.fields),
        secrets=[{"sealed": each.sealed, "end_time": each.end_time} for each in found.secrets],
        criteria=sealer.seal(criteria, found.id.encode()),
        state=found.state.value, reason=found.reason, lost_since=found.lost_since,
    )  # fmt: skip


def _subscription(row: SubscriptionDocument, sealer: Sealer) -> Subscription:
    criteria = json.loads(sealer.open(bytes(row.criteria), row.id.encode()))
    return Subscription(
        id=row.id, version=row.version, create_time=row.create_time, update_time=row.update_time,
        subscriber=row.subscriber, department=row.department, purpose=row.purpose, target_url=row.target_url,
        event_types=tuple(row.event_types), display_name=row.display_name or "", fields=tuple(row.fields),
        secrets=tuple(Secret(bytes(each["sealed"]), each.get("end_time")) for each in row.secrets),
        criteria=tuple(Condition(field, tuple(values)) for field, values in criteria),
        state=State(row.state), reason=row.reason or "", lost_since=row.lost_since,
    )  # fmt: skip


def _row(found: Delivery) -> dict[str, Any]:
    row = {
        "_id": found.id, "subscription": found.subscription_id, "event_type": found.event_type,
        "resource": found.resource, "event_time": found.event_time, "create_time": found.create_time,
        "state": found.state.value, "attempt_count": found.attempt_count, "tried_since": found.tried_since,
        "attempts": [
            {"time": each.time, "status": each.status, "outcome": each.outcome, "milliseconds": each.milliseconds}
            for each in found.attempts
        ],
    }  # fmt: skip
    return row if found.due is None else {**row, "lane": found.subscription_id, "due": found.due}


def _delivery(row: Mapping[str, Any]) -> Delivery:
    return Delivery(
        row["_id"], row["subscription"], row["event_type"], row["resource"], row["event_time"], row["create_time"],
        row.get("due"), DeliveryState(row["state"]), tuple(Attempt(**each) for each in row["attempts"]),
        row["attempt_count"], row.get("tried_since"),
    )  # fmt: skip


def _lane(row: Mapping[str, Any]) -> Lane:
    failures, rests_until = row.get("failures", 0), row.get("rests_until")
    return Lane(row["_id"], failures, row.get("failing_since"), row.get("outcome", ""), rests_until)


class MongoWebhookStore:
    """The service's own database."""

    def __init__(self, sealer: Sealer) -> None:
        """`sealer` is of this service."""
        self._sealer = sealer

    @property
    def _rows(self) -> pymongo.collection.Collection:
        return records.database(SERVICE)["deliveries"]

    @property
    def _lanes(self) -> pymongo.collection.Collection:
        return records.database(SERVICE)["lanes"]

    def prepare(self) -> None:
        """Create indexes."""
        with records.driver_errors():
            for keys in INDEXES:
                self._rows.create_index(keys)
            self._lanes.create_index([("wake", 1)])

    def insert(self, subscription: Subscription) -> Subscription:
        """Keep a new one."""
        document = _document(subscription, self._sealer)
        records.insert(document)
        return _subscription(document, self._sealer)

    def get(self, subscription_id: str) -> Subscription | None:
        """Return one."""
        with records.driver_errors():
            found = SubscriptionDocument.objects(id=subscription_id).limit(1)
            return next((_subscription(row, self._sealer) for row in found), None)

    def replace(self, subscription: Subscription, facts: Sequence[Fact] = ()) -> Subscription:
        """Write one with its facts."""
        document = _document(subscription, self._sealer)
        records.replace(document, facts)
        return _subscription(document, self._sealer)

    def delete(self, subscription_id: str) -> None:
        """Remove one: first what sends, then what would be sent."""
        with records.driver_errors():
            SubscriptionDocument.objects(id=subscription_id).delete()
            self._rows.delete_many({"subscription": str(subscription_id)})
            self._lanes.delete_one({"_id": str(subscription_id)})

    def page(self, after: str, limit: int) -> list[Subscription]:
        """Return subscriptions by id."""
        with records.driver_errors():
            found = SubscriptionDocument.objects(id__gt=after).order_by("id").limit(limit)
            return [_subscription(row, self._sealer) for row in found]

    def of_app(self, subscriber: str) -> list[Subscription]:
        """Return those of an app."""
        with records.driver_errors():
            found = SubscriptionDocument.objects(subscriber=subscriber).order_by("id")
            return [_subscription(row, self._sealer) for row in found]

    def queuing(self) -> list[Subscription]:
        """Return those whose events are queued; subscriptions are few, and asked for once a second."""
        with records.driver_errors():
            found = [_subscription(row, self._sealer) for row in SubscriptionDocument.objects()]
        return [each for each in found if each.state in QUEUING]

    def enqueue(self, deliveries: Sequence[Delivery]) -> None:
        """Keep deliveries, then wake: who looks before finds nothing, who looks after finds all."""
        if not deliveries:
            return
        with records.driver_errors():
            try:
                self._rows.insert_many([_row(each) for each in deliveries], ordered=False)
            except BulkWriteError as error:
                records.places_taken(error)
            for delivery in deliveries:
                self._wake(delivery.subscription_id, delivery.create_time)

    def _wake(self, subscription_id: str, now: datetime) -> None:
        """Have a lane looked at now, or when its rest is over."""
        lane = self._lanes.find_one({"_id": subscription_id}, {"wake": 1, "rests_until": 1})
        if lane is None:
            self._lanes.update_one(
                {"_id": subscription_id}, {"$setOnInsert": {"wake": now, "until": LONG_AGO, "holder": ""}}, upsert=True
            )
        at = max(now, (lane or {}).get("rests_until") or now)
        if lane is None or lane["wake"] > at:
            self._lanes.update_one({"_id": subscription_id, "wake": {"$gt": at}}, {"$set": {"wake": at}})

    def waiting(self, subscription_id: str, limit: int) -> int:
        """Count what waits."""
        with records.driver_errors():
            return len(list(self._rows.find({"lane": subscription_id}, {"_id": 1}).limit(limit)))

    def lane(self, subscription_id: str) -> Lane:
        """Return the lane."""
        with records.driver_errors():
            return _lane(self._lanes.find_one({"_id": subscription_id}) or {"_id": subscription_id})

    def due_lanes(self, now: datetime, limit: int) -> list[Lane]:
        """Return due lanes."""
        with records.driver_errors():
            found = list(self._lanes.find({"wake": {"$lte": now}}).sort("wake", 1).limit(limit))
        return [_lane(row) for row in found if row["until"] <= now]

    def take(self, subscription_id: str, holder: str, now: datetime, until: datetime) -> bool:
        """Hold a lane; a delivery that comes meanwhile sets `wake` before `until`, and a holder that dies wakes it."""
        free = {"_id": subscription_id, "until": {"$lte": now}}
        with records.driver_errors():
            taken = self._lanes.update_one(free, {"$set": {"holder": holder, "until": until, "wake": until}})
        return bool(taken.matched_count)

    def renew(self, subscription_id: str, holder: str, until: datetime) -> bool:
        """Hold it longer."""
        with records.driver_errors():
            held = self._lanes.update_one({"_id": subscription_id, "holder": holder}, {"$set": {"until": until}})
        return bool(held.matched_count)

    def release(self, lane: Lane, holder: str, wake: datetime | None) -> None:
        """Give a lane back; what woke it meanwhile counts, though not before its rest is over."""
        with records.driver_errors():
            held = self._lanes.find_one({"_id": lane.subscription_id, "holder": holder})
            if held is None:
                return
            woken = held["wake"] if held["wake"] < held["until"] else NEVER
            after = max(min(wake or NEVER, woken), lane.rests_until or LONG_AGO)
            state = {"failures": lane.failures, "failing_since": lane.failing_since, "outcome": lane.outcome,
                     "rests_until": lane.rests_until, "holder": "", "until": LONG_AGO}  # fmt: skip
            seen = {"_id": lane.subscription_id, "holder": holder, "wake": held["wake"]}
            found = self._lanes.update_one(seen, {"$set": {**state, "wake": after}})
            if found.matched_count == 0:  # woken between the two: leave that as it is
                self._lanes.update_one({"_id": lane.subscription_id, "holder": holder}, {"$set": state})

    def wake(self, subscription_id: str, now: datetime) -> None:
        """Forget failures."""
        fresh = {"failures": 0, "failing_since": None, "outcome": "", "rests_until": None, "wake": now}
        with records.driver_errors():
            self._wake(subscription_id, now)
            self._lanes.update_one({"_id": subscription_id}, {"$set": fresh})

    def next_delivery(self, subscription_id: str) -> Delivery | None:
        """Return the first."""
        with records.driver_errors():
            found = list(self._rows.find({"lane": subscription_id}).sort("due", 1).limit(1))
        return _delivery(found[0]) if found else None

    def save(self, delivery: Delivery) -> None:
        """Write a delivery."""
        with records.driver_errors():
            self._rows.replace_one({"_id": delivery.id}, _row(delivery))

    def deliveries(
        self, subscription_id: str, state: DeliveryState | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Return deliveries."""
        wanted: dict[str, Any] = {"subscription": subscription_id}
        if state is not None:
            wanted["state"] = state.value
        if before is not None:
            wanted["create_time"] = {"$lte": before[0]}
            wanted["$or"] = [{"create_time": {"$lt": before[0]}}, {"_id": {"$lt": before[1]}}]
        with records.driver_errors():
            return [_delivery(row) for row in self._rows.find(wanted).sort(NEWEST).limit(limit)]

    def find_deliveries(self, subscription_id: str, ids: Collection[str]) -> list[Delivery]:
        """Return those of these ids."""
        found: list[Delivery] = []
        with records.driver_errors():
            for delivery_id in ids:
                row = self._rows.find_one({"_id": delivery_id})
                if row is not None and row["subscription"] == subscription_id:
                    found.append(_delivery(row))
        return found

    def happened(self, subscription_id: str, start: datetime, end: datetime, limit: int) -> list[Delivery]:
        """Return those of a time."""
        wanted = {"subscription": subscription_id, "event_time": {"$gte": start, "$lt": end}, "lane": None}
        with records.driver_errors():
            return [_delivery(row) for row in self._rows.find(wanted).sort("event_time", 1).limit(limit)]

    def forget(self, resources: Collection[str], spared: Collection[str] = ()) -> int:
        """Remove deliveries about resources."""
        others = {"event_type": {"$nin": sorted(spared)}}
        with records.driver_errors():
            return sum(self._rows.delete_many({"resource": each, **others}).deleted_count for each in resources)

    def purge(self, before: datetime) -> int:
        """Remove old ones."""
        with records.driver_errors():
            return self._rows.delete_many({"create_time": {"$lt": before}}).deleted_count
