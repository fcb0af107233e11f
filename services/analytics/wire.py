"""Between protos and what the readers return."""

from __future__ import annotations

from collections.abc import Sequence

from kehu.analytics.v1 import analytics_pb2 as pb

from services.analytics.domain.metrics import MetricDefinition
from services.analytics.domain.rfm import SEGMENTS
from services.analytics.domain.tables import SCORES
from services.analytics.engine import Row
from services.analytics.reading import MEASURED, Figures, Position, moment_of

CURRENCY = "CNY"


def interaction(row: Row, profile_id: str) -> pb.Interaction:
    """Return an interaction of Reader.interactions under the surviving profile's name."""
    message, micros, event_type, cents, channel, category, basket, product, quantity = row
    return pb.Interaction(
        profile=f"profiles/{profile_id}",
        message_id=str(message),
        event_type=str(event_type),
        event_time=moment_of(micros),
        amount_cents=int(str(cents or 0)),
        currency=CURRENCY,
        channel=str(channel or ""),
        category=str(category or ""),
        basket_id=str(basket or ""),
        product_id=str(product or ""),
        quantity=int(str(quantity or 0)),
    )


def position(row: Row) -> Position:
    """Return where a page that ends with this row ended."""
    return Position(int(str(row[1])), str(row[0]))


def measured(row: Row) -> pb.MeasuredProfile:
    """Return a row of Reader.measured."""
    values = {name: value for name, value in zip(MEASURED, row, strict=True) if value is not None}
    return pb.MeasuredProfile(**values)  # type: ignore[arg-type]


def scores(row: Row, name: str) -> pb.Scores:
    """Return the scores of Reader.scores."""
    found = dict(zip(SCORES.columns, row, strict=True))
    numbers = {
        key: int(str(found[key]))
        for key in (
            "rfm_recency",
            "rfm_frequency",
            "rfm_monetary",
            "recency_days",
            "baskets",
            "monetary_cents",
        )
    }
    segment = str(found["rfm_segment"])
    return pb.Scores(
        name=name,
        rfm_segment=segment,
        rfm_segment_title=SEGMENTS.get(segment, ""),
        currency=CURRENCY,
        definition_version=str(found["definition_version"]),
        data_cutoff=moment_of(found["data_cutoff"]),
        **numbers,
    )


def metric(definition: MetricDefinition) -> pb.Metric:
    """Return a registered metric."""
    return pb.Metric(
        name=f"metrics/{definition.id}",
        definition_version=definition.version,
        title=definition.title,
        title_zh=definition.title_zh,
        definition=definition.definition,
        owner_department=definition.owner_department,
        unit=definition.unit,
        dimensions=definition.dimensions,
    )


def figures(definition: MetricDefinition, found: Figures) -> pb.QueryMetricResponse:
    """Return the figures of a metric."""
    return pb.QueryMetricResponse(
        metric=metric(definition),
        data_cutoff=found.cutoff,
        rows=[_row(cell, value, customers) for cell, value, customers in found.cells],
        suppressed_cell_count=found.suppressed,
        source_row_count=found.source_rows,
    )


def _row(cell: Sequence[str], value: int, customers: int) -> pb.MetricRow:
    return pb.MetricRow(dimension_values=cell, value=value, customer_count=customers)
