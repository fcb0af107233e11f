"""Where subscriptions, their deliveries and their turns are kept: the port, in MongoDB, in memory."""

from services.webhooks.store.memory import MemoryWebhookStore
from services.webhooks.store.mongo import RECORDS, MongoWebhookStore
from services.webhooks.store.port import WebhookStore

__all__ = ["RECORDS", "MemoryWebhookStore", "MongoWebhookStore", "WebhookStore"]
