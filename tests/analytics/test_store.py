"""Computations: one suite for memory and MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mongoengine
import pytest
from kehu.analytics.v1.events_pb2 import ScoresComputed

from services.analytics.store import (
    RECORD_CLASSES,
    ComputationDocument,
    Computations,
    MemoryComputations,
    MongoComputations,
)
from services.chassis import records

Versions = Callable[[], list[int]]


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def kept(request: pytest.FixtureRequest) -> Iterator[tuple[Computations, Versions]]:
    """A store and the versions of the facts it has told."""
    if request.param == "memory":
        memory = MemoryComputations()
        yield memory, lambda: [fact.version for fact in memory.facts]
        return
    uri = request.getfixturevalue("mongo_uri")
    mongoengine.connect(db="kehu_analytics_store", alias="analytics", host=uri, tz_aware=True)
    ComputationDocument.drop_collection()
    records.ensure_indexes(RECORD_CLASSES)
    yield MongoComputations(), lambda: [entry["version"] for entry in ComputationDocument.objects.get().outbox]
    mongoengine.disconnect(alias="analytics")


def test_each_computation_tells_its_fact_once(kept: tuple[Computations, Versions]) -> None:
    store, versions = kept
    for operation in ("operations/a", "operations/a", "operations/b"):
        store.record(operation, lambda version: ScoresComputed(name="scores/rfm", version=version))

    assert versions() == [1, 2]
