"""The metric registry: one definition, one owner and one version per figure, and the statement that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.analytics.domain.errors import InvalidMetricQuery, MetricNotFound
from services.analytics.domain.tables import CHINA
from services.chassis.errors import FieldViolation

Value = str | int | datetime
FIRST_MONTH: Final = "1970-01"  # of the months that may be asked for; clocks cannot tell every year of four digits
LAST_MONTH: Final = "2999-12"

# Allowed dimensions of each source and the expression behind them; f is the source's row, p its profile.
_MONTH: Final = "strftime(make_timestamp(epoch_us(f.event_time) + 28800000000), '%Y-%m')"
_PROFILE: Final = {"region": "p.province_code", "tier": "p.tier", "gender": "p.gender"}
_DIMENSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "interactions": {**_PROFILE, "channel": "f.channel", "category": "f.category", "month": _MONTH},
    "deliveries": {
        **_PROFILE,
        "channel": "f.channel",
        "outcome": "f.outcome",
        "skip_reason": "f.skip_reason",
        "campaign": "f.campaign_id",
        "month": _MONTH,
    },
    "consents": {**_PROFILE, "channel": "f.channel", "purpose": "f.purpose_id", "state": "f.state", "month": _MONTH},
}
_BASKETS: Final = "count(DISTINCT coalesce(f.basket_id, f.message_id)){own}"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """A figure: what is counted, over which rows, in which unit. A change of meaning raises the version.

    `where_sql` says which rows of the source it is of, {own} in `value_sql` takes these. `parts_sql` says of which
    rows it and figures that follow from it are: few customers in one of these parts withhold a cell.
    """

    id: str
    version: int
    title: str
    title_zh: str
    definition: str
    owner_department: str
    unit: str
    source: str
    value_sql: str
    where_sql: str = "true"
    parts_sql: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the conditions of its parts; without any it is one itself."""
        return self.parts_sql or (self.where_sql,)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Return the dimensions it may be asked by."""
        return tuple(_DIMENSIONS[self.source])


_BOUGHT: Final = "f.event_type = 'order_completed'"
_REFUNDED: Final = "f.event_type = 'order_refunded'"
_MONEY: Final = f"({_BOUGHT} OR {_REFUNDED})"
_PARTS: Final = (_BOUGHT, _REFUNDED)  # sales = average basket x baskets - refunds: the one follows from the others
_ALL: Final = (
    MetricDefinition(
        "sales", 1, "Net sales", "净销售额",
        "Sum of order_completed and order_refunded amounts, refunds negative, by time of the event.",
        "sales", "CNY cents", "interactions", "sum(f.amount_cents){own}", _MONEY, _PARTS,
    ),
    MetricDefinition(
        "refunds", 1, "Refunds", "退款额",
        "Sum of order_refunded amounts, with the sign turned to positive.",
        "sales", "CNY cents", "interactions", "-(sum(f.amount_cents){own})", _REFUNDED, _PARTS,
    ),
    MetricDefinition(
        "baskets", 1, "Baskets", "购物篮数",
        "Different baskets with an order_completed line; a line without basket is one of its own.",
        "sales", "baskets", "interactions", _BASKETS, _BOUGHT,
    ),
    MetricDefinition(
        "active_customers", 1, "Active customers", "活跃客户数",
        "Different customers with an order_completed; merged profiles are one.",
        "marketing", "customers", "interactions", "count(DISTINCT f.owner){own}", _BOUGHT,
    ),
    MetricDefinition(
        "average_basket", 1, "Average basket", "客单价",
        "Sum of order_completed amounts divided by baskets, rounded half away from zero.",
        "sales", "CNY cents", "interactions", f"round(sum(f.amount_cents){{own}} / {_BASKETS})",
        _BOUGHT, _PARTS,
    ),
    MetricDefinition(
        "deliveries", 1, "Deliveries", "触达数",
        "Recipients of campaign runs by their latest outcome, skipped ones included.",
        "marketing", "deliveries", "deliveries", "count(*){own}",
    ),
    MetricDefinition(
        "consents", 1, "Consents", "授权数",
        "Latest state per customer, purpose and channel.",
        "data-office", "consents", "consents", "count(*){own}",
    ),
)  # fmt: skip
REGISTRY: Final[Mapping[str, MetricDefinition]] = {metric.id: metric for metric in _ALL}


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """One statement over the source, profiles and aliases.

    It yields dimension values, value, customers, rows, and the customers of each of the metric's parts.
    """

    sql: str
    params: Mapping[str, Value]
    tables: frozenset[str]
    since: datetime | None
    until: datetime | None


def find_metric(metric_id: str) -> MetricDefinition:
    """Return a registered metric.

    Raises:
        MetricNotFound: there is none of this id.
    """
    found = REGISTRY.get(metric_id)
    if found is None:
        raise MetricNotFound("no such metric; list /v1/metrics", metadata={"metric": metric_id})
    return found


def month_start(month: str, *, after: int = 0) -> datetime:
    """Return the first moment, China Standard Time, of a month YYYY-MM, or of `after` months later."""
    index = int(month[:4]) * 12 + int(month[5:]) - 1 + after
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=CHINA)


def compile_metric(
    metric: MetricDefinition,
    dimensions: Sequence[str],
    from_month: str,
    to_month: str,
    *,
    has_aliases: bool,
    reach: str = "true",
) -> MetricQuery:
    """Return the statement of a metric by dimensions, over whole months (empty: unbounded).

    `reach` is a condition on the profile p.

    Raises:
        InvalidMetricQuery: an unknown dimension, one twice, months out of bounds or the wrong way round.
    """
    _check(metric, dimensions, from_month, to_month)
    since = month_start(from_month) if from_month else None
    until = month_start(to_month, after=1) if to_month else None
    bounds: dict[str, Value | None] = {"since": since, "until": until}
    where = [f"({' OR '.join(metric.parts)})", reach]
    where += [
        f"f.event_time {symbol} ${name}"
        for name, symbol in (("since", ">="), ("until", "<"))
        if bounds[name] is not None
    ]
    keys = ", ".join(f"coalesce({_DIMENSIONS[metric.source][name]}, 'unknown')" for name in dimensions)
    tables = {metric.source, "profiles"} | ({"aliases"} if has_aliases else set())
    sql = _metric_sql(metric, keys, " AND ".join(where), has_aliases)
    params = {name: value for name, value in bounds.items() if value is not None}
    return MetricQuery(sql, params, frozenset(tables), since, until)


def _metric_sql(metric: MetricDefinition, keys: str, where: str, has_aliases: bool) -> str:
    owner = "coalesce(a.survivor_id, i.profile_id)" if has_aliases else "i.profile_id"
    join = " LEFT JOIN aliases a ON a.profile_id = i.profile_id" if has_aliases else ""
    own = f" FILTER (WHERE {metric.where_sql})"
    figures = [f"coalesce({metric.value_sql.format(own=own)}, 0)", f"count(DISTINCT f.owner){own}", f"count(*){own}"]
    figures += [f"count(DISTINCT f.owner) FILTER (WHERE {part})" for part in metric.parts]
    select = ", ".join([*([keys] if keys else []), *(f"({figure})::BIGINT" for figure in figures)])
    group = f" GROUP BY {keys} ORDER BY {keys}" if keys else ""
    return (
        f"owned AS (SELECT i.*, {owner} AS owner FROM {metric.source} i{join}) SELECT {select}"
        f" FROM owned f LEFT JOIN profiles p ON p.profile_id = f.owner AND NOT p.deleted WHERE {where}{group}"
    )


def _check(metric: MetricDefinition, dimensions: Sequence[str], from_month: str, to_month: str) -> None:
    violations = [
        FieldViolation(f"dimensions[{index}]", f"use one of {', '.join(metric.dimensions)}, once each")
        for index, name in enumerate(dimensions)
        if name not in metric.dimensions or name in dimensions[:index]
    ]
    violations += [
        FieldViolation(field, f"must be from {FIRST_MONTH} to {LAST_MONTH}")
        for field, month in (("from_month", from_month), ("to_month", to_month))
        if month and not FIRST_MONTH <= month <= LAST_MONTH
    ]
    if from_month and to_month and from_month > to_month:
        violations.append(FieldViolation("to_month", "must not be before from_month"))
    if violations:
        raise InvalidMetricQuery(
            "the metric has no such figure; see the violations",
            metadata={"metric": metric.id},
            violations=violations,
        )
