"""Fuzz every method of every service: hostile bytes through the real guard, the real servicer, a real database.

No answer may be UNKNOWN or INTERNAL: those are faults nobody foresaw. `KEHU_FUZZ_MESSAGES` sets the messages for
each method (200 in `make test`; the long run of docs/security.md takes 50,000), `KEHU_FUZZ_TEXTS` the payloads for each
text of each request (4; all 381 in a long run), `KEHU_FUZZ_SEED` repeats a run.
"""

from __future__ import annotations

import importlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import grpc
import mongoengine
import pytest
from google.longrunning import operations_pb2_grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.rpc import code_pb2
from kehu.options.v1 import options_pb2 as options

from infra.certificates import ensure_certificates
from services.chassis import records
from services.chassis.config import SERVICES, load_config
from services.chassis.jobs import Jobs
from services.chassis.server import Guard, MethodPlan, Serving, plans_by_path, service_names
from services.chassis.server.multiplexer import FramedContext
from services.chassis.server.operations import OperationsServicer
from tests.fuzz.hostile import hostile, planted, text_fields
from tests.fuzz.payloads import PAYLOADS
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens

pytestmark = [pytest.mark.mongo, pytest.mark.slow]
MESSAGES = int(os.environ.get("KEHU_FUZZ_MESSAGES", "200"))
SEED = int(os.environ.get("KEHU_FUZZ_SEED", "20261122"))
TEXTS = int(os.environ.get("KEHU_FUZZ_TEXTS", "4"))
FAULTS = {code_pb2.UNKNOWN, code_pb2.INTERNAL, code_pb2.DATA_LOSS}
SECONDS_EACH = 10.0
MOST_SECONDS = 1.0  # of a call (row 54)
BY_A_PERSON = (("authorization", "Bearer user:fuzz@data-office"), ("x-purpose", "stewardship"))


class Details(grpc.HandlerCallDetails):
    """Names the method whose handler is wanted."""

    def __init__(self, path: str) -> None:
        self.method = path
        self.invocation_metadata = ()


