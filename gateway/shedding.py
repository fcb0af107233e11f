"""What is answered first when there is more to do than can be done, and how much of it is taken on at once.

Each service has a limit of calls under way: what it answers in a second, times how long an answer may take (Little's
law). A slow service fills its own places and nobody else's. Who finds none waits a moment, the worthiest first.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.transcoding.catalog import Method

MANY = ("Batch", "Bulk", "Import", "Export", "Download")  # how names of methods about many things begin (AIP-231)
OPERATION = "google.longrunning.Operation"
FIRST, LEAST, MOST = 32, 8, 256  # calls of one service under way
WAITING = 256  # calls without a place
WINDOW_SECONDS = 0.2
GOOD_SECONDS = 0.25  # an answer may take this long, whatever is usual
USUAL_FACTOR = 3.0  # or this many times what is usual for its method
USUAL_PART = 0.05  # how much of it each call changes,
CALM_SECONDS = 5.0  # when there was a place for every call for so long


class Worth(IntEnum):
    """How soon a call is turned away, the last first."""

    VITAL = 0  # signing in, keys, unsubscribing: what is reached without a token
    DIRECT = 1  # one thing read or changed: somebody waits for it
    LIST = 2  # pages, searches, figures
    BULK = 3  # uploads, streams, batches, exports, and what begins long work


SHARES = {Worth.VITAL: 1.0, Worth.DIRECT: 0.9, Worth.LIST: 0.7, Worth.BULK: 0.4}  # of the places there are
WAIT_SECONDS = {Worth.VITAL: 1.0, Worth.DIRECT: 0.4, Worth.LIST: 0.3, Worth.BULK: 0.2}


def worth_of(method: Method) -> Worth:
    """Return the worth of a method, by what its proto says: audience, kind of call, shape of the reply."""
    if method.is_public:
        return Worth.VITAL
    name = method.full_name.rpartition(".")[2]
    begins_work = method.response.full_name == OPERATION and not method.is_read
    if method.is_upload or method.is_lines or begins_work or name.startswith(MANY):
        return Worth.BULK
    return Worth.LIST if _is_list(method.response) else Worth.DIRECT


def _is_list(reply: Descriptor) -> bool:
    """Tell whether a reply is several things, and not one thing with parts: that has a name or an etag."""
    names = reply.fields_by_name
    if "name" in names or "etag" in names:
        return False
    return any(field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE for field in reply.fields)


class Overloaded(Exception):  # noqa: N818 - it is an answer
    """There is no place for the call."""


class Limiter:
    """The places of one service."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.limit = FIRST
        self.under_way = 0
        self._places = places(FIRST)
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in Worth)
        self._queued = 0
        self._usual: dict[str, float] = {}  # seconds, by method, while there was next to no load
        self._window = now()
        self._good = 0.0  # of the calls answered in this window: how long they might take, together
        self._full_at = -math.inf  # when there was no place for a call

    def is_shut(self, worth: Worth) -> bool:
        """Whether a call of this worth would find no place and too many waiting before it."""
        return self._before(worth) >= WAITING if self._queued else False

    async def enter(self, worth: Worth) -> None:
        """Take a place, waiting for one a little.

        Raises:
            Overloaded: there is none.
        """
        if self.under_way < self._places[worth] and not (self._queued and self._before(worth)):
            self.under_way += 1
            return
        self._full_at = self._now()
        if self.is_shut(worth):
            raise Overloaded
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(WAIT_SECONDS[worth], _give_up, place)
        self._waiting[worth].append(place)
        self._queued += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.under_way -= 1  # it was given a place when its client had just gone
                self._admit()
            raise
        finally:
            timer.cancel()

    def leave(self, method: str, seconds: float, is_answered: bool) -> None:
        """Give a place back, whether the service answered the call or had no time to."""
        self.under_way -= 1
        now = self._now()
        if is_answered:
            usual = self._usual.get(method)
            if now - self._full_at > CALM_SECONDS:
                self._usual[method] = usual = seconds if usual is None else usual + USUAL_PART * (seconds - usual)
            self._good += max(GOOD_SECONDS, USUAL_FACTOR * (usual or 0.0))
        if now - self._window >= WINDOW_SECONDS:
            self._adapt(now)
        if self._queued:
            self._admit()

    def _before(self, worth: Worth) -> int:
        """Return how many wait that are worth as much or more."""
        return sum(len(waiting) for waiting in self._waiting[: worth + 1])

    def _admit(self) -> None:
        """Give free places to those who wait, the worthiest first."""
        for worth in Worth:
            waiting = self._waiting[worth]
            while waiting and (waiting[0].done() or self.under_way < self._places[worth]):
                place = waiting.popleft()
                self._queued -= 1
                if not place.done():
                    self.under_way += 1
                    place.set_result(None)

    def _adapt(self, now: float) -> None:
        """Go half the way to what the last window says, when there was no place in it for some call."""
        if self._full_at >= self._window:
            right = self._good / (now - self._window)
            self.limit = min(max(round((self.limit + min(right, 4 * self.limit)) / 2), LEAST), MOST)
            self._places = places(self.limit)
        self._window, self._good = now, 0.0


def places(limit: int) -> tuple[int, ...]:
    """Return how many of the places each worth may fill."""
    return tuple(math.ceil(limit * SHARES[worth]) for worth in Worth)


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(Overloaded())
