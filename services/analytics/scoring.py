"""Compute the scores of all profiles into the lake; merged profiles are one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.analytics.domain import rfm
from services.analytics.domain.tables import RESCORED, SCORES
from services.analytics.engine import Params, joined, relations
from services.analytics.lake import RECENT, ROW_GROUP_ROWS, Snapshot, arrow_schema
from services.analytics.reading import moment_of
from services.analytics.warehouse import Pinned, Warehouse
from services.chassis.errors import Unavailable

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
    started = datetime.now(UTC)
    pinned = warehouse.pin([])
    versions = "-".join(str(version) for _, version in sorted(pinned.versions.items()))
    live = "SELECT p.profile_id FROM profiles p WHERE NOT p.deleted AND p.merged_into IS NULL"
    measures = rfm.measures_sql(has_aliases=pinned.has_aliases)
    body = f"SELECT m.* FROM ({measures}) m SEMI JOIN ({live}) USING (profile_id)"
    tables = ["interactions", "profiles", *(["aliases"] if pinned.has_aliases else [])]
    bound = {"cutoff": pinned.cutoff, "purchase": rfm.PURCHASE, "refund": rfm.REFUND}
    statement, params = warehouse.statement(pinned, tables, body, bound)
    path = warehouse.derived.file(
        f"rfm-tenure-{versions}", lambda draft: warehouse.engine.copy(statement, params, draft, ROW_GROUP_ROWS)
    )
    found = _score(warehouse, {"measured": [str(path)]}, pinned.cutoff)
    _forget_rescored(warehouse, started)
    return found


def rescore(warehouse: Warehouse, profile_ids: Sequence[str]) -> int:
    """Score anew these profiles, merged or split since the last computation; return how many have scores now.

    Measured to the cut-off and scored by the cut points of that computation: they are as if it had known.
    """
    pinned = warehouse.pin([SCORES])
    if not pinned.snapshots[SCORES.name].rows:
        return 0
    cuts = [str(_last_cuts(warehouse, pinned.snapshots[SCORES.name]))]
    ((cutoff,),) = warehouse.engine.rows("SELECT cutoff FROM read_parquet($cuts)", {"cuts": cuts})
    measured, params = _measured(warehouse, pinned, profile_ids, int(str(cutoff)))
    columns = ", ".join(name for name in SCORES.columns if name not in ("definition_version", "data_cutoff"))
    body = (
        f"asked AS (SELECT unnest($asked::VARCHAR[]) AS profile_id), cuts AS (FROM read_parquet($cuts)), measures AS"
        f" MATERIALIZED ({measured}), scored AS ({rfm.scores_sql()}) SELECT {columns}, $definition AS"
        " definition_version, make_timestamptz($cutoff_us) AS data_cutoff, $now::TIMESTAMPTZ AS event_time,"
        f" '{RECENT}' AS part FROM asked LEFT JOIN scored USING (profile_id)"
    )
    tables = ["interactions", *(["aliases"] if pinned.has_aliases else [])]
    bound = {**params, "cuts": cuts, "asked": sorted(set(profile_ids)), "definition": rfm.DEFINITION_VERSION,
             "now": datetime.now(UTC), "cutoff_us": cutoff}  # fmt: skip
    statement, merged = warehouse.statement(pinned, tables, body, bound)
    rows = warehouse.engine.table(statement, merged)
    warehouse.add(RESCORED, rows.select(list(RESCORED.columns)).cast(arrow_schema(RESCORED)))
    return int(rows.num_rows - rows.column("rfm_segment").null_count)


def _last_cuts(warehouse: Warehouse, scores: Snapshot) -> Path:
    """Return the file of the last computation's cut points and data cut-off, made when it is asked for first."""
    parts, params = relations([scores])
    body = f"measures AS (SELECT * FROM {SCORES.name}) {rfm.cut_points_sql()}"
    statement = joined(parts, body.replace(" FROM measures", ", epoch_us(max(data_cutoff)) AS cutoff FROM measures"))
    return warehouse.derived.file(
        f"cuts-{scores.version}", lambda draft: warehouse.engine.copy(statement, params, draft, ROW_GROUP_ROWS)
    )


def _measured(
    warehouse: Warehouse, pinned: Pinned, profile_ids: Sequence[str], cutoff_us: int
) -> tuple[str, dict[str, object]]:
    """Return the statement that measures profiles to a cut-off; reads their own rows only where it can tell them."""
    sql = rfm.measures_sql(has_aliases=pinned.has_aliases)
    within = "epoch_us(i.event_time) <= $cutoff_us"
    params: dict[str, object] = {"cutoff": moment_of(cutoff_us), "purchase": rfm.PURCHASE, "refund": rfm.REFUND}
    if not pinned.has_moved:
        within += " AND i.profile_id IN (SELECT unnest($members::VARCHAR[]))"
        params["members"] = _with_former(warehouse, pinned, profile_ids)
    sql = sql.replace(" WHERE ", f" WHERE {within} AND ", 1)
    return f"SELECT * FROM ({sql}) WHERE profile_id IN (SELECT unnest($asked::VARCHAR[]))", params


def _with_former(warehouse: Warehouse, pinned: Pinned, profile_ids: Sequence[str]) -> list[str]:
    ids = set(profile_ids)
    if pinned.has_aliases:
        body = "SELECT profile_id FROM aliases WHERE survivor_id IN (SELECT unnest($ids::VARCHAR[]))"
        ids |= {str(row[0]) for row in warehouse.rows(pinned, ["aliases"], body, {"ids": sorted(ids)})}
    return sorted(ids)


def _forget_rescored(warehouse: Warehouse, started: datetime) -> None:
    """Drop what the computation that began then covers; profiles split since then stay rescored."""
    snapshot = warehouse.lake.snapshot(RESCORED)
    if snapshot.rows:
        parts, params = relations([snapshot])
        kept = f"SELECT *, '{RECENT}' AS part FROM {RESCORED.name} WHERE event_time > $started"
        with suppress(Unavailable):  # the lake changed meanwhile: the next computation drops them
            warehouse.replace(snapshot, joined(parts, kept), {**params, "started": started})


def _score(warehouse: Warehouse, params: Params, cutoff: datetime) -> Computation:
    before = warehouse.lake.snapshot(SCORES)
    measures = "WITH measures AS (FROM read_parquet($measured))"
    (cuts,) = warehouse.engine.rows(f"{measures} {rfm.cut_points_sql()}", params)
    named = {"definition_version": "$definition AS definition_version", "data_cutoff": "$cutoff AS data_cutoff"}
    columns = ", ".join(named.get(name, name) for name in SCORES.columns)
    scored = (
        f"{measures}, cuts AS ({rfm.cut_points_sql()}) SELECT {columns} FROM ({rfm.scores_sql()}) ORDER BY profile_id"
    )
    bound: Params = {**params, "definition": rfm.DEFINITION_VERSION, "cutoff": cutoff}
    warehouse.replace(before, scored, bound)
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