class Handlers:
    """Takes what the generated add functions would give a server."""

    def __init__(self) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take the handlers of a service."""
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Take nothing: the same came before."""

    def find(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler of a method."""
        return next(found for generic in self._generic if (found := generic.service(details)) is not None)


@dataclass(frozen=True)
class Target:
    """One method behind its guard."""

    plan: MethodPlan
    request: Descriptor
    handler: grpc.RpcMethodHandler

    def send(self, *raw: bytes) -> int:
        """Return the code of the answer to a message, or to a stream of them."""
        is_public = self.plan.audience == options.AUDIENCE_PRINCIPAL
        metadata = [*BY_A_PERSON] if is_public else []
        context = FramedContext(MappingProxyType({}), time.monotonic() + SECONDS_EACH, metadata)
        read = self.handler.request_deserializer
        try:
            if self.handler.request_streaming:
                self.handler.stream_unary(iter([read(each) for each in raw]), context)
            else:
                self.handler.unary_unary(read(raw[0]), context)
        except Exception as ended:
            status = getattr(ended, "status", None)  # what the context's abort raises
            return status.code if status is not None else code_pb2.UNKNOWN
        return code_pb2.OK


@dataclass
class Found:
    """What a run of messages brought to light."""

    caplog: pytest.LogCaptureFixture
    answers: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    faults: dict[str, bytes] = field(default_factory=dict)
    slow: dict[str, bytes] = field(default_factory=dict)
    slowest: float = 0.0

    def send(self, target: Target, *raw: bytes) -> None:
        """Send, and keep what was wrong with the answer."""
        code, seconds = self._timed(target, *raw)
        if seconds > MOST_SECONDS:  # the machine may have been busy with others: what is slow is slow again
            seconds = min(seconds, *(self._timed(target, *raw)[1] for _ in range(3)))
        if seconds > MOST_SECONDS:
            self.slow.setdefault(target.plan.path, raw[0])
        self.slowest = max(self.slowest, seconds)
        self.answers[code_pb2.Code.Name(code)] += 1
        if code not in (code_pb2.INVALID_ARGUMENT, *FAULTS):
            self.reached.add(target.plan.path)
        if code in FAULTS:
            self.faults.setdefault(f"{target.plan.path} {_cause(self.caplog)}", raw[0])
        self.caplog.clear()

    def check(self, record_property: Callable[[str, object], None]) -> None:
        """Tell the figures, and fail for what was found."""
        figures = {"answers": dict(self.answers), "slowest_seconds": round(self.slowest, 3)}
        for name, value in figures.items():
            record_property(name, value)
        print(sum(self.answers.values()), figures)
        wrong = {**self.faults, **{f"{path} is slow": raw for path, raw in self.slow.items()}}
        assert not wrong, "\n".join(f"{where}: {raw[:300]!r}" for where, raw in wrong.items())

    @staticmethod
    def _timed(target: Target, *raw: bytes) -> tuple[int, float]:
        began = time.perf_counter()
        return target.send(*raw), time.perf_counter() - began


def targets_of(serving: Serving) -> list[Target]:
    """Return all methods of a service with the guard around each."""
    plans = plans_by_path(service_names(serving))
    guard = Guard(serving.service, plans, OpenPolicy(), StatedTokens(), MemoryTrail(), lambda _: peer_for(serving))  # type: ignore[arg-type]
    handlers = Handlers()
    operations = OperationsServicer(serving.jobs or Jobs(serving.service))
    for add, servicer in [*serving.servicers, (operations_pb2_grpc.add_OperationsServicer_to_server, operations)]:
        add(servicer, handlers)
    found = []
    for path, plan in plans.items():
        service, _, method = path.removeprefix("/").partition("/")
        kind = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].input_type
        details = Details(path)
        found.append(Target(plan, kind, guard.intercept_service(handlers.find, details)))
    return found


def peer_for(serving: Serving) -> str:
    """Return a peer that may call what is meant for services."""
    return "gateway" if serving.service in ("access", "search") else "marketing"


@pytest.fixture(scope="module")
def environ(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("fuzz")
    ensure_certificates(folder / "tls", [*SERVICES, "gateway"])
    return {
        "KEHU_DATA_DIR": str(folder),
        "KEHU_MONGO_URI": mongo_uri,
        "KEHU_AMQP_URI": "amqp://unused",
        "KEHU_ADDRESSES": ",".join(f"{name}=127.0.0.1:1" for name in SERVICES),
    }


@pytest.fixture(params=SERVICES)
def targets(request: pytest.FixtureRequest, environ: Mapping[str, str]) -> Iterator[list[Target]]:
    service = request.param
    config = load_config(environ)
    records.connect(config, service)
    database = records.database(service)
    database.client.drop_database(database.name)  # what another test sealed, this one has no key for
    main = importlib.import_module(f"services.{service}.main")
    serving = main.serving(config)
    records.ensure_indexes(serving.records)
    serving.prepare()
    yield targets_of(serving)
    database.client.drop_database(database.name)
    mongoengine.disconnect(service)


@pytest.fixture
def forget_operations(request: pytest.FixtureRequest) -> Callable[[], object]:
    """Return what removes the operations that messages began: the embedded server reads all of them to list some."""
    service = request.node.callspec.params["targets"]
    return lambda: records.database(service)["operations"].delete_many({})


@pytest.mark.timeout(0)
def test_no_message_finds_a_fault_that_nobody_foresaw(
    targets: list[Target],
    forget_operations: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
) -> None:
    found = Found(caplog)
    for target in targets:
        forget_operations()
        chance = random.Random(f"{SEED}{target.plan.path}")
        for _ in range(MESSAGES):
            raw = [hostile(target.request, chance) for _ in range(3 if target.handler.request_streaming else 1)]
            found.send(target, *raw)
    unreached = sorted({target.plan.path for target in targets} - found.reached)
    record_property("unreached", unreached)
    found.check(record_property)
    assert len(unreached) <= len(targets) // 4, unreached  # most are valid requests often enough


@pytest.mark.timeout(0)
def test_each_text_of_each_request_is_taken_for_what_it_says_or_refused_within_a_second(
    targets: list[Target], caplog: pytest.LogCaptureFixture, record_property: Callable[[str, object], None]
) -> None:
    """Payloads that mean something to a database, an index or a pattern: in one field, the rest as it should be."""
    found = Found(caplog)
    for target in targets:
        for way in text_fields(target.request):
            chance = random.Random(f"{SEED}{target.plan.path}{[step.full_name for step in way]}")
            for text in chance.sample(PAYLOADS, min(TEXTS, len(PAYLOADS))):
                found.send(target, planted(target.request, way, text, chance))
    found.check(record_property)


def _cause(caplog: pytest.LogCaptureFixture) -> str:
    """Return where the last failure was raised: type, file and line."""
    for entry in reversed(caplog.records):
        if entry.exc_info and entry.exc_info[1] is not None:
            trace = entry.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
            return f"{type(entry.exc_info[1]).__name__} at {place}"
    return ""


def test_the_fuzzer_itself_finds_a_planted_fault(targets: list[Target]) -> None:
    target = targets[0]

    def broken(request: object, context: object) -> None:
        raise ZeroDivisionError

    planted = Target(target.plan, target.request, grpc.unary_unary_rpc_method_handler(broken, lambda raw: raw))
    assert planted.send(b"") == code_pb2.UNKNOWN
