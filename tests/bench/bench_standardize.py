"""Standardization alone: records of the sample's three sources from texts to standard forms, on one core.

Our CPU time of `standardize`, reading and mapping the rows and starting left out; each record is taken once, so
that what is remembered of a text helps only where texts repeat, as surnames and places do. The second line names
the three steps that took most of a profiled run.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TypeAlias

from infra.sample.generate import generate
from infra.sample.reading import load_sources, read_rows
from services.chassis.server.garbage import spare_collections
from services.profiles.domain.sources import SourceSettings, read_row
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import RawRecord

REACH, PARTS = 100_000, 9  # the median of the parts: what else runs on the machine slows some of them
RECEIVED = datetime(2026, 11, 1, tzinfo=UTC)
Records: TypeAlias = Sequence[tuple[SourceSettings, RawRecord]]


def standardize_all(records: Records) -> None:
    """Standardize the records."""
    for source, raw in records:
        standardize(raw, source)


def rate_of(records: Records) -> float:
    """Return how many records a second of CPU time are standardized."""
    began = time.process_time()
    standardize_all(records)
    return len(records) / (time.process_time() - began)


def largest_steps(records: Records) -> str:
    """Return the three functions that took most time of their own, with their share of a profiled run."""
    profile = cProfile.Profile()
    profile.runcall(standardize_all, records)
    stats = pstats.Stats(profile)
    own = sorted(((entry[2], name[2]) for name, entry in stats.stats.items()), reverse=True)  # type: ignore[attr-defined]
    return ", ".join(f"{name} {seconds / stats.total_tt:.0%}" for seconds, name in own[:3])  # type: ignore[attr-defined]


def run(short: bool) -> list[dict[str, object]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        records = [
            (item.settings, read_row(item.settings, row, RECEIVED))
            for item in load_sources()
            for row in read_rows(item, Path(folder))
        ]
    warm, measured, profiled = records[::20], records[1::20] if short else records[1::2], records[2::20]
    standardize_all(warm)  # tables are loaded at first use
    spare_collections()  # as the processes that import do
    rate = median(rate_of(measured[part::PARTS]) for part in range(PARTS))
    return [
        {
            "figure": "standardization, records/s/core",
            "value": f"{rate:,.0f}",
            "reach": f"≥ {REACH:,}",
            "ok": None if short else rate >= REACH,
        },
        {"figure": "  of it", "value": largest_steps(profiled), "ok": None},
    ]
