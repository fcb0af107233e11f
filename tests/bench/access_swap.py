"""Another policy of 100,000 rules comes while a thread decides: its longest wait, and the memory of two snapshots.

    python -m tests.bench.access_swap RULES SWAPS

A process of its own, so that the memory is that of the snapshots; prints JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable

from kehu.access.v1 import access_pb2 as pb

from services.chassis.access import MODEL, Caller, PolicySnapshot, SnapshotHolder, SnapshotPoller
from services.chassis.access.rules import Shape
from services.chassis.access.snapshot import breathe
from services.chassis.access.wire import table_message, updated
from tests.bench import bench_access

PACE = 0.0005  # seconds between requests


def reply_of(rules: int, changed: int = 0) -> bytes:
    """Return the message by which a process fetches a policy of so many rules; `changed` of them are others."""
    made, links = bench_access.make_policy(random.Random(rules), rules)
    made = [(*rule[:2], f"other-{rule[2]}", *rule[3:]) if n < changed else rule for n, rule in enumerate(made)]
    shape = Shape.of(MODEL)
    rules_table, links_table = table_message(shape.rules(made)), table_message(shape.links(links))
    found = pb.RuleSet(policy_version=1, model=MODEL, rule_table=rules_table, link_table=links_table)
    return pb.GetPolicySnapshotResponse(rule_set=found).SerializeToString()


def memory(*messages: bytes) -> tuple[int, int]:
    """Return the bytes of one snapshot, and the most that are held while the next one is built and swapped."""
    tracemalloc.start()
    holder = SnapshotHolder()
    poller = SnapshotPoller(holder, fetcher(*messages))
    poller.poll_once()
    one = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    poller.poll_once()
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return one, highest


class Stretches:
    """The longest stretch of building without a pause, in seconds of CPU: others do not disturb it."""

    def __init__(self) -> None:
        self.longest = self.began = 0.0

    def pause(self) -> None:
        """End a stretch, and begin the next."""
        self.longest = max(self.longest, time.thread_time() - self.began)
        breathe()
        self.began = time.thread_time()


def fetcher(
    *messages: bytes, stretches: Stretches | None = None
) -> Callable[[PolicySnapshot | None], PolicySnapshot | None]:
    """Return what fetches the next of these policies each time it is asked, in turns."""
    turns, noted = itertools.cycle(messages), stretches or Stretches()

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        noted.began = time.thread_time()
        found = updated(known, pb.GetPolicySnapshotResponse.FromString(next(turns)), noted.pause)
        noted.longest = max(noted.longest, time.thread_time() - noted.began)
        return found

    return fetch


def main() -> None:
    """Swap under load."""
    rules, swaps = int(sys.argv[1]), int(sys.argv[2])
    message, edited, other = reply_of(rules), reply_of(rules, rules // 100), reply_of(rules, rules)
    holder, stretches = SnapshotHolder(), Stretches()
    poller, built = SnapshotPoller(holder, fetcher(message, edited, stretches=stretches)), []
    poller.poll_once()
    caller, waits, stop = Caller("user:u1", "user", "d1"), [0.0], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            time.sleep(PACE)  # until a request comes
            holder.current.decide(caller, "o1", "read")
            waits.append(time.perf_counter() - began - PACE)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(8.0)
    quiet, start = max(waits), len(waits)
    for _ in range(swaps):
        began = time.perf_counter()
        poller.poll_once()
        built.append(time.perf_counter() - began)
    stop.set()
    thread.join()
    busy = sorted(waits[start:])
    one, highest = memory(message, edited)
    _, highest_other = memory(message, other)
    figures = {
        "bytes": len(message), "snapshot": one, "highest": highest, "highest_other": highest_other,
        "built": statistics.median(built),
        "quiet_ms": quiet * 1000, "longest_ms": busy[-1] * 1000, "p999_ms": busy[int(len(busy) * 0.999)] * 1000,
        "decisions": len(busy), "stretch_ms": stretches.longest * 1000,
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
