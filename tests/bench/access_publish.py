"""A policy of 100,000 rules is published: how long until every process of an installation has it in force.

    python -m tests.bench.access_publish RULES PROCESSES ROUNDS [CHANGED]

CHANGED of the rules are others each time, one in a hundred if nothing is said. Access keeps its policies in the
embedded database and answers over gRPC; the processes are real ones that poll it as services do. Time counts from when
the revision is stored, which is what the approver is answered on. Prints JSON: seconds by the clock, and of CPU for a
publication, in access and in each process.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kehu.access.v1 import access_pb2_grpc

from services.access.api import AccessServicer
from services.access.directory import Directory
from services.access.domain.tokens import SigningKey
from services.access.store import mongo
from services.access.store.memory import MemoryPrincipals, MemoryRevocations
from services.chassis import records
from services.chassis.access import SnapshotHolder, SnapshotPoller
from services.chassis.access.wire import snapshot_fetcher
from services.chassis.server import Serving
from tests.access.world import new_world
from tests.bench.bench_access import make_policy
from tests.bench.bench_audit import database
from tests.harness import Harness, MemoryTrail, OpenPolicy, running

PROCESSES = 8  # seven services beside access, and a gateway
WAIT_SECONDS = 60.0


def follow(address: str) -> None:
    """Be one process: poll, and print each version with the time it came into force."""
    holder = SnapshotHolder()
    harness = Harness(address, OpenPolicy(), MemoryTrail())
    stub = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="", peer="profiles")
    SnapshotPoller(holder, snapshot_fetcher(stub)).start()
    said = -1
    while True:
        known = holder.known
        if known is not None and known.version != said:
            said = known.version
            print(said, time.time(), time.process_time(), flush=True)
        time.sleep(0.005)


def publish(rules: int, processes: int, rounds: int, changed: int) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds from each publication to each process, and the CPU of access and of a process for each."""
    with ExitStack() as stack:
        uri = stack.enter_context(database(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        records.connect(SimpleNamespace(mongo_uri=uri, grpc_threads=8), "access")  # type: ignore[arg-type]
        records.ensure_indexes(mongo.RECORDS)
        keys = [SigningKey(Ed25519PrivateKey.generate())]
        stores = MemoryPrincipals(), mongo.MongoPolicies(), MemoryRevocations()
        directory = Directory(*stores, keys, lambda: datetime.now(UTC))
        world = new_world(principals=stores[0], policies=stores[1], revocations=stores[2], directory=directory)
        add = access_pb2_grpc.add_AccessServiceServicer_to_server
        harness = stack.enter_context(running(Serving("access", [(add, AccessServicer(world.context))])))
        children = [
            stack.enter_context(_child("-m", "tests.bench.access_publish", harness.address)) for _ in range(processes)
        ]
        first = stores[1].newest_after(0)
        lines = [_out(child) for child in children]
        for out in lines:
            _seen(out, first.number)
        made, links = make_policy(random.Random(rules), rules)
        took: list[float] = []
        here: list[float] = []
        there: list[float] = []
        used = [0.0] * processes
        every = max(rules // changed, 1)
        for number in range(first.number + 1, first.number + rounds + 2):
            others = [
                (*rule[:2], f"{rule[2]}-{number}", *rule[3:]) if not n % every else rule for n, rule in enumerate(made)
            ]
            content = replace(first.content, rules=tuple(others), links=tuple(links))
            stores[1].insert(replace(first, id=f"bench-{number}", number=number, base=number - 1, content=content))
            stored, began = time.time(), time.process_time()
            found = [_seen(out, number) for out in lines]
            if number > first.number + 1:  # the first has nothing of the policy that was there before
                took += [at - stored for at, _ in found]
                here.append(time.process_time() - began)
                there += [cpu - before for (_, cpu), before in zip(found, used, strict=True)]
            time.sleep(1.0)
            used = [cpu for _, cpu in found]
        for child in children:
            child.terminate()
    return took, here, there


def _child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)


def _out(child: subprocess.Popen[str]) -> IO[str]:
    assert child.stdout is not None
    return child.stdout


def _seen(out: IO[str], version: int) -> tuple[float, float]:
    """Return when a process had a version in force, and the CPU it had used."""
    for line in out:
        found, at, cpu = line.split()
        if int(found) == version:
            return float(at), float(cpu)
    raise RuntimeError("a process ended")


def main() -> None:
    """Measure, or be one of the processes."""
    if len(sys.argv) == 2:
        follow(sys.argv[1])
        return
    rules, processes, rounds, *more = (int(text) for text in sys.argv[1:])
    found, here, there = publish(rules, processes, rounds, *(more or [rules // 100]))
    took = sorted(found)
    figures = {
        "p50": took[len(took) // 2], "p99": took[min(int(len(took) * 0.99), len(took) - 1)], "longest": took[-1],
        "count": len(took), "cpu_access": statistics.median(here), "cpu_process": statistics.median(there),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
