"""What a route sees of an ASGI request, and how its reply goes out."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from services.chassis.access import Caller

# ASGI's own types: its messages are open mappings.
Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
JSON_TYPE = (b"content-type", b"application/json")
LINES_TYPE = (b"content-type", b"application/x-ndjson")
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
# Replies hold personal data: no cache keeps them, no page frames or sniffs them.
SAFE_HEADERS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
JSON_ALONE: Headers = (JSON_TYPE,)
SAFE_JSON: Headers = (JSON_TYPE, *SAFE_HEADERS)
PAGE_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"  # of a page with its own style
SINGLE_HEADERS = frozenset(
    (b"authorization", b"x-purpose", b"content-type", b"content-length", b"idempotency-key", b"if-match")
    + (b"x-request-id", b"x-request-timeout", b"content-encoding", b"host", b"client-cert")
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
SHORTEST_TIMEOUT = 0.1  # seconds: less can only end in 504
BODY_WAITS = 3
TIMEOUT = re.compile(rb"[0-9]{1,4}(\.[0-9]{1,20})?")


@dataclass(slots=True)
class Reply:
    """A whole reply, or the beginning of one whose `rest` follows as it is made."""

    status: int
    body: bytes
    headers: Headers = JSON_ALONE
    rest: AsyncIterator[bytes] | None = None


@dataclass(slots=True)
class Exchange:
    """One request on its way through the gateway; `caller` is set once the token was verified."""

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    told: Headers = ()  # of the caller's quotas
    thumbprint: str = ""  # of the TLS certificate the client connected with, once the doorkeeper looked

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.scope["method"])

    @property
    def query(self) -> bytes:
        """The query string, still encoded."""
        return bytes(self.scope["query_string"])

    @property
    def peer(self) -> str:
        """The address the connection comes from; forwarded headers are anybody's to write and not read."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def text(self, name: bytes) -> str:
        """Return a header as text, empty when absent; bytes outside Latin-1 cannot be."""
        return self.headers.get(name, b"").decode("latin-1")

    def timeout_seconds(self, default: float, longest: float) -> float:
        """Return the deadline the client asks for by X-Request-Timeout, in seconds.

        Raises:
            Problem: it is not a number from SHORTEST_TIMEOUT to `longest`.
        """
        raw = self.headers.get(b"x-request-timeout")
        if raw is None:
            return default
        seconds = float(raw) if TIMEOUT.fullmatch(raw) else 0.0
        if not SHORTEST_TIMEOUT <= seconds <= longest:
            bounds = f"from {SHORTEST_TIMEOUT:g} to {longest:g}"
            raise refusal(400, Reason.BAD_HEADER, f"X-Request-Timeout must be seconds {bounds}")
        return seconds

    @property
    def has_body(self) -> bool:
        """Whether the client announces a body."""
        length = self.headers.get(b"content-length", b"0")
        return length not in (b"0", b"") or b"transfer-encoding" in self.headers

    async def chunks(self, limit: int, wait_seconds: float) -> Any:  # noqa: ANN401 - AsyncIterator in mypy's eyes
        """Yield the body as it comes.

        Raises:
            Problem: it grows beyond `limit` bytes, or stalls for `wait_seconds`.
        """
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise refusal(400, Reason.BAD_HEADER, "Content-Length must be a number")
        if len(length) > 15 or int(length) > limit:
            raise too_large(limit)
        total = 0
        while True:
            try:
                event = await asyncio.wait_for(self.receive(), wait_seconds)
            except TimeoutError:
                raise refusal(408, Reason.BODY_TIMEOUT, "the body came too slowly") from None
            if event["type"] != "http.request":
                raise refusal(499, Reason.MALFORMED_JSON, "the client went away")
            chunk = event.get("body", b"")
            total += len(chunk)
            if total > limit:
                raise too_large(limit)
            if chunk:
                yield chunk
            if not event.get("more_body", False):
                return

    async def body(self, limit: int, wait_seconds: float) -> bytes:
        """Return the whole body, which may take three times as long as any part of it may stall; see chunks."""
        try:
            async with asyncio.timeout(BODY_WAITS * wait_seconds):
                return b"".join([chunk async for chunk in self.chunks(limit, wait_seconds)])
        except TimeoutError:
            raise refusal(408, Reason.BODY_TIMEOUT, "the body came too slowly") from None


def too_large(limit: int) -> Problem:
    """Return the refusal of a body beyond the limit."""
    return refusal(413, Reason.BODY_TOO_LARGE, f"the body may have at most {limit} bytes")


def open_exchange(scope: Scope, receive: Receive) -> Exchange:
    """Return the exchange of a request, with the client's request id when it is well formed, else a new one."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    given = headers.get(b"x-request-id")
    request_id = given.decode() if given and REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    return Exchange(scope, receive, headers, request_id)


def check_headers(exchange: Exchange) -> None:
    """Refuse what makes two readers of one request disagree, and compressed bodies (they may be bombs).

    Raises:
        Problem: a header that must be single came twice, or the body has a content coding.
    """
    raw = exchange.scope["headers"]
    if len(raw) != len(exchange.headers):
        seen: set[bytes] = set()
        for name, _ in raw:
            if name in seen and name in SINGLE_HEADERS:
                raise refusal(400, Reason.BAD_HEADER, f"{name.decode('latin-1')} is given twice")
            seen.add(name)
    if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
        raise refusal(415, Reason.UNSUPPORTED_MEDIA_TYPE, "send the body uncompressed")


def _safe(headers: Headers) -> Headers:
    """Return a reply's headers and those of SAFE_HEADERS that it does not set itself."""
    if headers is JSON_ALONE:
        return SAFE_JSON
    own = {name for name, _ in headers}
    return [*headers, *(safe for safe in SAFE_HEADERS if safe[0] not in own)]


async def send_reply(send: Send, reply: Reply, exchange: Exchange) -> None:
    """Send a whole reply, with the headers every reply has; of one with a rest its beginning."""
    headers = [*_safe(reply.headers), (b"x-request-id", exchange.request_id.encode())]
    if exchange.told and not any(name == b"ratelimit" for name, _ in reply.headers):
        headers.extend(exchange.told)
    if reply.rest is None:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": reply.rest is not None})
