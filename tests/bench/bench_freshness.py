"""POST of a record → found by search, at 50 records a second through the gateway of a whole stack.

Every tenth record is watched: its phone is searched for every 50 ms from the moment its POST was answered.
Watching all of them would measure the watchers.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.bench.stack import RunningStack, running_stack

RATE = 50
WATCH_EVERY = 10
REACH_SECONDS = 2.0
COLUMNS = {"id": "source_record_id", "name": "name", "phone": "phone"}
GIVE_UP_SECONDS = 15.0


def run(short: bool) -> list[dict[str, object]]:
    """Return the one row."""
    seconds = 5 if short else 40
    with running_stack() as stack:
        _source(stack)
        _measure(stack, 3)  # connections, word lists and indexes warm
        found, late = _measure(stack, seconds)
    ordered = sorted(found)
    p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] if ordered else float("inf")
    value = (
        f"p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s of {len(ordered)}, {late} late"
        if ordered
        else "none found"
    )
    ok = p99 <= REACH_SECONDS and not late
    return [{"figure": f"record posted → found by search, {RATE}/s", "value": value, "peer": "", "ratio": "",
             "reach": f"p99 ≤ {REACH_SECONDS:g} s", "ok": ok}]  # fmt: skip


def _source(stack: RunningStack) -> None:
    source = {
        "display_name": "bench", "owner_department": "data-office", "trust_rank": 1,
        "mapping": [{"column": c, "field": f} for c, f in COLUMNS.items()],
    }  # fmt: skip
    headers = stack.headers("data-office", "stewardship")
    url = f"{stack.url}/v1/sources?source_id=bench"
    reply = httpx.post(url, json=source, headers=headers, timeout=10)
    if reply.status_code != 200:
        raise RuntimeError(f"the source was refused: {reply.text}")


def _measure(stack: RunningStack, seconds: int) -> tuple[list[float], int]:
    watch = Watch()
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    headers = stack.headers("data-office", "stewardship")
    with (
        httpx.Client(base_url=stack.url, headers=headers, timeout=15, limits=limits) as client,
        ThreadPoolExecutor(64) as pool,
    ):
        start = time.monotonic()
        for number in range(RATE * seconds):
            time.sleep(max(start + number / RATE - time.monotonic(), 0))
            pool.submit(_one, client, number % WATCH_EVERY == 0, watch)
    return watch.found, watch.late


@dataclass
class Watch:
    """Seconds from answer to found, and how many were refused or not found in time."""

    found: list[float] = field(default_factory=list)
    late: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _one(client: httpx.Client, watched: bool, watch: Watch) -> None:
    phone = f"139{random.randrange(10**8):08d}"
    name = "测" + "".join(chr(random.randrange(0x4E00, 0x9FA0)) for _ in range(2))
    record = {"source_record_id": phone, "fields": {"name": name, "phone": phone}}
    reply = client.post("/v1/sources/bench/records:batchUpsert", json={"records": [record]})
    answered = time.monotonic()
    while reply.status_code == 200 and watched and time.monotonic() - answered < GIVE_UP_SECONDS:
        if client.post("/v1/search", json={"q": phone}).json().get("hits"):
            with watch.lock:
                watch.found.append(time.monotonic() - answered)
            return
        time.sleep(0.05)
    if watched or reply.status_code != 200:
        with watch.lock:
            watch.late += 1
