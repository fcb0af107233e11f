"""Cut a body of lines into batches of whole lines, as it comes; at most one batch and one part of the body are held."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.problems import refusal
from gateway.reasons import Reason
from gateway.wire import Receive

BATCH_LINES = 500
BATCH_BYTES = 192 * 1024  # with its envelope it still travels in a frame
LINE_BYTES = 64 * 1024  # of a longer line one byte more is kept: enough to see that it is too long
LINGER_SECONDS = 0.2  # that a line waits for company


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines, and the number of the first."""

    first_line: int
    lines: bytes = field(repr=False)


class LineBatches:
    """Lines that came and were not taken yet."""

    def __init__(self, first_line: int = 1) -> None:
        """Number the lines from `first_line`."""
        self._next = first_line
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._tail = bytearray()

    def feed(self, part: bytes) -> None:
        """Add the next bytes of the body."""
        *whole, rest = part.split(b"\n")
        for end in whole:
            self._extend(end)
            self._end_line()
        self._extend(rest)

    def finish(self) -> None:
        """End the last line, for the body has ended."""
        if self._tail:
            self._end_line()

    def _extend(self, part: bytes) -> None:
        self._tail += part[: LINE_BYTES + 1 - len(self._tail)]

    def _end_line(self) -> None:
        self._lines.append(bytes(self._tail))
        self._bytes += len(self._tail)
        self._tail.clear()

    @property
    def is_empty(self) -> bool:
        """Whether no whole line waits."""
        return not self._lines

    @property
    def is_full(self) -> bool:
        """Whether a whole batch waits."""
        return len(self._lines) >= BATCH_LINES or self._bytes >= BATCH_BYTES

    def take(self) -> Batch:
        """Return the next batch of the lines that wait; there must be one."""
        taken = [self._lines.popleft()]
        size = len(taken[0])
        while self._lines and len(taken) < BATCH_LINES and size + len(self._lines[0]) <= BATCH_BYTES:
            size += len(self._lines[0])
            taken.append(self._lines.popleft())
        self._bytes -= size
        first, self._next = self._next, self._next + len(taken)
        return Batch(first, b"\n".join(taken) + b"\n")


class LineReader:
    """Reads batches from a connection, and no further than the batch that is asked for."""

    def __init__(
        self, receive: Receive, batches: LineBatches, idle_seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._receive: Callable[[], Awaitable[object]] = receive
        self._batches = batches
        self._idle_seconds = idle_seconds
        self._now = now
        self._coming: asyncio.Future[object] | None = None
        self._is_ended = False

    async def next(self) -> Batch | None:
        """Return the next batch, full or after LINGER_SECONDS; None at the end of the body.

        Raises:
            Problem: nothing came for `idle_seconds`, or the client went away: what is not a batch yet is dropped.
        """
        due: float | None = None
        while not self._batches.is_full and not self._is_ended:
            if due is None and not self._batches.is_empty:
                due = self._now() + LINGER_SECONDS
            wait = self._idle_seconds if due is None else due - self._now()
            if wait <= 0 or not await self._more(wait):
                break
        if not self._batches.is_empty:
            return self._batches.take()
        if self._is_ended:
            return None
        raise refusal(408, Reason.BODY_TIMEOUT, f"no line came for {self._idle_seconds:g} seconds")

    async def _more(self, seconds: float) -> bool:
        """Take in what comes within some seconds; say whether something did."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        if not (await asyncio.wait({self._coming}, timeout=seconds))[0]:
            return False
        event, self._coming = self._coming.result(), None
        assert isinstance(event, dict)
        if event["type"] != "http.request":
            raise refusal(499, Reason.MALFORMED_JSON, "the client went away")
        self._batches.feed(event.get("body", b""))
        if not event.get("more_body", False):
            self._batches.finish()
            self._is_ended = True
        return True

    def close(self) -> None:
        """Stop waiting for the connection."""
        if self._coming is not None:
            self._coming.cancel()
