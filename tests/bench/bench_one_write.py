"""One record written through the service and matched against what is stored: round trips, our CPU, the slowest.

A batch of one record at a time, 20 a second, by gRPC with the guard; every second one is of a person who is stored
already and joins that profile. What is stored grows between the rounds: sealed profiles of people made up, copied
under ids and tokens of their own. Our CPU is that of this process, which is caller, guard and service in one; the
caller keeps its stub, as callers do.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pymongo
from kehu.profiles.v1 import profiles_pb2_grpc
from pymongo import monitoring
from pymongo.write_concern import WriteConcern

from services.chassis import records
from services.profiles.documents import ProfileDocument
from services.profiles.store import MongoStore
from tests.bench.bench_import import Clock, embedded_database
from tests.profiles.people import Service, batch, person, source_request

REACH_TRIPS, REACH_CPU, FLAT = 3.0, 5.0, 1.5
RATE = 20.0
KNOWN = 2_000  # people who are stored for real; the writes that match are of them
COPIED = ("profiles", "links", "data_keys")
COPIES_AT_ONCE = 1_000
CACHE = "4G"  # what 300,000 take: beyond its cache the embedded server fills ever more slowly


class Trips(monitoring.CommandListener):
    """Counts the commands that this process sends to the database."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Count one."""
        self.commands[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Ignore."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Ignore."""


@dataclass(frozen=True, slots=True)
class Level:
    """What the writes took with so many profiles stored: per write, and the slowest in a hundred."""

    stored: int
    trips: float
    own_ms: float
    database_ms: float
    p50_ms: float
    p99_ms: float
    commands: Counter[str]


def write_one(stub: profiles_pb2_grpc.ProfilesServiceStub, source_id: str, number: int) -> float:
    """Write one record, of the shop when the person is known already; return the seconds."""
    began = time.perf_counter()
    reply = stub.BatchUpsertRecords(batch(source_id, (str(number), person(number))), timeout=60)
    seconds = time.perf_counter() - began
    if (reply.summary.profiles_created, reply.summary.profiles_updated) != ((0, 1) if source_id == "shop" else (1, 0)):
        raise RuntimeError(f"the write did not end as it should: {reply.summary}")
    return seconds


def fill(client: pymongo.MongoClient, count: int) -> None:
    """Copy stored profiles, links and data keys under ids and tokens of their own until `count` are there."""
    database = client.get_database("kehu_profiles", write_concern=WriteConcern(w=1, j=False))
    samples = {name: list(database[name].find({}).limit(COPIES_AT_ONCE)) for name in COPIED}
    missing = count - database["profiles"].count_documents({})
    for start in range(0, missing, COPIES_AT_ONCE):
        ids = [secrets.token_hex(16) for _ in range(min(COPIES_AT_ONCE, missing - start))]
        copies: dict[str, list[dict[str, object]]] = {name: [] for name in COPIED}
        for at, profile_id in enumerate(ids):
            profile, link, key = (samples[name][at % len(samples[name])] for name in COPIED)
            tokens = [secrets.token_urlsafe(16) for _ in link["t"]]
            record = {**profile["records"][0], "i": profile_id, "x": tokens, "k": profile_id}
            copies["profiles"].append({**profile, "_id": profile_id, "key_id": profile_id, "records": [record]})
            copies["links"].append({**link, "_id": f"till/{profile_id}", "p": profile_id, "t": tokens})
            copies["data_keys"].append({**key, "_id": profile_id})
        for name, documents in copies.items():
            database[name].insert_many(documents, ordered=False)


def measure(
    stub: profiles_pb2_grpc.ProfilesServiceStub,
    trips: Trips,
    clock: Clock,
    numbers: Sequence[tuple[str, int]],
    stored: int,
) -> Level:
    """Write these records, first one after the other for trips and CPU, then 20 a second for the slowest."""
    half = len(numbers) // 2
    trips.commands.clear()
    cpu, database = time.process_time(), clock.seconds()
    for source_id, number in numbers[:half]:
        write_one(stub, source_id, number)
    cpu, database = time.process_time() - cpu, clock.seconds() - database
    commands = trips.commands.copy()
    seconds = _at_rate(stub, numbers[half:])
    return Level(
        stored, commands.total() / half, cpu / half * 1e3, database / half * 1e3,
        seconds[len(seconds) // 2] * 1e3, seconds[len(seconds) * 99 // 100] * 1e3, commands,
    )  # fmt: skip


def _at_rate(stub: profiles_pb2_grpc.ProfilesServiceStub, numbers: Sequence[tuple[str, int]]) -> list[float]:
    """Return what the writes took, sorted, each from the moment at which it was due."""
    began = time.perf_counter()

    def due(at: int) -> float:
        return began + at / RATE

    def write(at: int) -> float:
        write_one(stub, *numbers[at])
        return time.perf_counter() - due(at)

    with ThreadPoolExecutor(16) as pool:
        waiting: list[Future[float]] = []
        for at in range(len(numbers)):
            time.sleep(max(0.0, due(at) - time.perf_counter()))
            waiting.append(pool.submit(write, at))
        return sorted(item.result() for item in waiting)


def levels(sizes: Sequence[int], writes: int) -> list[Level]:
    """Measure with so many profiles stored, one size after the other."""
    trips, found = Trips(), []
    monitoring.register(trips)
    with (
        tempfile.TemporaryDirectory(prefix="kehu-bench-", ignore_cleanup_errors=True) as name,
        embedded_database(Path(name), CACHE) as (client, clock),
    ):
        records.ensure_indexes([ProfileDocument])
        store = MongoStore()
        store.prepare()
        with Service(Path(name) / "keys", store).serving() as harness:
            stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
            for source_id in ("till", "shop"):
                stub.CreateSource(source_request(source_id), timeout=20)
            for start in range(0, KNOWN, 200):
                people = [(str(number), person(number)) for number in range(start, start + 200)]
                stub.BatchUpsertRecords(batch("till", *people), timeout=120)
            known, new = iter(range(KNOWN)), iter(range(KNOWN, 10 * KNOWN))
            for size in sizes:
                fill(client, size)
                numbers = [("shop", next(known)) if at % 2 else ("till", next(new)) for at in range(writes + 20)]
                for source_id, number in numbers[:20]:
                    write_one(stub, source_id, number)
                found.append(measure(stub, trips, clock, numbers[20:], size))
    return found


def run(short: bool) -> list[dict[str, object]]:
    """Measure."""
    found = levels((5_000, 10_000) if short else (10_000, 100_000, 300_000), 80 if short else 800)
    first, last = found[0], found[-1]
    trips, own, growth = (
        max(item.trips for item in found),
        max(item.own_ms for item in found),
        last.p99_ms / first.p99_ms,
    )
    times = "; ".join(f"{item.stored:,}: p50 {item.p50_ms:.1f}, p99 {item.p99_ms:.1f} ms" for item in found)
    commands = ", ".join(f"{name} {count}" for name, count in last.commands.most_common())
    return [
        {"figure": "one write: round trips to the database", "value": f"{trips:.2f} ({commands})",
         "reach": f"≤ {REACH_TRIPS:.0f}", "ok": trips < REACH_TRIPS + 0.5},
        {"figure": "one write: our own CPU, caller and guard included", "value": f"{own:.2f} ms",
         "peer": f"the database's {last.database_ms:.2f} ms", "reach": f"≤ {REACH_CPU:.0f} ms", "ok": own <= REACH_CPU},
        {"figure": f"one write: {RATE:.0f} a second, from {first.stored:,} to {last.stored:,} stored", "value": times,
         "ratio": f"{growth:.2f}", "reach": f"p99 flat (≤ {FLAT}×)", "ok": None if short else growth <= FLAT},
    ]  # fmt: skip


if __name__ == "__main__":
    import sys

    for line in run("--short" in sys.argv):
        print(line)
