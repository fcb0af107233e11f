"""A thread of a process that does its work again and again until the process ends."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod

from services.chassis import telemetry

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
SPREAD = 0.2  # of a wait after a failure, at random: processes that failed together do not come back together
log = logging.getLogger("kehu.threads")


class Repeating(ABC):
    """A thread that calls `turn` until it is stopped, and waits longer after each that failed; those are counted."""

    def __init__(self, name: str, first_wait: float = 0.0, patience: float = 5.0) -> None:
        """`first_wait` is in seconds; `stop` waits for a turn under way for `patience` seconds."""
        self.stopping = threading.Event()
        self._first_wait, self._patience = first_wait, patience
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def turn(self) -> float:
        """Do what is due and return how many seconds to wait then."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other turn and wait for the one under way."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._patience)

    def _run(self) -> None:
        wait, failures = self._first_wait, 0
        while not self.stopping.wait(wait):
            try:
                wait, failures = self.turn(), 0
            except Exception:  # of its text, which may hold what a record says, nothing is written (logs.JsonFormatter)
                failures += 1
                telemetry.TURNS_FAILED.labels(self._thread.name).inc()
                log.exception("the turn of a thread failed", extra={"of": self._thread.name, "failures": failures})
                wait = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1] * (1 + SPREAD * random.random())
