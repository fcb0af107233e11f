"""A value that is read from the store and remembered for moments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
FRESH_SECONDS = 2.0  # how long another process may still use the former value


class Remembered(Generic[T]):
    """What `read` returns, read again when it is older than `seconds` or was forgotten; safe between threads."""

    def __init__(self, read: Callable[[], T], seconds: float = FRESH_SECONDS) -> None:
        """Read at the first question, not now."""
        self._read, self._seconds = read, seconds
        self._value: T | None = None
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """Return the value; the errors of `read` pass through and nothing is remembered then."""
        with self._lock:
            if self._value is None or time.monotonic() - self._read_at > self._seconds:
                self._value = self._read()
                self._read_at = time.monotonic()
            return self._value

    def forget(self) -> None:
        """Read again at the next question: this process changed what it is made of."""
        with self._lock:
            self._read_at = float("-inf")
