"""Compute the scores of all profiles into the lake; merged profiles are one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.analytics.domain import rfm
from services.analytics.domain.tables import SCORES
from services.analytics.engine import Params
from services.analytics.lake import ROW_GROUP_ROWS
from services.analytics.warehouse import Warehouse

MEASURES: Final = ("recency_days", "baskets", "monetary_cents")


@dataclass(frozen=True, slots=True)
class Computation:
    """What a computation found."""

    cutoff: datetime
    profile_count: int
    cut_points: tuple[tuple[str, tuple[int, ...]], ...]
    segment_counts: tuple[tuple[str, int], ...]


def compute_scores(warehouse: Warehouse) -> Computation:
    """Measure every live profile with a purchase, cut into quintiles, and replace the table of scores."""
    pinned = warehouse.pin([])
    versions = "-".join(str(version) for _, version in sorted(pinned.versions.items()))
    live = "SELECT p.profile_id FROM profiles p WHERE NOT p.deleted AND p.merged_into IS NULL"
    measures = rfm.measures_sql(has_aliases=pinned.has_aliases)
    body = f"SELECT m.* FROM ({measures}) m SEMI JOIN ({live}) USING (profile_id)"
    tables = ["interactions", "profiles", *(["aliases"] if pinned.has_aliases else [])]
    bound = {"cutoff": pinned.cutoff, "purchase": rfm.PURCHASE, "refund": rfm.REFUND}
    statement, params = warehouse.statement(pinned, tables, body, bound)
    path = warehouse.derived.file(
        f"rfm-{versions}", lambda draft: warehouse.engine.copy(statement, params, draft, ROW_GROUP_ROWS)
    )
    return _score(warehouse, {"measured": [str(path)]}, pinned.cutoff)


def _score(warehouse: Warehouse, params: Params, cutoff: datetime) -> Computation:
    measures = "WITH measures AS (FROM read_parquet($measured))"
    (cuts,) = warehouse.engine.rows(f"{measures} {rfm.cut_points_sql()}", params)
    columns = ", ".join(name for name in SCORES.columns if name not in ("definition_version", "data_cutoff"))
    scored = (
        f"{measures}, cuts AS ({rfm.cut_points_sql()}) SELECT {columns}, $definition AS definition_version,"
        f" $cutoff AS data_cutoff FROM ({rfm.scores_sql()}) ORDER BY profile_id"
    )
    bound: Params = {**params, "definition": rfm.DEFINITION_VERSION, "cutoff": cutoff}
    warehouse.replace(SCORES, scored, bound)
    counts = f"SELECT rfm_segment, count(*) FROM ({scored}) GROUP BY rfm_segment ORDER BY rfm_segment"
    segments = tuple((str(name), int(str(count))) for name, count in warehouse.engine.rows(counts, bound))
    return Computation(
        cutoff,
        sum(count for _, count in segments),
        tuple(
            (name, tuple(int(value) for value in found))
            for name, found in zip(MEASURES, cuts, strict=True)
            if isinstance(found, list)
        ),
        segments,
    )
