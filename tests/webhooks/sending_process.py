"""A process that sends what is due in a database, for tests that kill it: MONGO_URI KEYS_DIR, until it dies."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import mongoengine
from kehu.tickets.v1 import tickets_pb2

from services.chassis.crypto import Sealer
from services.webhooks.delivering import Deliverer
from services.webhooks.sender import Sender
from services.webhooks.store import MongoWebhookStore


def read(subscription: object, event: object, resource: str, fields: object, request_id: str) -> object:
    """Read as an owner would."""
    return tickets_pb2.Ticket(number=resource)


if __name__ == "__main__":
    mongoengine.connect(db="kehu_webhooks", alias="webhooks", host=sys.argv[1], tz_aware=True)
    sealer = Sealer("webhooks", Path(sys.argv[2]))
    Deliverer(MongoWebhookStore(sealer), Sender(["127.0.0.1"]), read, sealer, lease=timedelta(seconds=2)).start()
    print("sending", flush=True)
    time.sleep(600)
