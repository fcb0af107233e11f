"""POST of a record → found by search, at 50 records a second through the gateway of a whole stack.

Every tenth record is watched: its phone is searched for every 50 ms from the moment its POST was answered.
Watching all of them would measure the watchers.
"""

from __future__ import annotations

import random
import statistics
import threading
import time

import httpx

from tests.bench.stack import RunningStack, running_stack

RATE = 50
WATCH_EVERY = 10
REACH_SECONDS = 2.0


def run(short: bool) -> list[dict[str, object]]:
    """Return the one row."""
    seconds = 5 if short else 40
    with running_stack() as stack:
        _source(stack)
        _measure(stack, 3)  # connections, word lists and indexes warm
        found, late = _measure(stack, seconds)
    ordered = sorted(found)
    p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] if ordered else float("inf")
    value = f"p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s of {len(ordered)}" if ordered else "none found"
    ok = p99 <= REACH_SECONDS and not late
    return [{"figure": f"record posted → found by search, {RATE}/s", "value": value, "peer": "", "ratio": "",
             "reach": f"p99 ≤ {REACH_SECONDS:g} s", "ok": ok}]  # fmt: skip


def _source(stack: RunningStack) -> None:
    source = {
        "display_name": "bench", "owner_department": "data-office", "trust_rank": 1, "format": "jsonl",
        "mapping": {"columns": [{"column": "name", "field": "name"}, {"column": "phone", "field": "phone"}]},
    }  # fmt: skip
    headers = stack.headers("data-office", "stewardship")
    url = f"{stack.url}/v1/sources?source_id=bench"
    httpx.post(url, json=source, headers=headers, timeout=10).raise_for_status()


def _measure(stack: RunningStack, seconds: int) -> tuple[list[float], int]:
    headers = stack.headers("data-office", "stewardship")
    found: list[float] = []
    late: list[int] = []
    lock = threading.Lock()
    threads: list[threading.Thread] = []
    start = time.monotonic()
    for number in range(RATE * seconds):
        due = start + number / RATE
        time.sleep(max(due - time.monotonic(), 0))
        arguments = (stack, headers, number % WATCH_EVERY == 0, found, late, lock)
        thread = threading.Thread(target=_one, args=arguments, daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(30)
    return found, len(late)


def _one(
    stack: RunningStack, headers: dict[str, str], watched: bool, found: list[float], late: list[int], lock: threading.Lock
) -> None:
    phone = f"139{random.randrange(10**8):08d}"
    name = "测" + "".join(chr(random.randrange(0x4E00, 0x9FA0)) for _ in range(2))
    record = {"source_record_id": phone, "fields": {"name": name, "phone": phone}}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=15) as client:
        reply = client.post("/v1/sources/bench/records:batchUpsert", json={"records": [record]})
        answered = time.monotonic()
        if reply.status_code != 200:
            with lock:
                late.append(reply.status_code)
            return
        if not watched:
            return
        while time.monotonic() - answered < 15:
            hits = client.post("/v1/search", json={"q": phone}).json().get("hits", [])
            if hits:
                with lock:
                    found.append(time.monotonic() - answered)
                return
            time.sleep(0.05)
    with lock:
        late.append(0)
