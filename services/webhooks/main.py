"""The composition root of webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from kehu.webhooks.v1 import webhooks_pb2_grpc

from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.crypto import Sealer
from services.chassis.jobs import Handler
from services.chassis.server import Serving
from services.webhooks.api import WebhooksServicer
from services.webhooks.delivering import Deliverer
from services.webhooks.events import WebhooksConsumer
from services.webhooks.queueing import Queue
from services.webhooks.reading import Reader
from services.webhooks.sender import Sender
from services.webhooks.store import RECORDS, MongoWebhookStore

SERVICE = "webhooks"


def _sealer(config: ProcessConfig) -> Sealer:
    return Sealer(SERVICE, config.keys_dir, config.protection.cipher_of_keys)


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve webhooks` runs: the API, and the threads that send."""
    records.connect(config, SERVICE)
    sealer = _sealer(config)
    store = MongoWebhookStore(sealer)
    sender = Sender(config.webhook_dev_hosts, config.webhook_ca)
    deliverer = Deliverer(store, sender, Reader(Channels(config, SERVICE)), sealer)
    add = webhooks_pb2_grpc.add_WebhooksServiceServicer_to_server
    servicers = [(add, WebhooksServicer(store, sender, sealer))]
    return Serving(SERVICE, servicers, records=RECORDS, background=[deliverer], prepare=store.prepare)


def consuming(config: ProcessConfig) -> WebhooksConsumer:
    """Return what `kehu consume webhooks` runs."""
    records.connect(config, SERVICE)
    return WebhooksConsumer(Queue(MongoWebhookStore(_sealer(config))))


def working(config: ProcessConfig) -> Mapping[str, Handler] | None:
    """Webhooks has no long work."""
    return None
