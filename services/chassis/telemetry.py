"""Metrics for Prometheus and spans through the OpenTelemetry API; labels never hold a person's value."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from prometheus_client import Counter, Gauge, Histogram, start_http_server

RPC_SECONDS = Histogram(
    "kehu_rpc_seconds",
    "Time of a served call",
    ["service", "method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
EVENTS = Counter("kehu_events_total", "Events by outcome", ["service", "event", "outcome"])
OUTBOX_LAG = Gauge("kehu_outbox_lag_seconds", "Age of the oldest unpublished fact", ["service"])
TURNS_FAILED = Counter("kehu_turns_failed_total", "Turns of threads that failed", ["thread"])
JOBS = Counter("kehu_jobs_total", "Jobs by outcome", ["service", "kind", "outcome"])
DECISIONS = Counter("kehu_decisions_total", "Access decisions", ["service", "resource", "action", "outcome"])
POLICY_REVISION = Gauge("kehu_policy_revision", "Number of the policy in force in this process")
POLICY_ANSWERED = Gauge("kehu_policy_answered_timestamp_seconds", "When access last answered whether it is the newest")
SHADOWED = Counter("kehu_policy_shadow_total", "Decisions of a candidate policy beside the live ones", ["outcome"])

_tracer = trace.get_tracer("kehu")


def serve_metrics(host: str, port: int) -> None:
    """Serve /metrics on a port of its own; port 0 serves none."""
    if port:
        start_http_server(port, addr=host)


class _Tracing:
    """Whether there is an SDK: looked up once a second, for the API reads the environment each time."""

    is_on = False
    known_until = 0.0


def tracing_is_on() -> bool:
    """Say whether an OpenTelemetry SDK was installed in this process; without one spans cost and do nothing."""
    now = time.monotonic()
    if now >= _Tracing.known_until:
        _Tracing.is_on = type(trace.get_tracer_provider()).__name__ != "ProxyTracerProvider"
        _Tracing.known_until = now + 1.0
    return _Tracing.is_on


@contextmanager
def span(name: str, carrier: Mapping[str, str]) -> Iterator[None]:
    """Run the block in a span that continues the caller's trace."""
    if not tracing_is_on():
        yield
        return
    with _tracer.start_as_current_span(name, context=propagate.extract(dict(carrier))):
        yield


def trace_headers() -> dict[str, str]:
    """Return the headers that carry the current trace to the next process; empty when tracing is off."""
    headers: dict[str, str] = {}
    if tracing_is_on():
        propagate.inject(headers)
    return headers
