"""A gateway on a real socket before a real guarded service that exists only here: the kitchen."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType

import google.api
import grpc
import grpc_tools
import httpx
import pytest
from google.api import httpbody_pb2
from google.protobuf import (  # noqa: F401 - the kitchen imports their files
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from grpc_tools import protoc

from gateway.auth import Doorkeeper
from gateway.certificates import CertificateReader
from gateway.limits import Limits
from gateway.main import build_gateway, build_server
from gateway.routes.derived import Edge
from gateway.routes.operations import operation_methods
from gateway.transcoding.catalog import methods_of
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import Upstreams
from infra.processes import free_port
from services.chassis import errors
from services.chassis.jobs import Jobs, MemoryOperations
from services.chassis.server import Serving, current_call
from tests.harness import Harness, OpenPolicy, StatedTokens, running

ROOT = Path(__file__).parents[2]
FILE = "kehu/kitchen/v1/kitchen.proto"
TOKEN = {"Authorization": "Bearer user:cook@kitchen"}
JSON_TYPE = {"Content-Type": "application/json"}
LIMITS = Limits(rate=1000, burst=100_000, anonymous_rate=1000, anonymous_burst=100_000, body_wait=2.0)


class DishGone(errors.NotFound):
    """No such dish."""

    reason = "DISH_GONE"


class DishChanged(errors.Conflict):
    """Another version."""


class BadSpice(errors.Invalid):
    """A field is wrong."""

    reason = "BAD_SPICE"


class KitchenBusy(errors.Unavailable):
    """Try again."""


class CredentialsRefused(errors.Unauthenticated):
    """As the access service says it."""

    reason = "CREDENTIALS_REFUSED"


class GrantTypeUnsupported(errors.Invalid):
    """As the access service says it."""

    reason = "GRANT_TYPE_UNSUPPORTED"


@pytest.fixture(scope="session")
def kitchen_file(tmp_path_factory) -> FileDescriptor:
    """The kitchen's proto, compiled and in the default pool."""
    out = tmp_path_factory.mktemp("protos") / "kitchen.binpb"
    common = Path(next(iter(google.api.__path__))).parent.parent
    includes = [Path(__file__).parent / "protos", ROOT / "proto", common, Path(grpc_tools.__file__).parent / "_proto"]
    flags = [f"-I{path}" for path in includes]
    assert protoc.main(["protoc", *flags, f"--descriptor_set_out={out}", FILE]) == 0
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    # The chassis imports a service's stub module; this one has no file, so that nothing else finds the kitchen.
    sys.modules["kehu.kitchen.v1.kitchen_pb2"] = ModuleType("kehu.kitchen.v1.kitchen_pb2")
    return pool.FindFileByName(FILE)


@pytest.fixture(scope="session")
def messages(kitchen_file) -> dict[str, type]:
    """The kitchen's message classes by name."""
    return {name: GetMessageClass(found) for name, found in kitchen_file.message_types_by_name.items()}


class Kitchen:
    """Echoes most requests; a dish's name says how reading it fails."""

    def __init__(self, messages):
        self.messages = messages
        self.calls = []
        self.token_seconds = 900
        self.orders = []
        self.before_order = lambda number: None
        self.work = lambda: None  # what a dish takes

    def GetDish(self, request, context):
        self.work()
        call = current_call()
        self.calls.append(call)
        fault = request.name.rpartition("/")[2]
        if fault == "gone":
            raise DishGone("no such dish", metadata={"name": request.name})
        if fault == "spicy":
            raise BadSpice("a bad dish", violations=[errors.FieldViolation("dish.tags[2]", "is too hot")])
        if fault == "crash":
            raise RuntimeError("the secret recipe of +8613812348000")
        if fault == "slow":
            time.sleep(0.6)
        if fault == "full":
            raise errors.Exhausted("no more dishes today")
        return self.messages["Dish"](name=request.name, title=f"{call.caller.subject}|{call.caller.purpose}", etag="3")

    def ListDishes(self, request, context):
        self.work()
        page = int(request.page_token or "0")
        dish = self.messages["Dish"](name=f"dishes/{page}")
        token = str(page + 1) if page < 2 else ""
        return self.messages["ListDishesResponse"](dishes=[dish], next_page_token=token, asked=request)

    def CreateDish(self, request, context):
        return request

    def UpdateDish(self, request, context):
        if request.dish.name == "dishes/slow":
            time.sleep(0.6)
        if request.dish.etag not in ("", "3"):
            raise DishChanged("somebody was first")
        return request

    def ServeDish(self, request, context):
        return request

    def GetMenu(self, request, context):
        return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=b"<h1>menu</h1>")

    def Unsubscribe(self, request, context):
        self.calls.append(request)
        return empty_pb2.Empty()

    def CreateToken(self, request, context):
        if request.grant_type == "implicit":
            raise GrantTypeUnsupported("no such grant type")
        if request.client_secret != "right+secret":
            raise CredentialsRefused("wrong credentials")
        self.calls.append("token")
        token = f"app:{request.client_id}@kitchen"
        return self.messages["CreateTokenResponse"](
            grant_type=request.grant_type, access_token=token, token_type="Bearer", expires_in=self.token_seconds
        )

    def ImportRecipe(self, requests, context):
        header = next(requests).header
        if header.language == "xx":
            raise BadSpice("no such language")
        digest, size, longest = hashlib.sha256(), 0, 0
        for part in requests:
            digest.update(part.chunk)
            size += len(part.chunk)
            longest = max(longest, len(part.chunk))
        reply = self.messages["ImportRecipeResponse"](size_bytes=size, sha256=digest.hexdigest(), longest_chunk=longest)
        reply.header.CopyFrom(header)
        return reply

    def StreamOrders(self, request, context):
        self.before_order(request.first_line)
        lines = request.lines.split(b"\n")[:-1]
        self.orders.append((request.first_line, lines, request.request_id))
        return self.messages["StreamOrdersResponse"](last_line=request.first_line + len(lines) - 1)

    def Scrub(self, request, context):
        return self.messages["Dish"](name="scrubbed")

    def Forgotten(self, request, context):
        return self.messages["Dish"](name="forgotten")


