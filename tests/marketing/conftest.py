"""A run on either store."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import mongoengine
import pytest

from services.chassis import records
from services.chassis.jobs import MongoOperations
from services.marketing.documents import RECORD_CLASSES
from services.marketing.store_mongo import MongoMarketingStore
from tests.marketing.world import World


@pytest.fixture(scope="module")
def mongo_stores(mongo_uri):
    records.connect(SimpleNamespace(mongo_uri=mongo_uri, grpc_threads=4), "marketing")
    records.ensure_indexes(RECORD_CLASSES)
    operations = MongoOperations("marketing")
    operations.ensure_indexes()
    yield MongoMarketingStore(), operations
    mongoengine.disconnect("marketing")


@pytest.fixture(params=["memory", "mongo"])
def world(request):
    stores = None if request.param == "memory" else request.getfixturevalue("mongo_stores")
    if stores is not None:
        records.database("marketing")["operations"].delete_many({})  # a worker takes whatever is due
    return World(people=50, page_size=30, prefix=uuid.uuid4().hex[:8], stores=stores)
