"""What the audit trail costs: entries a second from the spool into the chain on the embedded database, and on a read.

The peer of the first is what a plain audit log does: one document for each entry with the indexes an auditor asks by,
written by the same number at once into the same database. The second is the same read of a stored profile with and
without its entry, in turns, by the wall clock, the database included.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import grpc
import mongoengine
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kehu.access.v1 import access_pb2_grpc
from kehu.options.v1 import options_pb2 as options
from kehu.profiles.v1 import profiles_pb2 as pb
from kehu.profiles.v1 import profiles_pb2_grpc

from infra.processes import free_port
from infra.processes import running as running_server
from infra.servers import Mongo
from services.access.api import AccessServicer
from services.access.chain import Chain
from services.access.searching import Wanted, search
from services.access.store import mongo_trail
from services.access.store.mongo_trail import MongoBlocks, MongoCheckpoints
from services.chassis import records
from services.chassis.access.wire import batch_writer
from services.chassis.audit import AuditEntry, AuditSpool, Shipper
from services.chassis.server import Guard, Serving, build_server, plans_by_path
from services.chassis.server.trail import SpoolTrail
from services.profiles.api import ProfilesServicer
from services.profiles.documents import ProfileDocument
from services.profiles.store import MongoStore
from tests.access.world import new_world
from tests.harness import TODAY, OpenPolicy, StatedTokens, running, stated_peer
from tests.profiles.people import Service, batch, source_request

BATCH, TURN = 500, 10
RATE_REACH, OVERHEAD_REACH, PEOPLE = 2_000, 1.05, 50_000
READS = "/kehu.profiles.v1.ProfilesService/GetProfile"


def run(short: bool) -> list[dict[str, object]]:
    """Return the rows."""
    with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as uri:
        config = SimpleNamespace(mongo_uri=uri, grpc_threads=8)
        records.connect(config, "access")  # type: ignore[arg-type]
        try:
            rows = throughput(Path(folder), 4_000 if short else 40_000)
            rows += overhead(Path(folder), uri, 40 if short else 400)
        finally:
            mongoengine.disconnect("access")
            mongoengine.disconnect("profiles")
    return rows


@contextmanager
def database(folder: Path) -> Iterator[str]:
    server = Mongo(folder / "mongo", free_port(), "only-for-the-bench")
    server.prepare()
    with running_server(server, folder / "mongo.log"):
        yield server.uri


def entries(count: int) -> Iterator[AuditEntry]:
    """Yield reads of single profiles as the guard writes them: each another customer, request and id."""
    random_ = random.Random(7)
    for number in range(count):
        profile = f"{random_.randrange(PEOPLE):032x}"
        yield AuditEntry.of(
            service="profiles", subject=f"user:agent-{random_.randrange(200)}", department="service",
            purpose="service", resource="profiles", action="read", outcome="allowed", reason="ALLOWED", status="OK",
            target=f"profiles/{profile}", request_id=f"{number:032x}", policy_version=7,
            method="kehu.profiles.v1.ProfilesService/GetProfile", profiles=(profile,),
            shown=("personal/contact", "personal/name"), masked=("sensitive/document",),
        )  # fmt: skip


def throughput(folder: Path, count: int) -> list[dict[str, object]]:
    """Push entries through spool, gRPC and chain; then as plain documents; then ask for one customer's."""
    mongo_trail.ensure_indexes()
    chain = Chain(MongoBlocks(), Ed25519PrivateKey.generate(), MongoCheckpoints(), Ed25519PrivateKey.generate())
    world = new_world(chain=chain)
    made, spool = list(entries(count)), AuditSpool(folder / "spool")
    adder = access_pb2_grpc.add_AccessServiceServicer_to_server
    with running(Serving("access", [(adder, AccessServicer(world.context))])) as harness:
        stub = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="", peer="profiles")
        shipper = Shipper(spool, batch_writer(stub))
        began, cpu = time.perf_counter(), _cpu()
        for entry in made:
            spool.append(entry)
        assert shipper.ship_once()
        ours, cpu = time.perf_counter() - began, _cpu() - cpu
    plain = _plain(made)
    asked = [_timed(lambda: _one_customer(chain, made)) for _ in range(20)]
    began = time.perf_counter()
    verdict = chain.verify()
    verified = time.perf_counter() - began
    assert verdict.is_intact and verdict.blocks.entries == count
    return [
        {"figure": f"audit: entries a second, {count} through spool, gRPC and chain", "value": f"{count / ours:,.0f}/s",
         "peer": f"a document each, seven indexes: {count / plain:,.0f}/s", "ratio": f"{plain / ours:.1f}×",
         "reach": f"≥ {RATE_REACH:,}/s", "ok": count / ours >= RATE_REACH},
        {"figure": "audit: CPU for 1,000 entries, all processes and the database",
         "value": f"{cpu / count * 1e6:,.0f} ms", "peer": "", "ratio": "", "reach": "", "ok": None},
        {"figure": f"audit: one customer's entries among {count}", "value": f"{statistics.median(asked) * 1000:.0f} ms",
         "peer": "", "ratio": "", "reach": "", "ok": None},
        {"figure": "audit: entries verified a second", "value": f"{count / verified:,.0f}/s", "peer": "", "ratio": "",
         "reach": "", "ok": None},
    ]  # fmt: skip


