"""Read one profile's interactions and scores, and the figures of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.analytics.domain.errors import InvalidMetricQuery
from services.analytics.domain.metrics import MetricDefinition, compile_metric
from services.analytics.domain.reach import Reach
from services.analytics.domain.suppression import Period, withheld
from services.analytics.domain.tables import CONSENTS, DELIVERIES, MOVED, SCORES
from services.analytics.engine import Params, Row
from services.analytics.lake import Snapshot
from services.analytics.warehouse import Pinned, Warehouse

MEASURED: Final = (
    "profile_id", "rfm_recency", "rfm_frequency", "rfm_monetary", "recency_days", "tenure_days", "baskets",
    "monetary_cents",
)  # fmt: skip
MOST_CELLS: Final = 100_000  # of a metric by month; what to withhold among them is told in one to three seconds
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERACTION: Final = (
    "message_id, epoch_us(event_time), event_type, amount_cents, channel, category, basket_id, product_id, quantity"
)


def micros(moment: datetime) -> int:
    """Return microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(value: object) -> datetime:
    """Return the time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=int(str(value)))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: everything later was shown."""

    time_micros: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Cells that may be shown, how many may not, and how many rows are behind those shown."""

    cells: tuple[tuple[tuple[str, ...], int, int], ...]  # dimension values, value, customers
    suppressed: int
    source_rows: int
    cutoff: datetime


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell before anything is withheld."""

    value: int
    customers: int
    rows: int
    parts: tuple[int, ...]  # customers of each part of the metric


