"""A circuit breaker: a peer that mostly fails is left alone for a moment, then asked by one call (half-open)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

SPAN_SECONDS = 2.5  # failures are counted in two such spans
AT_LEAST = 20  # calls, before a share of them says anything
SHARE = 0.5
OPEN_SECONDS = 0.5
PATIENCE_SECONDS = 2.0  # a deadline that was missed says something of the peer when it was this long


def is_missing(code: grpc.StatusCode, timeout: float) -> bool:
    """Whether a failure that the peer did not describe says that it is not there, or hangs."""
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return timeout >= PATIENCE_SECONDS
    return code == grpc.StatusCode.UNAVAILABLE


class Breaker:
    """Closed, until half of at least twenty calls failed in the last seconds; then one call at a time, twice a second.

    A call that `allows` let through is told of by `record` or `forgo`. May be used from several threads.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._opened = 0.0  # when it may be tried again; 0 while closed
        self._trying = False
        self._span = 0.0
        self._calls, self._failures = [0, 0], [0, 0]  # this span's, the last one's

    @property
    def is_open(self) -> bool:
        """Whether the peer is left alone."""
        return self._opened > 0

    def allows(self) -> bool:
        """Whether a call may be made now."""
        if not self._opened:
            return True
        with self._lock:
            if not self._opened:
                return True
            if self._trying or self._now() < self._opened:
                return False
            self._trying = True
            return True

    def record(self, failed: bool) -> None:
        """Count a call that was made."""
        now = self._now()
        with self._lock:
            if self._opened:
                self._try_told(failed, now)
                return
            if now - self._span > SPAN_SECONDS:
                fresh = now - self._span < 2 * SPAN_SECONDS
                self._calls = [0, self._calls[0] if fresh else 0]
                self._failures = [0, self._failures[0] if fresh else 0]
                self._span = now
            self._calls[0] += 1
            if not failed:
                return
            self._failures[0] += 1
            if sum(self._calls) >= AT_LEAST and sum(self._failures) >= SHARE * sum(self._calls):
                self._opened = now + OPEN_SECONDS

    def forgo(self) -> None:
        """Take back a call of which nothing is known: it was cancelled."""
        with self._lock:
            self._trying = False

    def _try_told(self, failed: bool, now: float) -> None:
        """Close after a call that went well; calls made before it opened say nothing when they fail."""
        if not failed:
            self._opened, self._calls, self._failures = 0.0, [0, 0], [0, 0]
        elif self._trying:
            self._opened = now + OPEN_SECONDS
        self._trying = False
