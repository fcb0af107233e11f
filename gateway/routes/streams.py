"""Take a body of lines in, batch by batch, and answer each with a line: read on only as fast as the service takes.

Each batch is a call of its own, with the caller's token, a deadline and an audit entry (ADR 0016): who is revoked in
mid-stream gets no further. One batch is with the service while the next is gathered; nothing more is held.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import orjson
from google.protobuf.message import Message

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute, Edge, bad_request
from gateway.routes.lines import Batch, LineBatches, LineReader
from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.paths import Template
from gateway.transcoding.scalars import BadField
from gateway.wire import LINES_TYPE, Exchange, Reply

TAKEN = frozenset(("application/x-ndjson", "application/jsonl", "application/x-jsonlines"))
REPEATED = frozenset(("OVERLOADED", "SERVICE_UNAVAILABLE", "SERVICE_BUSY", "UNAVAILABLE", "PROFILES_BUSY"))
PAUSES = (0.1, 0.2, 0.5, 1.0)  # between two tries of a batch; the last one for ever


class StreamRoute(DerivedRoute):
    """A unary method with `bytes lines` and `int64 first_line` that is called once for each batch of lines."""

    def __init__(self, edge: Edge, method: Method, binding: Binding, template: Template) -> None:
        super().__init__(edge, method, Binding(binding.verb, binding.template, ""), template)
        self._streams: Counter[str] = Counter()

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Admit the caller and take in the first batch; the others follow while the reply goes out."""
        self.edge.upstreams.check(self.method.service, self.worth)
        caller = await self.edge.doorkeeper.admit(exchange, self.method)
        content_type = exchange.text(b"content-type").partition(";")[0].strip().lower()
        if content_type not in TAKEN:
            raise refusal(415, Reason.UNSUPPORTED_MEDIA_TYPE, "send application/x-ndjson: one JSON object a line")
        limits = self.edge.limits
        timeout = exchange.timeout_seconds(limits.longest_deadline, limits.longest_deadline)
        message = self._header(exchange, segments)
        if self._streams[caller.subject] >= limits.streams_each or self._streams.total() >= limits.streams:
            raise refusal(429, Reason.RATE_LIMITED, "too many streams are open; send on one of them", retry_seconds=1)
        answers = self._answers(exchange, message, timeout)
        first = await anext(answers, b"")
        return Reply(200, first, (LINES_TYPE,), rest=answers)

    def _header(self, exchange: Exchange, segments: list[str]) -> Message:
        try:
            message = self.reader.read(segments, exchange.query, None)
            if getattr(message, "lines"):  # noqa: B009 - the type is only known here
                raise BadField("the lines come in the body", "/lines")
        except BadField as bad:
            raise bad_request(bad) from None
        self._read_headers(exchange, message)
        return message

    async def _answers(self, exchange: Exchange, message: Message, timeout: float) -> AsyncIterator[bytes]:
        """Yield the answer to each batch as a line of JSON; the next batch is gathered meanwhile."""
        first_line: int = getattr(message, "first_line")  # noqa: B009
        assert exchange.caller is not None
        caller, subject = exchange.caller, exchange.caller.subject
        reader = LineReader(exchange.receive, LineBatches(max(first_line, 1)), self.edge.limits.idle)
        self._streams[subject] += 1
        coming = asyncio.ensure_future(reader.next())
        try:
            while (batch := await coming) is not None:
                coming = asyncio.ensure_future(reader.next())
                await self.edge.doorkeeper.pace(exchange, caller, self.method)
                yield await self._take(exchange, message, batch, timeout)
        finally:
            coming.cancel()
            reader.close()
            self._streams[subject] -= 1
            self._streams += Counter()  # forget who has none

    async def _take(self, exchange: Exchange, message: Message, batch: Batch, timeout: float) -> bytes:
        """Send a batch until it is taken, for `timeout` seconds in all; a repeat changes nothing.

        Raises:
            Problem: the caller may no longer, or the service does not take it in time.
        """
        request = type(message)()
        request.CopyFrom(message)
        setattr(request, "lines", batch.lines)  # noqa: B010
        setattr(request, "first_line", batch.first_line)  # noqa: B010
        deadline = time.monotonic() + timeout
        for pause in (*PAUSES, *[PAUSES[-1]] * int(timeout)):
            try:
                raw = await self.send(exchange, request, max(deadline - time.monotonic(), 0.001))
                return orjson.dumps(self.written(raw)) + b"\n"
            except Problem as problem:
                if problem.reason not in REPEATED or time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
        raise refusal(504, Reason.DEADLINE_EXCEEDED, "the service did not take the lines in time")