def _cpu() -> float:
    """Return the CPU seconds of this process and of the database: steadier than the clock on a machine at work."""
    found = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in found)


def _plain(made: list[AuditEntry]) -> float:
    rows = records.database("access")["plain_audit"]
    for name in ("subject", "profiles", "purpose", "time", "shown", "method", "request_id"):
        rows.create_index(name)
    began = time.perf_counter()
    for start in range(0, len(made), BATCH):
        rows.insert_many([asdict(entry) for entry in made[start : start + BATCH]])
    return time.perf_counter() - began


def _one_customer(chain: Chain, made: list[AuditEntry]) -> None:
    someone = random.choice(made)
    found, _ = search(chain.blocks, _period(someone), None, 50)
    assert someone in [item.entry for item in found]


def _period(entry: AuditEntry) -> Wanted:
    now = datetime.now(UTC)
    return Wanted({"profile": entry.profiles[0]}, now - timedelta(days=1000), now + timedelta(days=1))


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def overhead(folder: Path, uri: str, rounds: int) -> list[dict[str, object]]:
    """Read a stored profile with and without its entry, in turns of ten."""
    mongoengine.connect(db="bench_audit", alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    ProfileDocument._collection = None
    records.ensure_indexes([ProfileDocument])
    store = MongoStore()
    store.prepare()
    service = Service(folder / "keys", store)
    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    serving = Serving("profiles", [(add, ProfilesServicer(service.tools))], service.jobs)
    with service.serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        stub.CreateSource(source_request("till"), timeout=20)
        fields = {"name": "欧阳小明", "phone": "13812348000", "email": "ming@example.cn"}
        name = stub.BatchUpsertRecords(batch("till", ("1", fields)), timeout=20).results[0].profile
    plans = plans_by_path(["kehu.profiles.v1.ProfilesService"])
    trail = SpoolTrail("profiles", AuditSpool(folder / "reads"))
    bare = {**plans, READS: replace(plans[READS], audit=options.AUDIT_LEVEL_NONE)}
    servers = [Guard("profiles", found, OpenPolicy(), StatedTokens(), trail, stated_peer, lambda: TODAY)
               for found in (plans, bare)]  # fmt: skip
    times: list[list[float]] = [[], []]
    cpu: list[list[float]] = [[], []]
    reads = [_reader(serving, guard, name) for guard in servers]
    for read in reads:
        read()
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            times[which].append(_timed(reads[which]))
            cpu[which].append(time.process_time() - began)
    # the quarter that others on this machine disturbed least
    micro, wall = ([statistics.quantiles(found)[0] / TURN * 1e6 for found in taken] for taken in (cpu, times))
    ratio = micro[0] / micro[1]
    return [
        {"figure": "audit: CPU of a read of a stored profile with its entry", "value": f"{micro[0]:,.0f} µs",
         "peer": f"without: {micro[1]:,.0f} µs", "ratio": f"{ratio:.3f}×", "reach": f"≤ {OVERHEAD_REACH}×",
         "ok": ratio <= OVERHEAD_REACH},
        {"figure": "audit: the same by the clock", "value": f"{wall[0]:,.0f} µs", "peer": f"without: {wall[1]:,.0f} µs",
         "ratio": f"{wall[0] / wall[1]:.3f}×", "reach": "", "ok": None},
    ]  # fmt: skip


def _reader(serving: Serving, guard: Guard, name: str) -> Callable[[], None]:
    server = build_server(serving, guard, threads=4)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = profiles_pb2_grpc.ProfilesServiceStub(channel).GetProfile
    metadata = [("authorization", "Bearer user:ann@service"), ("x-purpose", "service")]

    def read() -> None:
        assert server is not None
        for _ in range(TURN):
            call(pb.GetProfileRequest(name=name), timeout=5, metadata=metadata)

    return read
