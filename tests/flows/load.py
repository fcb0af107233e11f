"""Requests at a steady rate, and what failed of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

WORKERS = 10
Request = tuple[str, str, dict[str, object] | None]  # verb, path, body


def read_and_write(worker: int, number: int) -> Request:
    """Return the read of a source, or every fifth time a write."""
    if number % 5:
        return "GET", "/v1/sources/till", None
    return "POST", "/v1/sources/till/records:batchUpsert", record(f"{worker}-{number % 50}")


def record(key: str) -> dict[str, object]:
    """Return a batch of one record."""
    return {
        "records": [{"source_record_id": f"roll-{key}", "fields": {"name": "滚动", "email": f"{key}@roll.example"}}]
    }


@dataclass(slots=True)
class Load:
    """Asks a gateway at a rate from ten threads; nothing is tried twice. `headers` is asked before each request."""

    url: str
    headers: Callable[[], Mapping[str, str]]
    rate: float
    asked: Callable[[int, int], Request] = read_and_write
    stopping: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    count: int = 0

    def run(self) -> list[threading.Thread]:
        """Begin; set `stopping` and join what is returned to end."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        return threads

    def _ask(self, worker: int) -> None:
        with httpx.Client(base_url=self.url, timeout=10, trust_env=False) as http:
            pause = WORKERS / self.rate
            due = time.monotonic() + worker * pause / WORKERS
            for number in itertools.count():
                if self.stopping.wait(max(0.0, due - time.monotonic())):
                    return
                due = max(due + pause, time.monotonic())
                self.count += 1
                verb, path, body = self.asked(worker, number)
                try:
                    reply = http.request(verb, path, json=body, headers=dict(self.headers()))
                    if reply.status_code != 200:
                        self.failures.append(f"{reply.status_code} {reply.text[:200]}")
                except httpx.TransportError as error:
                    self.failures.append(f"{verb} {path} {type(error).__name__} {error}")
