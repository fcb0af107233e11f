"""A lake in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.analytics.engine import Engine
from services.analytics.lake import Lake
from services.analytics.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    lake = Lake(tmp_path / "lake")
    lake.create()
    engine = Engine(tmp_path / "spill")
    yield Warehouse(lake, engine)
    engine.close()