def adder(file: FileDescriptor):
    """Return what protoc would generate to register the service."""
    service = file.services_by_name["KitchenService"]

    def add_KitchenServiceServicer_to_server(servicer, server):  # noqa: N802
        handlers = {}
        for method in service.methods:
            kind = grpc.unary_unary_rpc_method_handler
            if method.client_streaming:
                kind = grpc.stream_unary_rpc_method_handler
            handlers[method.name] = kind(
                getattr(servicer, method.name),
                GetMessageClass(method.input_type).FromString,
                GetMessageClass(method.output_type).SerializeToString,
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        server.add_registered_method_handlers(service.full_name, handlers)

    add_KitchenServiceServicer_to_server.__module__ = f"{file.package}.kitchen_pb2_grpc"
    return add_KitchenServiceServicer_to_server


@contextmanager
def serving_in_thread(make_app, port: int) -> Iterator[None]:
    """Run the gateway's own server on a loop in a thread."""
    box: dict[str, object] = {}

    def work():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

        async def main():
            box["server"] = server = build_server(make_app(), "127.0.0.1", port)
            await server.serve()

        box["loop"] = loop
        loop.run_until_complete(main())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for_port(port)
    try:
        yield
    finally:
        box["loop"].call_soon_threadsafe(box["server"].stop)
        thread.join(10)


def wait_for_port(port: int, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass
class World:
    """A gateway at `port`, with what stands behind it."""

    port: int
    http: httpx.Client
    kitchen: Kitchen
    harness: Harness
    ready: list[bool]
    jobs: Jobs

    @property
    def policy(self) -> OpenPolicy:
        return self.harness.policy


@contextmanager
def a_world(kitchen_file, messages, limits=LIMITS, proxies=()) -> Iterator[World]:
    kitchen, port, ready = Kitchen(messages), free_port(), [True]
    jobs = Jobs("kitchen", MemoryOperations())
    serving = Serving("kitchen", [(adder(kitchen_file), kitchen)], jobs=jobs)
    with running(serving) as harness:

        def make_app():
            methods = [*(m for m in methods_of([kitchen_file]) if m.is_routed), *operation_methods()]
            upstreams = Upstreams(methods, lambda service, names: aio.insecure_channel(harness.address))
            reader = CertificateReader([ip_network(proxy) for proxy in proxies])
            doorkeeper = Doorkeeper(harness.policy, StatedTokens(), harness.trail, limits, certificates=reader)
            edge = Edge(doorkeeper, upstreams, limits, Readers(), Writers())
            return build_gateway(edge, methods, f"http://127.0.0.1:{port}", lambda: ready[0], [], [upstreams.close])

        base = f"http://127.0.0.1:{port}"
        with serving_in_thread(make_app, port), httpx.Client(base_url=base, headers=TOKEN, timeout=15) as http:
            yield World(port, http, kitchen, harness, ready, jobs)


@pytest.fixture(scope="module")
def module_world(kitchen_file, messages):
    with a_world(kitchen_file, messages) as world:
        yield world


@pytest.fixture
def world(module_world):
    """The module's gateway, with nothing denied and nothing remembered."""
    module_world.policy.denied.clear()
    module_world.harness.trail.entries.clear()
    module_world.kitchen.calls.clear()
    module_world.kitchen.orders.clear()
    module_world.kitchen.before_order = lambda number: None
    module_world.ready[0] = True
    return module_world
