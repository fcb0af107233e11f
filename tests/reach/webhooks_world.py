"""Webhooks with subscriptions of apps of two departments; an app's own are its own, whatever its rows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from kehu.webhooks.v1 import webhooks_pb2_grpc

from services.chassis.crypto import Sealer
from services.chassis.server import Serving
from services.webhooks.api import WebhooksServicer
from services.webhooks.domain.subscriptions import Delivery, State
from services.webhooks.sender import Sender
from services.webhooks.store.memory import MemoryWebhookStore
from tests.harness import running
from tests.reach.worlds import MINE, THEIRS, NarrowPolicy, Values, World
from tests.webhooks.receivers import Receiver, receiving

APPS = {MINE: "app:me@sales", THEIRS: "app:other@service"}


class Webhooks(World):
    """Subscriptions that are active, each with a delivery that failed."""

    full_name = "kehu.webhooks.v1.WebhooksService"
    callers: Mapping[str, str] = APPS
    store: MemoryWebhookStore
    receiver: Receiver
    newest: dict[str, str]

    def webhookSubscriptions(self, department: str) -> str:
        """Return a subscription, the only one of its app."""
        self.forget(department)
        name = self.ask("CreateWebhookSubscription", {"webhook_subscription": self.given()}, department).name
        known = self.store.get(name.partition("/")[2])
        now = datetime.now(UTC)
        self.store.replace(dataclasses.replace(known, state=State.ACTIVE))
        self.newest[department] = f"{next(self.counter):032x}"
        failed = Delivery(self.newest[department], known.id, "profiles.profile_changed", "x", now, now, None)
        self.store.enqueue([failed])
        return name

    def forget(self, department: str) -> None:
        """End the subscriptions of an app, which may have twenty."""
        for former in self.store.of_app(APPS[department].partition("@")[0]):
            self.store.delete(former.id)

    def delivery(self, department: str) -> str:
        """Return a delivery of a new subscription."""
        self.webhookSubscriptions(department)
        return self.newest[department]

    def given(self) -> Values:
        """Return what an app subscribes to."""
        return {"target_url": self.receiver.url, "event_types": ["profiles.profile_changed"]}

    def state(self, kind: str, thing: str) -> object:
        """Return the stored subscription."""
        return self.store.get(thing.partition("/")[2])

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        if len(self.store.of_app(APPS[department].partition("@")[0])) > 15:
            self.forget(department)
        own = next((one.id for one in self.store.of_app("app:me")), "")
        start, end = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
        return {
            "CreateWebhookSubscription": {"webhook_subscription": self.given()},
            "UpdateWebhookSubscription": {"webhook_subscription": {"display_name": "y"}},
            "ReplayWebhookDeliveries": {
                "parent": f"webhookSubscriptions/{own}", "start_time": start, "end_time": end,
            },
        }.get(method, {})  # fmt: skip


def webhooks(stack: contextlib.ExitStack, folder: Path) -> World:
    """Serve webhooks until the stack is left."""
    store = MemoryWebhookStore()
    servicer = WebhooksServicer(store, Sender(["127.0.0.1"]), Sealer("webhooks", folder / "keys"))
    serving = Serving("webhooks", [(webhooks_pb2_grpc.add_WebhooksServiceServicer_to_server, servicer)])
    world = Webhooks(stack.enter_context(running(serving, NarrowPolicy())), webhooks_pb2_grpc.WebhooksServiceStub)
    world.store, world.receiver, world.newest = store, stack.enter_context(receiving()), {}
    return world
