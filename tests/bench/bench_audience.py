"""Audience of a 5-condition segment over the lake, against the same SQL written by hand in DuckDB over the same files.

Full: 1 M profiles, 20 M transactions over three years, 10,000 merged profiles. Short: a hundredth of it.
Both sides run in one process on connections of equal memory and threads, interleaved; ours includes reading the
Delta log and compiling the rule, the peer has its file lists ready. Results must be equal.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from kehu.analytics.v1 import audience_pb2 as pb

from services.analytics.audiences import Audiences
from services.analytics.derived import Derived
from services.analytics.domain.tables import ALIASES, INTERACTIONS, PROFILES
from services.analytics.engine import MEMORY_LIMIT, THREADS, Engine
from services.analytics.lake import Lake
from services.analytics.warehouse import Pinned, Warehouse

REACH = 1.2
ROUNDS = 5
START = datetime(2023, 1, 1, tzinfo=UTC)
DAYS = 3 * 365
PROVINCES = ("110000", "310000", "320000", "330000", "370000", "440000", "510000", "420000")


def rule() -> pb.AudienceRule:
    """Return women of 25 to 45 in three provinces with 3 baskets and 500 yuan in half a year."""

    def trait(name: str, operator: pb.Operator, *values: str) -> pb.AudienceRule:
        return pb.AudienceRule(trait=pb.TraitCondition(trait=name, operator=operator, values=values))

    def bought(measure: pb.Measure, value: int) -> pb.AudienceRule:
        return pb.AudienceRule(
            event=pb.EventCondition(
                event_type="order_completed",
                measure=measure,
                operator=pb.OPERATOR_GE,
                value=value,
                within_days=180,
            )
        )

    conditions = [
        trait("gender", pb.OPERATOR_EQ, "female"),
        trait("age", pb.OPERATOR_GE, "25"),
        trait("province_code", pb.OPERATOR_IN, *PROVINCES[:3]),
        bought(pb.MEASURE_COUNT, 3),
        bought(pb.MEASURE_SUM_CENTS, 50_000),
    ]
    return pb.AudienceRule(all=pb.RuleGroup(rules=conditions))


BY_HAND = """
WITH spent AS (
    SELECT coalesce(a.survivor_id, i.profile_id) AS profile_id, count(*) AS orders, sum(i.amount_cents) AS cents
    FROM read_parquet($interactions) i LEFT JOIN read_parquet($aliases) a ON a.profile_id = i.profile_id
    WHERE i.event_type = 'order_completed' AND i.event_time > $since
    GROUP BY ALL
)
SELECT p.profile_id FROM read_parquet($profiles) p JOIN spent s ON s.profile_id = p.profile_id
WHERE NOT p.deleted AND p.merged_into IS NULL AND p.gender = 'female' AND $year - p.birth_year >= 25
  AND p.province_code IN ('110000', '310000', '320000') AND s.orders >= 3 AND s.cents >= 50000
ORDER BY p.profile_id
"""


def ids(numbers: np.ndarray) -> pa.Array:
    """Return 32-digit ids as the profiles service gives them, the same for the same number."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return pa.array([f"{number:016x}{number ^ 0xABCDEF:016x}" for number in mixed.tolist()], pa.string())


def constant(value: object, count: int, kind: pa.DataType) -> pa.Array:
    """Return an array of one value."""
    return pa.repeat(pa.scalar(value, kind), count)


def write_profiles(warehouse: Warehouse, names: pa.Array, merged: int, rng: np.random.Generator) -> None:
    """Write the profiles' base states, and the aliases of the merged ones (each into the next)."""
    count = len(names)
    into = pa.concat_arrays([names.slice(merged, merged), pa.nulls(count - merged, pa.string())])
    columns = {
        "profile_id": names,
        "version": constant(1, count, pa.int64()),
        "deleted": pa.array(rng.random(count) < 0.01),
        "merged_into": into,
        "province_code": pa.array(np.array(PROVINCES)[rng.integers(0, len(PROVINCES), count)].tolist()),
        "city_code": constant("110100", count, pa.string()),
        "district_code": constant("110101", count, pa.string()),
        "gender": pa.array(np.array(["male", "female"])[rng.integers(0, 2, count)].tolist()),
        "birth_year": pa.array(rng.integers(1945, 2008, count).astype(np.int32)),
        "tier": pa.array(np.array(["gold", "silver", "none"])[rng.integers(0, 3, count)].tolist()),
        "owner_department": constant("marketing", count, pa.string()),
        "event_time": constant(START, count, pa.timestamp("us", "UTC")),
        "part": constant("base", count, pa.string()),
    }
    warehouse.lake.append(warehouse.lake.snapshot(PROFILES), pa.table(columns))
    links = {
        "profile_id": names.slice(0, merged),
        "survivor_id": names.slice(merged, merged),
        "event_time": constant(START, merged, pa.timestamp("us", "UTC")),
        "part": constant("base", merged, pa.string()),
    }
    warehouse.lake.append(warehouse.lake.snapshot(ALIASES), pa.table(links))


