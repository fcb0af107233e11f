"""The ASGI application: derived routes answered directly, the gateway's own pages by FastAPI behind them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Histogram

from gateway.pages import PATHS
from gateway.problems import HIDDEN, Problem, refusal
from gateway.reasons import Reason
from gateway.routes.derived import Route
from gateway.routes.scim import PREFIX, scim_error
from gateway.shedding import places
from gateway.transcoding.paths import BadPath, Router
from gateway.wire import (
    PROBLEM_TYPE,
    Exchange,
    Receive,
    Reply,
    Scope,
    Send,
    check_headers,
    open_exchange,
    send_reply,
)

SECONDS = Histogram(
    "kehu_http_seconds",
    "Time of a request",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REQUESTS = Counter("kehu_http_requests_total", "Requests by route and status", ["route", "status"])
IN_FLIGHT = Gauge("kehu_http_in_flight", "Requests being answered")
SCIM_PREFIX = PREFIX.encode()
NOWHERE = "other"  # the label of paths without a route: their number is anybody's to choose
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route with the name it has in metrics and logs: HTTP method and template, no ids."""

    label: str
    route: Route
    seconds: Histogram = field(init=False)
    answered: Counter = field(init=False)  # with 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", SECONDS.labels(self.label))
        object.__setattr__(self, "answered", REQUESTS.labels(self.label, "200"))


Hook = Callable[[], Awaitable[None]]


class Gateway:
    """Dispatches every request of the process and turns what goes wrong into problems."""

    def __init__(
        self,
        router: Router[Endpoint],
        pages: FastAPI,
        docs_url: str,
        in_flight_limit: int,
        start: Sequence[Hook] = (),
        stop: Sequence[Hook] = (),
    ) -> None:
        self._router = router
        self._pages = pages
        self._docs_url = docs_url
        self._places = places(in_flight_limit)
        self._in_flight = 0
        IN_FLIGHT.set_function(lambda: self._in_flight)
        self._start, self._stop = start, stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
        elif path_of(scope) in PATHS:
            await self._pages(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start what runs beside the requests, and end it when the server does."""
        while True:
            event = await receive()
            for hook in self._start if event["type"] == "lifespan.startup" else self._stop:
                await hook()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = open_exchange(scope, receive)
        endpoint: Endpoint | None = None
        self._in_flight += 1
        try:
            endpoint, segments = self._find(scope)
            if self._in_flight > self._places[endpoint.route.worth]:
                raise refusal(503, Reason.OVERLOADED, "too many requests in flight", retry_seconds=1)
            check_headers(exchange)
            reply = await endpoint.route.answer(exchange, segments)
            if reply.rest is not None:
                await self._stream(exchange, reply, reply.rest, send)
        except Problem as problem:
            reply = self._problem_reply(problem, exchange)
        except Exception:
            reply = self._problem_reply(self._unforeseen(exchange), exchange)
        finally:
            self._in_flight -= 1
        if reply.rest is None:
            await send_reply(send, reply, exchange)
        self._measure(exchange, endpoint, reply.status)

    async def _stream(self, exchange: Exchange, reply: Reply, rest: AsyncIterator[bytes], send: Send) -> None:
        """Send a reply as it is made; what ends it early is its last line, for the status went out before."""
        await send_reply(send, reply, exchange)
        async with aclosing(rest):  # type: ignore[type-var]
            try:
                async for part in rest:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                last = b""
            except Problem as problem:
                last = self._last_line(problem, exchange)
            except Exception:
                last = self._last_line(self._unforeseen(exchange), exchange)
        await send({"type": "http.response.body", "body": last})

    def _last_line(self, problem: Problem, exchange: Exchange) -> bytes:
        return b'{"error":' + problem.body(self._docs_url, exchange.request_id) + b"}\n"

    def _unforeseen(self, exchange: Exchange) -> Problem:
        _log.exception("request failed", extra={"request_id": exchange.request_id})
        return refusal(500, Reason.INTERNAL, HIDDEN)

    def _find(self, scope: Scope) -> tuple[Endpoint, list[str]]:
        try:
            found = self._router.find(path_of(scope))
        except BadPath as bad:
            raise refusal(400, Reason.BAD_PATH, str(bad)) from None
        if found is None:
            raise refusal(404, Reason.ROUTE_NOT_FOUND, "no route has this path; see /docs")
        end = found.ends.get(scope["method"])
        if end is None:
            allow = (b"allow", ", ".join(sorted(found.ends)).encode())
            raise refusal(405, Reason.METHOD_NOT_ALLOWED, "this path does not take this method", headers=(allow,))
        return end[1], found.segments

    def _problem_reply(self, problem: Problem, exchange: Exchange) -> Reply:
        if path_of(exchange.scope).startswith(SCIM_PREFIX):
            reply = scim_error(problem)
        else:
            body = problem.body(self._docs_url, exchange.request_id)
            reply = Reply(problem.status, body, (PROBLEM_TYPE, *problem.headers))
        if exchange.has_body:
            reply = replace(reply, headers=(*reply.headers, (b"connection", b"close")))  # the rest of it is not read
        return reply

    def _measure(self, exchange: Exchange, endpoint: Endpoint | None, status: int) -> None:
        seconds = time.perf_counter() - exchange.started
        label = endpoint.label if endpoint is not None else NOWHERE
        if endpoint is not None:
            endpoint.seconds.observe(seconds)
        if endpoint is not None and status == 200:
            endpoint.answered.inc()
        else:
            REQUESTS.labels(label, str(status)).inc()
        if status >= 400 and _log.isEnabledFor(logging.INFO):
            subject = exchange.caller.subject if exchange.caller else ""
            fields = {"route": label, "status": status, "ms": round(seconds * 1000, 1), "subject": subject}
            _log.info("request", extra={**fields, "request_id": exchange.request_id})


def path_of(scope: Scope) -> bytes:
    """Return the path as it came over the wire."""
    raw = scope.get("raw_path")
    return bytes(raw) if raw is not None else str(scope["path"]).encode()
