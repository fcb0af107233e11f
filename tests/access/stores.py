"""The database that the stores of access are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import mongoengine
import pytest

from services.chassis import records

BOTH = ["memory", pytest.param("mongo", marks=pytest.mark.mongo)]


@contextmanager
def emptied(request: pytest.FixtureRequest, *collections: str) -> Iterator[None]:
    """Connect access to the session's server, these collections empty, until the block ends."""
    config = SimpleNamespace(mongo_uri=request.getfixturevalue("mongo_uri"), grpc_threads=8)
    records.connect(config, "access")  # type: ignore[arg-type]
    for name in collections:
        records.database("access")[name].drop()
    try:
        yield
    finally:
        mongoengine.disconnect("access")