class Reader:
    """Questions about the lake that are answered at once."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def survivor(self, profile_id: str, pinned: Pinned) -> str:
        """Return the id that a profile lives on under."""
        if not pinned.has_aliases:
            return profile_id
        body = "SELECT survivor_id FROM aliases WHERE profile_id = $id"
        rows = self._warehouse.rows(pinned, ["aliases"], body, {"id": profile_id})
        return str(rows[0][0]) if rows else profile_id

    def reaches(self, profile_id: str, pinned: Pinned, reach: Reach) -> bool:
        """Say whether the caller's row filter lets this profile through; an unknown one passes no filter."""
        if not reach.clauses:
            return True
        where, params = reach.where()
        body = f"SELECT count(*) FROM profiles p WHERE p.profile_id = $id AND {where}"
        (row,) = self._warehouse.rows(pinned, ["profiles"], body, {"id": profile_id, **params})
        return row[0] == 1

    def interactions(self, profile_id: str, pinned: Pinned, after: Position | None, limit: int) -> list[Row]:
        """Return a profile's latest interactions, its merged ids' included; reads the newest months first.

        Rows of records that went to another profile are not its own; only where records came to it by a split are the
        files read without the help of their order by profile.
        """
        ids = {profile_id}
        if pinned.has_aliases:
            body = "SELECT profile_id FROM aliases WHERE survivor_id = $id"
            ids |= {str(row[0]) for row in self._warehouse.rows(pinned, ["aliases"], body, {"id": profile_id})}
        names = {f"id{index}": value for index, value in enumerate(sorted(ids))}
        params: dict[str, object] = {**names}
        mine = f"profile_id IN ({', '.join(f'${name}' for name in names)})"
        source, where = self._whose(pinned, mine, params)
        if after is not None:
            where += " AND (epoch_us(event_time), message_id) < ($time, $message)"
            params |= {"time": after.time_micros, "message": after.message_id}
        found: list[Row] = []
        for part in _newest_first(pinned.snapshots["interactions"], after):
            body = (
                f"SELECT {_INTERACTION} FROM {source} WHERE {where}"
                f" ORDER BY event_time DESC, message_id DESC LIMIT {limit - len(found)}"
            )
            within = replace(pinned, snapshots={**pinned.snapshots, "interactions": part})
            found += self._warehouse.rows(within, ["interactions"], body, params)
            if len(found) >= limit:
                break
        return found

    def _whose(self, pinned: Pinned, mine: str, params: Params) -> tuple[str, str]:
        """Return the relation and the condition of a profile's rows; `mine` is that the profile is one of its ids."""
        if not pinned.has_moved:
            return "interactions", mine
        body = f"SELECT count(*) FROM moved_records WHERE {mine}"
        ((came,),) = self._warehouse.rows(pinned, [MOVED.name], body, params)
        if came:
            return "interactions", mine
        gone = "(SELECT record FROM moved_records)"
        return "told_interactions", f"{mine} AND (record IS NULL OR record NOT IN {gone})"

    def scores(self, profile_id: str) -> Row | None:
        """Return a profile's scores: the columns of the table, times in microseconds."""
        pinned = self._warehouse.pin([SCORES])
        columns = ", ".join(
            f"epoch_us({name})" if kind == "timestamp" else name for name, kind in SCORES.columns.items()
        )
        body = f"SELECT {columns} FROM scores WHERE profile_id = $id"
        rows = self._warehouse.rows(pinned, ["scores"], body, {"id": profile_id})
        return rows[0] if rows else None

    def measured(self, profile_ids: Sequence[str]) -> tuple[list[Row], tuple[datetime, datetime] | None]:
        """Return what the last computation measured of profiles, its data cut-off and end; None if there was none.

        Fast where the ids lie close together, for the table is in their order: an id apart costs a reading of it all.
        """
        pinned = self._warehouse.pin([SCORES])
        cutoff = self._warehouse.rows(pinned, ["scores"], "SELECT epoch_us(data_cutoff) FROM scores LIMIT 1", {})
        if not cutoff:
            return [], None
        ended = max(file.written for file in pinned.snapshots[SCORES.name].files)
        body = (
            f"SELECT {', '.join(MEASURED)} FROM scores SEMI JOIN (SELECT unnest($ids) AS profile_id) USING (profile_id)"
        )
        rows = self._warehouse.rows(pinned, ["scores"], body, {"ids": list(profile_ids)}) if profile_ids else []
        return rows, (moment_of(cutoff[0][0]), ended)

    def figures(
        self, metric: MetricDefinition, dimensions: Sequence[str], months: tuple[str, str], reach: Reach
    ) -> Figures:
        """Return a metric's figures; what could tell of few customers is withheld (see domain/suppression.py).

        Raises:
            InvalidMetricQuery: by these dimensions and month it has more cells than can be judged at once.
        """
        pinned = self._warehouse.pin([DELIVERIES, CONSENTS])
        cells = self._cells(pinned, metric, dimensions, months, reach)
        finest = [name for name in dimensions if name != "month"] + ["month"]
        by_month = self._cells(pinned, metric, finest, ("", ""), reach)
        month_at = list(dimensions).index("month") if "month" in dimensions else -1
        hidden = {
            key
            for part in range(len(metric.parts))
            for key in withheld(_customers(cells, part), _customers(by_month, part), Period(*months), month_at)
        }
        own = {key: cell for key, cell in cells.items() if cell.rows}
        shown = {key: cell for key, cell in own.items() if key not in hidden}
        told = tuple((key, cell.value, cell.customers) for key, cell in shown.items())
        rows = sum(cell.rows for cell in shown.values())
        return Figures(told, len(own) - len(shown), rows, pinned.cutoff)

    def _cells(
        self,
        pinned: Pinned,
        metric: MetricDefinition,
        dimensions: Sequence[str],
        months: tuple[str, str],
        reach: Reach,
    ) -> dict[tuple[str, ...], _Cell]:
        where, extra = reach.where()
        query = compile_metric(metric, dimensions, *months, has_aliases=pinned.has_aliases, reach=where)
        tables, params = sorted(query.tables), {**query.params, **extra}
        sql = f"{query.sql} LIMIT {MOST_CELLS + 1}"
        rows = self._warehouse.rows(pinned, tables, sql, params, query.since, query.until)
        if len(rows) > MOST_CELLS:
            raise InvalidMetricQuery(
                f"the metric has more than {MOST_CELLS} cells by month; ask for fewer dimensions",
                metadata={"metric": metric.id},
            )
        found: dict[tuple[str, ...], _Cell] = {}
        for row in rows:
            key = tuple(map(str, row[: len(dimensions)]))
            value, customers, count, *parts = (int(str(figure)) for figure in row[len(dimensions) :])
            found[key] = _Cell(value, customers, count, tuple(parts))
        return found


def _customers(cells: Mapping[tuple[str, ...], _Cell], part: int) -> dict[tuple[str, ...], int]:
    """Return the cells that a part of a metric has, with its customers."""
    return {key: cell.parts[part] for key, cell in cells.items() if cell.parts[part]}


def _newest_first(snapshot: Snapshot, after: Position | None) -> Iterator[Snapshot]:
    """Yield the months of a snapshot, newest first, in growing groups; months after the position are left out."""
    last = "9999-12" if after is None else moment_of(after.time_micros).strftime("%Y-%m")
    months = sorted({file.partition for file in snapshot.files if file.partition <= last}, reverse=True)
    size = 2
    while months:
        group, months = set(months[:size]), months[size:]
        size *= 2
        yield replace(snapshot, files=tuple(file for file in snapshot.files if file.partition in group))