def write_month(
    warehouse: Warehouse, names: pa.Array, buyers: np.ndarray, month: int, rng: np.random.Generator
) -> None:
    """Write one of 36 equal spans of orders, sorted by profile as tidying leaves them."""
    order = np.argsort(buyers, kind="stable")
    count = len(buyers)
    span = DAYS * 86_400 // 36
    seconds = rng.integers(month * span, (month + 1) * span, count)[order]
    times = np.datetime64(START.replace(tzinfo=None), "us") + seconds.astype("timedelta64[s]")
    text = times.astype("datetime64[M]").astype(str)
    columns = {
        "message_id": pa.array([f"t{month:02d}-{number}" for number in range(count)]),
        "profile_id": names.take(pa.array(buyers[order])),
        "event_type": constant("order_completed", count, pa.string()),
        "event_time": pa.array(times, pa.timestamp("us", "UTC")),
        "amount_cents": pa.array(np.round(rng.lognormal(8.5, 0.8, count)).astype(np.int64)),
        "channel": constant("store", count, pa.string()),
        "category": constant("GROCERY", count, pa.string()),
        "basket_id": pa.nulls(count, pa.string()),
        "product_id": pa.array(rng.integers(1, 50_000, count)).cast(pa.string()),
        "quantity": constant(1, count, pa.int32()),
        "month": pa.array(text.tolist()),
    }
    warehouse.lake.append(warehouse.lake.snapshot(INTERACTIONS), pa.table(columns))


def generate(warehouse: Warehouse, profiles: int, orders: int) -> None:
    """Fill the lake: buying rates are gamma-distributed, so that few buy much."""
    rng = np.random.default_rng(3)
    rates = np.cumsum(rng.gamma(0.6, 1, profiles) + 0.02)
    order = np.argsort((np.arange(profiles, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    names = ids(order)
    write_profiles(warehouse, names, profiles // 100, rng)
    for month in range(36):
        buyers = np.searchsorted(rates, rng.random(orders // 36) * rates[-1])
        write_month(warehouse, names, buyers, month, rng)


def by_hand(database: duckdb.DuckDBPyConnection, pinned: Pinned, draft: Path) -> Callable[[], int]:
    """Return the peer: the same result written to a file the same way."""
    params = {
        **{name: snapshot.paths() for name, snapshot in pinned.snapshots.items() if name != "scores"},
        "since": pinned.cutoff - timedelta(days=180),
        "year": pinned.cutoff.year,
    }
    params["interactions"] = pinned.snapshots["interactions"].paths(since=pinned.cutoff - timedelta(days=180))

    def run_once() -> int:
        statement = f"COPY ({BY_HAND}) TO '{draft}' (FORMAT parquet, ROW_GROUP_SIZE 20480)"
        (row,) = database.execute(statement, params).fetchall()
        return int(row[0])

    return run_once


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Return seconds and the size found."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def ours(warehouse: Warehouse, folder: Path) -> Callable[[], int]:
    """Return our side: pin, compile, evaluate, keep the result, read the first page."""

    def run_once() -> int:
        shutil.rmtree(folder / "lake" / "_derived")
        warehouse.derived = Derived(folder / "lake" / "_derived")
        audiences = Audiences(warehouse)
        return audiences.page(rule(), audiences.pin(), 0, 500).total

    return run_once


def measure(warehouse: Warehouse, folder: Path) -> tuple[list[float], list[float]]:
    """Return the times of both, interleaved; they must find the same."""
    config = {"memory_limit": MEMORY_LIMIT, "threads": THREADS, "temp_directory": str(folder / "peer-spill")}
    database = duckdb.connect(":memory:", config=config)
    database.execute("SET TimeZone = 'UTC'")
    database.execute("SET parquet_metadata_cache = true")
    pinned = Audiences(warehouse).pin()
    sides = (ours(warehouse, folder), by_hand(database, pinned, folder / "peer.parquet"))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        found = set()
        for side in (0, 1) if number % 2 else (1, 0):
            seconds, size = timed(sides[side])
            found.add(size)
            if number:  # the first round warms the page cache for both
                times[side].append(seconds)
        if len(found) != 1 or 0 in found:
            raise RuntimeError(f"the audiences differ or are empty: {sorted(found)}")
    database.close()
    return times


def run(short: bool) -> list[dict[str, object]]:
    """Measure and return one row of the bench table; ratio is our time by the peer's, pair by pair."""
    profiles, orders = (10_000, 200_000) if short else (1_000_000, 20_000_000)
    with tempfile.TemporaryDirectory(prefix="kehu-bench-") as name:
        folder = Path(name)
        lake = Lake(folder / "lake")
        lake.create()
        engine = Engine(folder / "spill")
        warehouse = Warehouse(lake, engine)
        generate(warehouse, profiles, orders)
        mine, peer = measure(warehouse, folder)
        engine.close()
    ratio = statistics.median(a / b for a, b in zip(mine, peer, strict=True))
    return [
        {
            "figure": f"audience of 5 conditions, {profiles:,} profiles, {orders:,} transactions: time",
            "value": f"{statistics.median(mine):.3f} s",
            "peer": f"{statistics.median(peer):.3f} s (DuckDB {duckdb.__version__}, SQL by hand)",
            "ratio": round(ratio, 2),
            "reach": f"<= {REACH}",
            "ok": short or ratio <= REACH,
        }
    ]


if __name__ == "__main__":
    import sys

    print(run("--short" in sys.argv))
